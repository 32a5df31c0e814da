"""Every folder of the project, named once."""

import os
from pathlib import Path

from reflect_rl.core.errors import ReflectRLError

PACKAGE = Path(__file__).resolve().parents[1]


def project() -> Path:
    """The nearest parent of the working folder with `configs/` and a `pyproject.toml`, else the library's own."""
    here = Path.cwd()
    for folder in (here, *here.parents, PACKAGE.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "configs").is_dir():
            return folder
    raise ReflectRLError(f"no project found above {here}; change to the folder that holds pyproject.toml")


def home() -> Path:
    """Where products are written: `$REFLECT_RL_HOME`, else the project."""
    return Path(os.environ["REFLECT_RL_HOME"]) if os.environ.get("REFLECT_RL_HOME") else project()


def configs() -> Path:
    return project() / "configs"


def claims() -> Path:  # the rule of the claims, which is no profile
    return configs() / "claims.yaml"


def notebooks() -> Path:
    return project() / "notebooks"


def weights() -> Path:  # small trained players that are committed
    return project() / "weights"


def cache(name: str) -> Path:
    """What is fetched or generated once for every profile: an environment's files, `models`, `replies` of endpoints."""
    return home() / "data" / name


def runs(profile: str, env: str) -> Path:
    return home() / "runs" / profile / env


def results(profile: str) -> Path:
    return home() / "results" / profile


def result_file(profile: str, name: str) -> Path | None:
    """A file of a profile's results, as made here or else as committed; None where there is none."""
    return _first(name, results(profile), project() / "results" / profile)


def tables(profile: str) -> Path:
    return results(profile) / "tables"


def figures(profile: str) -> Path:
    return home() / "figures" / profile


def figure_file(profile: str, name: str) -> Path | None:
    """A file of a profile's figures, as drawn here or else as committed; None where there is none."""
    return _first(name, figures(profile), project() / "figures" / profile)


def _first(name: str, *folders: Path) -> Path | None:
    """The file of this name in the first of the folders that holds one."""
    return next((folder / name for folder in folders if (folder / name).exists()), None)
