"""The library's plan: rooms whose imports point one way, small files and functions, environments that nothing names."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "reflect_rl"
ROOMS = ("core", "envs", "lm", "train", "evaluate", "report", "cli")
FILES = sorted(LIBRARY.rglob("*.py"))
NAMES = re.compile("taxi|alfworld|household|autoexplore", re.IGNORECASE)
OWN = (
    LIBRARY / "envs" / "taxi",
    LIBRARY / "envs" / "household",
    LIBRARY / "envs" / "autoexplore",
    LIBRARY / "envs" / "__init__.py",
)

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room(module: str) -> int:
    """A module's place in the order of the rooms; the command line's entry point stands right of them all."""
    parts = module.split(".")
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else len(ROOMS)


def imported(path: Path) -> list[str]:
    """What a file imports of the library, also inside functions, as dotted names down to the imported name."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "reflect_rl"]


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def docstrings(path: Path) -> set[int]:
    """The lines that are docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def test_the_rooms_are_all_there_is():
    kept = [path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert sorted(kept) == sorted(ROOMS)
    assert sorted(path.name for path in LIBRARY.glob("*.py")) == ["__init__.py", "__main__.py"]


@each_file
def test_imports_point_one_way(path):
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert [name for name in imported(path) if room(name) > here] == []


@each_file
def test_names_come_from_modules_and_not_from_a_rooms_front(path):
    # the identity of code follows imports, and a room's `__init__` is no part of it
    fronts = []
    for name in imported(path):
        front, _, last = name.rpartition(".")
        is_module = (ROOT / f"{name.replace('.', '/')}.py").is_file()
        if is_package(name) or (is_package(front) and not is_module):
            fronts.append(name)
    assert fronts == []


@each_file
def test_files_and_functions_are_small_and_modules_say_what_they_hold(path):
    assert len(path.read_text().splitlines()) <= 350
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno + 1 > 60] == []
    assert ast.get_docstring(tree(path))


@each_file
def test_nothing_outside_its_folder_names_an_environment(path):
    if any(path.is_relative_to(own) for own in OWN):
        pytest.skip("an environment's own")
    lines = enumerate(path.read_text().splitlines(), start=1)
    assert [number for number, line in lines if NAMES.search(line) and number not in docstrings(path)] == []


def test_the_library_does_not_grow():
    assert sum(len(path.read_text().splitlines()) for path in FILES) <= 15020  # as it is today, rounded up
