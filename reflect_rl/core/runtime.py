"""What numbers depend on besides settings and code: the number of threads, and the global generators."""

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np

from reflect_rl.core.errors import ReflectRLError


def threads() -> int:
    """Threads that torch computes with: `$REFLECT_RL_THREADS`, else 1, whatever `OMP_NUM_THREADS` says.

    Sums over more threads round differently, so a run's identity holds this number. Runs are small and many: side by
    side with a thread each they are done sooner than one after the other.
    """
    text = os.environ.get("REFLECT_RL_THREADS") or "1"
    if not (text.isdecimal() and 1 <= int(text) <= 1024):
        raise ReflectRLError(f"REFLECT_RL_THREADS={text!r} should be a whole number from 1 to 1024")
    return int(text)


def set_threads() -> None:
    """Let torch compute with `threads()`, so that every way of starting gives the same digits."""
    import torch  # here, since a run's identity asks for `threads` alone and torch takes seconds to import

    torch.set_num_threads(threads())


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run code that draws from the global generators (model initialisation, `Trainer`) from `seed` on.

    Those of Python, numpy and torch, on the CPU and on every GPU, are left as they were found.
    """
    import torch

    python, numpy_state = random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=gpus):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            if gpus:
                torch.cuda.manual_seed_all(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
