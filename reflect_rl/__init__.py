"""Reflect-RL, two-player online RL fine-tuning of language models: a reproducible companion."""

__version__ = "0.1.0"
