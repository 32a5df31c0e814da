"""The run folder: atomic files, settings that must match, checkpoints, provenance, progress."""

import contextlib
import gzip
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from reflect_rl import paths
from reflect_rl.errors import ReflectRLError
from reflect_rl.paths import write_bytes, writing


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """CSV, compressed where the name ends in .gz; equal frames give equal bytes."""
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, EOFError, ValueError) as error:
        raise ReflectRLError(f"{path} cannot be read ({error}); delete it and run again to make it anew") from error


def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReflectRLError(f"{path} cannot be read ({error}); delete it and run again to make it anew") from error


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {a}, is {b}")
    return found


@contextlib.contextmanager
def claim(folder: Path, settings: dict) -> Iterator[None]:
    """Hold `folder` as the place of these settings: one process at a time, others wait for what it makes.

    Raises:
        ReflectRLError: the folder holds products of other settings; nothing in it is touched.
    """
    path = folder / "config.json"
    settings = json.loads(json.dumps(settings))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not path.exists():
            write_json(folder / "provenance.json", provenance())
            write_json(path, settings)
        different = _differences(read_json(path), settings)
        if different:
            raise ReflectRLError(
                f"{folder} was made with other settings ({'; '.join(different)}); "
                "delete that folder to make it anew, or pass the change as overrides to get a folder of its own"
            )
        yield


class Checkpoints:
    """The newest state of a run: `<folder>/step<N>/` with tensors in safetensors and the rest in JSON.

    A checkpoint appears under its name only when it is whole, and the one before it goes only then.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def latest(self) -> Path | None:
        found = [p for p in self.folder.glob("step*") if p.is_dir()]
        return max(found, key=lambda p: int(p.name[4:]), default=None)

    def save(self, step: int, tensors: dict[str, dict[str, torch.Tensor]], state: dict) -> None:
        """Save groups of tensors (one file each) and a JSON-serialisable state."""
        target, temporary = self.folder / f"step{step}", self.folder / f".step{step}.tmp"
        old = [p for p in self.folder.glob("step*") if p != target]
        shutil.rmtree(temporary, ignore_errors=True)
        with writing(target, SafetensorError):
            temporary.mkdir(parents=True)
            for name, group in tensors.items():
                save_file({key: value.contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors")
            write_json(temporary / "state.json", {"tensors": sorted(tensors), "state": state})
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict] | None:
        """The newest checkpoint as it was saved, None where there is none.

        Raises:
            ReflectRLError: it is damaged.
        """
        path = self.latest()
        if path is None:
            return None
        try:
            saved = json.loads((path / "state.json").read_text())
            tensors = {name: load_file(path / f"{name}.safetensors") for name in saved["tensors"]}
        except (SafetensorError, OSError, ValueError) as error:
            raise ReflectRLError(
                f"checkpoint {path} is damaged ({error}); delete {self.folder} to train anew"
            ) from error
        return tensors, saved["state"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's per-parameter state, flat: `{parameter index}.{name}` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates are left to the caller."""
    state: dict[int, dict] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def provenance() -> dict:
    """Versions, git state and hardware: what a result should be quoted with."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=paths.project(), capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    packages = (
        "torch",
        "transformers",
        "tokenizers",
        "peft",
        "gymnasium",
        "numpy",
        "scipy",
        "pandas",
        "matplotlib",
    )
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "git_commit": git("rev-parse", "HEAD"),
        "git_clean": not git("status", "--porcelain"),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def progress(items: Iterable, description: str, **options) -> Iterable:
    """A progress bar on standard error or in the notebook; `total`, `initial` and `unit` as in tqdm.

    `TQDM_DISABLE=1` turns it off. tqdm itself obeys that on terminals only; a bar in a notebook sends thousands
    of messages, which nobody reads who executes it with papermill or nbval.
    """
    disable = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(items, desc=description, leave=False, disable=disable, **options)
