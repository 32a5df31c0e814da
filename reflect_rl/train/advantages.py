"""Returns and baselines as pure functions of arrays over the N steps of a batch of episodes."""

import numpy as np


def return_to_go(rewards: np.ndarray) -> np.ndarray:
    """Undiscounted sum of the rewards from each step to the end of its episode: `(H,)` -> `(H,)` (paper, G_h)."""
    return np.cumsum(rewards[::-1])[::-1]


def step_means(returns: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """For each step of a batch the mean return-to-go of all steps with the same place in their episode.

    Args:
        returns: `(N,)` returns-to-go.
        steps: `(N,)` places in the episode, from 0.

    Returns:
        `(N,)` baseline.
    """
    return (np.bincount(steps, returns) / np.maximum(np.bincount(steps), 1))[steps]
