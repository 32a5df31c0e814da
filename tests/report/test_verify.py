import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from reflect_rl.cli.main import main as command
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.report import verify

SMALL = "pretrained_cpu"  # the profile with the fewest results


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A project with the results of `SMALL` alone: where they lie."""
    project = paths.project()
    for name in ("pyproject.toml", "configs", f"results/{SMALL}", f"figures/{SMALL}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (project / name).is_dir() else shutil.copy
        copy(project / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFLECT_RL_HOME", raising=False)
    return tmp_path / "results" / SMALL


def edit(path: Path, old: str, new: str, count: int = 1):
    is_packed = path.suffix == ".gz"
    text = gzip.decompress(path.read_bytes()).decode() if is_packed else path.read_text()
    assert old in text
    text = text.replace(old, new, count)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if is_packed else text.encode())


@pytest.mark.slow
def test_committed_results_come_out_of_their_raw_episodes():
    assert [finding for name in verify.committed() for finding in verify.verify(name)] == []


@pytest.mark.slow
def test_each_kind_of_change_is_named_and_the_command_fails(copied, capsys):
    table = pd.read_csv(copied / "tables" / "main.csv", dtype=str, keep_default_na=False)
    row = table.index[table["variant"] == "follow"][0]
    table.loc[row, "success"] = "0.123"
    table.to_csv(copied / "tables" / "main.csv", index=False)
    edit(copied / "tables" / "seeds.md", "| random", "| Random")
    (copied / "tables" / "runs.md").unlink()
    (copied / "tables" / "mine.md").write_text("# Made by hand\n")
    figure = copied.parents[1] / "figures" / SMALL / "taxi_main_results.png"
    Image.new("RGB", Image.open(figure).size).save(figure)
    lines = gzip.decompress((copied / "training.csv.gz").read_bytes()).decode().splitlines(keepends=True)
    (copied / "training.csv.gz").write_bytes(gzip.compress("".join(lines[:-1]).encode()))
    assert command(["verify", SMALL]) == 1
    said = capsys.readouterr().out
    for named in (
        f"results/{SMALL}/tables/main.csv: row {row + 1} (taxi",
        "success: 0.123, made anew ",
        f"results/{SMALL}/tables/seeds.md: line ",
        f"results/{SMALL}/tables/runs.md: is missing",
        f"results/{SMALL}/tables/mine.md: is made by nothing",
        f"figures/{SMALL}/taxi_main_results.png: drawn anew it looks different",
        f"results/{SMALL}/training.csv.gz: rows of taxi reflect_rl seed 0 are not those collected",
    ):
        assert named in said


def test_a_changed_episode_and_a_missing_run_are_named(copied):
    episodes = pd.read_csv(copied / "episodes.csv.gz", dtype=str, keep_default_na=False)
    kept = episodes[episodes["variant"] != "sft_only"]
    kept.loc[kept["variant"] == "follow", "success"] = "1"
    kept.to_csv(copied / "episodes.csv.gz", index=False)
    assert [*verify.rows_of(SMALL)] == [
        (f"results/{SMALL}/episodes.csv.gz", "rows of taxi follow seed 0 are not those collected"),
        (f"results/{SMALL}/episodes.csv.gz", "rows of taxi sft_only seed 0 are missing"),
    ]
    assert [*verify.runs_of_profile(SMALL)] == [
        (f"results/{SMALL}/episodes.csv.gz", "no episodes of taxi sft_only seed 0")
    ]


def test_other_settings_than_the_profiles_are_named(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["environments"]["taxi"]["regimes"][""]["settings"]["reflect_rl"]["rl"]["entropy"] = 0.5
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert [*verify.runs_of_profile(SMALL)] == [
        (f"results/{SMALL}/manifest.json", "taxi reflect_rl was made with other settings: rl.entropy")
    ]
    (copied / "checksums.csv").unlink()
    assert [*verify.rows_of(SMALL)] == [(f"results/{SMALL}/checksums.csv", "is missing")]


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ("0.950 (0.930-0.970)", "0.951 (0.930-0.970)", True),
        ("0.950 (0.930-0.970)", "0.952 (0.930-0.970)", False),
        ("1,024 steps", "1,025 steps", False),
        ("reproduced: +9.1", "undecided: +9.1", False),
        ("", "0.1", False),
    ],
)
def test_numbers_may_differ_by_one_in_the_last_digit_and_counts_may_not(one, other, are_alike):
    assert verify.alike(one, other) == are_alike


def main(**changes):
    """A main table: oracle, random play and an arm, at one setting and horizon."""
    rows = [("oracle", 0.9, 0.9, 0.9), ("random", 0.12, 0.1, 0.2), ("reflect_rl", 0.8, 0.7, 0.9)]
    table = pd.DataFrame(rows, columns=["variant", "success", "ci_low", "ci_high"])
    table = table.assign(
        env="taxi", regime="", setting="full", split="test", horizon=20, decoding="greedy", ceiling=0.9
    )
    for column, (variant, value) in changes.items():
        table.loc[table.variant == variant, column] = value
    return table


def test_a_sound_table_is_described_with_the_success_of_random_play():
    assert verify.check_main(main()) == [
        "3 of 3 rates have a ceiling, and none exceeds it",
        "the oracle reaches the ceiling everywhere",
        "random play finishes 12.0% of the tasks of taxi",
    ]


def test_without_an_oracle_there_is_less_to_check():
    table = main().query("variant == 'reflect_rl'").assign(ceiling=float("nan"))
    assert verify.check_main(table) == ["0 of 1 rates have a ceiling, and none exceeds it"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"success": ("reflect_rl", 0.95), "ci_high": ("reflect_rl", 1.0)},
            "above the ceiling: taxi full 20 greedy reflect_rl",
        ),
        ({"ci_high": ("reflect_rl", 0.75)}, "outside its interval: taxi full 20 greedy reflect_rl 0.8"),
        ({"success": ("oracle", 0.8), "ci_low": ("oracle", 0.8)}, "of the oracle and not at the ceiling: taxi"),
    ],
)
def test_what_cannot_be_is_named(changes, complaint):
    with pytest.raises(ReflectRLError, match=complaint):
        verify.check_main(main(**changes))
