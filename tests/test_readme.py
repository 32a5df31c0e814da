"""README and docs say what the committed results say. `python tests/test_readme.py` puts today's tables into them, each (but for
the README's) with the command that makes it."""

import re
from pathlib import Path

import pytest

from reflect_rl.core.config import SECTIONS
from reflect_rl.envs.settings import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A mark, the table below it, and what makes it.
TABLE = re.compile(r"<!-- table: (\S+) -->\n\n((?:\|.*\n)*(?:\n<sub>By .*\n)?)")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def table(source: str) -> str:
    """The first table of a Markdown file, as its lines stand there."""
    lines = (ROOT / source).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "".join(f"{line}\n" for line in lines[first:end])


def command(source: str) -> str:
    """The command that makes a file: the one that it names, else the one in the docstring of the script whose name it bears."""
    if named := re.search(r"^Made by `(.+)`\.$", (ROOT / source).read_text(), re.M):
        return named[1]
    place = Path(source)
    script = max((ROOT / place.parent).glob("*.py"), key=lambda path: len(path.stem) * place.stem.startswith(path.stem))
    own, *others = re.findall(r"^ {4}(python .*?)(?: \[.*)?$", script.read_text(), re.M)
    return own if place.stem == script.stem else [own, *others][-1]


def shown(page: Path, source: str) -> str:
    """A table as it stands in a page."""
    return table(source) + f"\n<sub>By `{command(source)}`.</sub>\n" * (page != PAGES[0])


def filled(page: Path, text: str) -> str:
    """A page with today's tables below its marks, and a blank line after a table where there was none yet."""
    return TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n\n{shown(page, m[1])}" + "\n" * (not m[2]), text)


@each_page
def test_a_page_without_its_tables_is_filled_again(page):
    text = page.read_text()
    bare = re.sub(TABLE.pattern + r"\n?", r"<!-- table: \1 -->\n\n", text)
    assert filled(page, bare).rstrip() == filled(page, text).rstrip() == text.rstrip()


@each_page
def test_tables_are_those_of_the_pipeline(page):
    marked = TABLE.findall(page.read_text())
    assert page.read_text().count("<!-- table:") == len(marked)
    assert [source for source, below in marked if below != shown(page, source)] == []


def test_the_readme_has_one_table_of_results_and_is_short():
    text = PAGES[0].read_text()
    assert [source for source, _ in TABLE.findall(text)] == ["results/study/tables/contributions.md"]
    words = [word for word in re.sub(r"\]\([^)]*\)", "]", text).split() if re.search(r"\w", word)]
    assert len(text.splitlines()) <= 150 and len(words) <= 1500


def test_settings_in_the_readme_can_be_given():
    (given,) = re.findall(r"`overrides = \"([^\"]+)\"`", PAGES[0].read_text())
    assert load("laptop", "taxi", overrides=given).rl.advantage == "grpo"


@each_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith("http"):
            continue
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), link
        headings = (
            [line.lstrip("# ") for line in found.read_text().splitlines() if line.startswith("#")] if anchor else []
        )
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


def test_every_notebook_is_in_the_readme():
    assert [n.name for n in (ROOT / "notebooks").glob("*.ipynb") if n.name not in PAGES[0].read_text()] == []


@each_page
def test_profiles_and_make_targets_exist(page):
    text = page.read_text()
    known = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert set(re.findall(r"PROFILE=(\w+)", text)) - {"mine"} <= known
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in re.findall(r"(?:^|`)make (\w+)", text, re.M))


@each_page
def test_settings_that_are_named_exist(page):
    known = {f"{section}.{name}" for section, cls in SECTIONS.items() for name in cls.__dataclass_fields__}
    named = re.findall(rf"(?<![\w/.])((?:{'|'.join(SECTIONS)})\.[a-z_]+)(?![\w(])", page.read_text())
    assert set(named) - known <= {"teacher.py"}


def test_the_repository_of_the_docs_is_walked_to_its_answer(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "autoexplore.md").read_text(), re.S)
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == ["cd src", "cat parse.py", "id parse.py", "True"]


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path, path.read_text()))
