"""Every folder of the project, named once.

Products go below the current project (the nearest parent folder with a `configs/` folder and a
`pyproject.toml`), or below `$REFLECT_RL_HOME` where that is set.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reflect_rl.errors import ReflectRLError


@contextlib.contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn a failure to write at `path` (`OSError` or one of `also`) into an error that names the way out."""
    try:
        yield
    except (OSError, *also) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReflectRLError(
            f"cannot write {path} ({reason}); free the place, or set REFLECT_RL_HOME to a folder of your own"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def project() -> Path:
    """The checkout that holds `configs/` and `notebooks/`: the nearest parent of the working folder."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parent.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "configs").is_dir():
            return folder
    raise ReflectRLError(f"no project found above {here}; change to the folder that holds pyproject.toml")


def home() -> Path:
    """Where `runs/`, `results/` and `figures/` are written."""
    return Path(os.environ["REFLECT_RL_HOME"]) if os.environ.get("REFLECT_RL_HOME") else project()


def configs() -> Path:
    return project() / "configs"


def notebooks() -> Path:
    return project() / "notebooks"


def games() -> Path:
    """Games that were generated, and translations of games; the same for every profile."""
    return home() / "data" / "alfworld"


def models() -> Path:
    """Pretrained models that were fetched or de-quantised; the same for every profile."""
    return home() / "data" / "models"


def replies() -> Path:
    """Replies of endpoints, by the content of their requests."""
    return home() / "data" / "replies"


def runs(profile: str, env: str) -> Path:
    return home() / "runs" / profile / env


def data(profile: str, env: str, seed: int) -> Path:
    return runs(profile, env) / "data" / f"seed{seed}"


def run(profile: str, env: str, variant: str, seed: int) -> Path:
    return runs(profile, env) / variant / f"seed{seed}"


def results(profile: str) -> Path:
    return home() / "results" / profile


def tables(profile: str) -> Path:
    return results(profile) / "tables"


def figures(profile: str) -> Path:
    return home() / "figures" / profile
