"""A project with the results of one profile alone: the one that has the fewest."""

import shutil
from pathlib import Path

from reflect_rl.core import paths

SMALL = "pretrained_cpu"


def copy_small(folder: Path) -> Path:
    """Copy what a project needs, with these results, into a folder; where the results lie."""
    project = paths.project()
    for name in ("pyproject.toml", "configs", f"results/{SMALL}", f"figures/{SMALL}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (project / name).is_dir() else shutil.copy
        copy(project / name, folder / name)
    return folder / "results" / SMALL
