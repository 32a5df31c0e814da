"""What a result should be quoted with: versions, git state, hardware, memory."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version

import torch

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "gymnasium", "numpy", "scipy", "pandas", "matplotlib")


def _git(*words: str) -> str | None:
    """What git says; None without a git binary, a project or a repository."""
    try:
        done = subprocess.run(["git", *words], cwd=paths.project(), capture_output=True, text=True)
    except (OSError, ReflectRLError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def provenance() -> dict:
    """Versions, git state and hardware, as plain JSON.

    `git_commit` is empty and `git_clean` None where there is no git or no repository; `gpu` is empty without a GPU.
    """
    status = _git("status", "--porcelain")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD") or "",
        "git_clean": None if status is None else not status,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KB on Linux, in bytes on macOS
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_gpu_memory_mb() -> float:
    """Peak of the GPU memory that this process's tensors took, in MB; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
