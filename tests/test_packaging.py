"""pyproject.toml, constraints.txt, environment.yml, the installed versions and the Makefile agree."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def installed_closure() -> dict[str, str]:
    """The public versions of all that the project's dependencies pull in on this machine."""
    versions, queue, seen = {}, list(DEPENDENCIES), set()
    while queue:
        requirement = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        versions[name] = Version(metadata.version(name)).public
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras or {""}):
                queue.append(needed)
    return versions


@pytest.mark.parametrize("requirement", DEPENDENCIES, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_pins_are_sorted_and_have_no_local_suffix():
    names = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert names == sorted(names, key=str.lower)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", name) for name in names)


def test_installed_versions_are_the_pinned_ones():
    installed = installed_closure()
    assert len(installed) > 100
    assert installed == {name: pins().get(name) for name in installed}


def test_torch_is_pinned_in_pyproject_too():
    assert f"torch=={pins()['torch']}" in PROJECT["dependencies"]


def test_every_folder_of_the_library_is_a_package():
    folders = {path.parent for path in (ROOT / "reflect_rl").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_conda_users_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert python == f"python {PROJECT['requires-python']}"
    assert pip == "pip"
    assert from_pip == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_make_names_a_python_out_of_range(tmp_path):
    command = ["make", "--no-print-directory", "setup", f"VENV={tmp_path / 'venv'}", "PYTHON=no-such-python"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "error: no Python 3.11 or 3.12 with venv among: no-such-python; install one" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_make_without_a_target_explains_itself():
    result = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("setup", "reproduce", "tune", "report", "stale", "test", "notebooks", "lint", "clean"):
        assert f"make {target} " in result.stdout


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["preferred-citation"]["doi"] == "10.18653/v1/2024.acl-long.56"
