"""The README says what the committed results say."""

import re

import pytest

from reflect_rl import config, paths

README = (paths.project() / "README.md").read_text()


@pytest.mark.parametrize(
    "table",
    [
        "results/laptop/tables/taxi_headline.md",
        "results/laptop/tables/alfworld_headline.md",
        "results/laptop/tables/alfworld_kitchens.md",
        "results/pretrained_cpu/tables/taxi_headline.md",
        "benchmarks/architectures.md",
        "benchmarks/decisions.md",
        "benchmarks/household.md",
        "benchmarks/pretrained.md",
        "benchmarks/top_layer.md",
    ],
)
def test_tables_in_the_readme_are_those_of_the_pipeline(table):
    lines, *_ = (paths.project() / table).read_text().split("\n\nMemory of")
    lines = [line for line in lines.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    assert [line for line in lines if line not in README] == []


def test_links_in_the_readme_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links
    assert [link for link in links if not (paths.project() / link).exists()] == []


def test_names_in_the_readme_exist():
    assert set(re.findall(r"`PROFILE=(\w+)`", README)) - {"mine"} <= set(config.profiles())
    makefile = (paths.project() / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in re.findall(r"^make (\w+)", README, re.M))
