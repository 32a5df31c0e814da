"""The process that computes: what its results are quoted with, its memory, and progress bars."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version

import torch
from tqdm.auto import tqdm

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "gymnasium", "numpy", "scipy", "pandas", "matplotlib")


def _git(*words: str) -> str | None:
    """What git says; None without a git binary, a project or a repository."""
    try:
        return subprocess.run(["git", *words], cwd=paths.project(), capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError, ReflectRLError):
        return None


def provenance() -> dict:
    """Versions, git state and hardware, as plain JSON.

    `git_clean` is None without git or a repository, and knows nothing of results and figures, which runs themselves write.
    """
    status = _git("status", "--porcelain", "--", ".", ":(exclude)results", ":(exclude)figures")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": (_git("rev-parse", "HEAD") or "").strip(),
        "git_clean": None if status is None else not status,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def hardware(made: dict | None = None) -> str:
    """What something was made on, in words; `made`: its `provenance`, by default that of this process."""
    made = made or provenance()
    return f"{made['machine']}, {made['cpu_cores']} CPU cores, {made['gpu'] or 'no GPU'}"


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KB on Linux, in bytes on macOS
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_gpu_memory_mb() -> float:
    """Peak of the GPU memory that this process's tensors took, in MB; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0


def progress(items: Iterable, description: str, **options) -> Iterable:
    """A progress bar on standard error or in the notebook, with tqdm's options."""
    disable = os.environ.get("TQDM_DISABLE", "") not in ("", "0")  # tqdm itself obeys that on terminals only
    return tqdm(items, desc=description, leave=False, disable=disable, **options)
