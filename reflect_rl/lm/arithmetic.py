"""What digits depend on beside settings: threads, instructions, and the global generators that libraries draw from."""

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from reflect_rl.core.config import threads


def fix_arithmetic() -> None:
    """Let torch compute with `threads()` and AVX2, so that every way of starting gives the same digits.

    Wider instructions (AVX-512) sum in another order and are no faster at these sizes; bfloat16 keeps what it has.
    """
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")  # read at torch's first operation
    os.environ.setdefault("MKL_CBWR", "AVX2")
    torch.set_num_threads(threads())


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch, on the CPU and on every GPU, and restore them afterwards."""
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
