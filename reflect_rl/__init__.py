"""Reflect-RL, two-player online RL fine-tuning of language models: a reproducible companion."""

import os

__version__ = "0.1.0"

# bm25s computes with JAX where it finds one, which would take most of a GPU's memory for itself
os.environ.setdefault("JAX_PLATFORMS", "cpu")
