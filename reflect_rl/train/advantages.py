"""Returns, baselines and advantages as pure functions of arrays over the N steps of a batch of episodes."""

import numpy as np


def return_to_go(rewards: np.ndarray) -> np.ndarray:
    """Undiscounted sum of the rewards from each step to the end of its episode: `(H,)` -> `(H,)` (paper, G_h)."""
    return np.cumsum(rewards[::-1])[::-1]


def leave_one_out_means(returns: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """For each step the mean return-to-go of the *other* episodes at the same place.

    A mean that held the step's own return would shrink its advantage, to nothing where it is alone at its place. A
    baseline of other episodes does not depend on the action, so the policy gradient stays unbiased (Kool et al. 2019).
    Where no other episode gets as far, it is their mean over all steps; with a single episode it is 0.

    Args:
        returns: `(N,)` returns-to-go, episode after episode.
        steps: `(N,)` places in the episode, from 0.

    Returns:
        `(N,)` baseline.
    """
    episode = np.cumsum(steps == 0) - 1
    others = np.bincount(steps)[steps] - 1
    sums = np.bincount(steps, returns)[steps] - returns
    elsewhere = len(returns) - np.bincount(episode)[episode]
    elsewhere_sums = returns.sum() - np.bincount(episode, returns)[episode]
    return np.where(others > 0, sums / np.maximum(others, 1), elsewhere_sums / np.maximum(elsewhere, 1))


def advantage(returns: np.ndarray, steps: np.ndarray, baseline: str, values: np.ndarray | None = None) -> np.ndarray:
    """Return-to-go minus a baseline, `(N,)`: computed once for all passes over a batch.

    Args:
        returns, steps: as for `leave_one_out_means`.
        baseline: `none`, `mean` (`leave_one_out_means`) or `critic`.
        values: `(N,)` the critic's, before the first pass.
    """
    if baseline == "none":
        return returns
    return returns - (leave_one_out_means(returns, steps) if baseline == "mean" else values)
