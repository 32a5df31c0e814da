"""Returns, baselines and advantages as pure functions of arrays over the N steps of a batch of episodes.

A batch lies episode after episode; `steps` `(N,)` are the places in the episode, from 0, so that a 0 begins the next.
"""

import numpy as np

from reflect_rl.core.config import GROUPED

SMALL = 1e-8  # a spread below it is none


def _first_steps(steps: np.ndarray) -> np.ndarray:
    """`(E,)` where each episode begins."""
    return np.flatnonzero(steps == 0)


def return_to_go(rewards: np.ndarray, steps: np.ndarray, discount: float = 1.0) -> np.ndarray:
    """Discounted sum of the rewards from each step to the end of its episode: `(N,)` -> `(N,)` (paper, G_h)."""
    return gae(rewards, np.zeros(len(rewards)), steps, discount, 1.0)


def gae(rewards: np.ndarray, values: np.ndarray, steps: np.ndarray, discount: float, decay: float) -> np.ndarray:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16), `(N,)`.

    An episode's end, that at the horizon too, is worth nothing: the task is one of finite horizon.

    Args:
        rewards, values: `(N,)`; values are a critic's, of the state before the action.
        decay: lambda; 1 gives the return-to-go minus the value, 0 the one-step temporal difference.
    """
    found, ahead, next_value = np.zeros(len(rewards)), 0.0, 0.0
    for i in range(len(rewards) - 1, -1, -1):
        ahead = rewards[i] + discount * next_value - values[i] + discount * decay * ahead
        found[i], next_value = ahead, values[i]
        if steps[i] == 0:
            ahead = next_value = 0.0
    return found


def surplus(returns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """By how much a past episode did better than the critic expects now, else 0, `(N,)` (Oh et al. 2018, equation 2).

    So what the policy has learnt is hardly replayed any more, and what it forgot is.
    """
    return np.maximum(returns - values, 0.0)


def leave_one_out_means(returns: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """For each step the mean return-to-go of the *other* episodes at the same place.

    A mean that held the step's own return would shrink its advantage, to nothing where it is alone at its place. A
    baseline of other episodes does not depend on the action, so the policy gradient stays unbiased (Kool et al. 2019).
    Where no other episode gets as far, it is their mean over all steps; with a single episode it is 0.

    Args:
        returns: `(N,)` returns-to-go.

    Returns:
        `(N,)` baseline.
    """
    episode = np.cumsum(steps == 0) - 1
    others = np.bincount(steps)[steps] - 1
    sums = np.bincount(steps, returns)[steps] - returns
    elsewhere = len(returns) - np.bincount(episode)[episode]
    elsewhere_sums = returns.sum() - np.bincount(episode, returns)[episode]
    return np.where(others > 0, sums / np.maximum(others, 1), elsewhere_sums / np.maximum(elsewhere, 1))


def rloo(totals: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return of each of E episodes minus the mean of the others from the same start, `(E,)` (Ahmadian et al. 2024).

    Args:
        totals: `(E,)` undiscounted returns of whole episodes.
        starts: `(E,)` numbers from 0 of the tasks that they began with; one that is alone has advantage 0.
    """
    size = np.bincount(starts)[starts]
    return _centred(totals, starts) * size / np.maximum(size - 1, 1)


def grpo(totals: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return of each of E episodes in standard deviations from its group's mean, `(E,)` (Shao et al. 2024).

    Arguments are those of `rloo`. A group of equal returns has advantage 0.
    """
    size = np.bincount(starts)[starts]
    centred = _centred(totals, starts)
    deviation = np.sqrt(np.bincount(starts, centred**2)[starts] / size)
    return np.where(deviation > SMALL, centred / np.maximum(deviation, SMALL), 0.0)


def gigpo(
    totals: np.ndarray, returns: np.ndarray, steps: np.ndarray, starts: np.ndarray, states: np.ndarray
) -> np.ndarray:
    """Of each step its episode's return minus the mean of its start, plus its own return-to-go minus the mean of all steps
    at which episodes of that start showed the same observation, `(N,)`.

    Feng et al. 2025, equation 8, with omega = 1 and, of the two that they give, F_norm = 1: in units of each group's own
    deviation the loss of a few steps would count as much as a success where only failures meet.

    Args:
        totals, starts: as for `rloo`.
        returns: `(N,)` discounted returns-to-go, which the steps are compared by.
        states: `(N,)` numbers from 0 of the observations; one that is met once adds nothing.
    """
    meetings = np.unique(np.stack([_of_steps(starts, steps), states]), axis=1, return_inverse=True)[1]
    return _of_steps(_centred(totals, starts), steps) + _centred(returns, meetings)


def _centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values minus the mean of their group, which `groups` number from 0: of one shape."""
    return values - (np.bincount(groups, values) / np.maximum(np.bincount(groups), 1))[groups]


def _of_steps(of_episodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """`(N,)` of each step what its episode has of `(E,)`."""
    return of_episodes[np.cumsum(steps == 0) - 1]


def spread(advantage: np.ndarray, former: float) -> float:
    """By what advantages are divided: their deviation in this batch, or in former ones while that fades by 1% an update.

    Once nearly every episode succeeds their own deviation is that of noise, and dividing by it would make steps as large
    as those that learned the task: success is lost again.
    """
    return max(float(advantage.std()), 0.99 * former)


def normalised(advantage: np.ndarray, deviation: float, estimator: str = "gae") -> np.ndarray:
    """`(N,)` with mean 0, in units of `deviation` (`spread`); all 0 where they are equal.

    Of estimators that compare in groups each group has mean 0 already, and the mean over steps, of which a longer episode has
    more, is not taken from it: episodes of equal return keep advantage 0.
    """
    centred = advantage if estimator in GROUPED else advantage - advantage.mean()
    return centred / deviation if deviation > SMALL else centred


def advantage(
    estimator: str,
    rewards: np.ndarray,
    steps: np.ndarray,
    starts: np.ndarray,
    values: np.ndarray | None = None,
    discount: float = 1.0,
    decay: float = 1.0,
    states: np.ndarray | None = None,
) -> np.ndarray:
    """`(N,)` advantages of all steps: computed once for all passes over a batch.

    Args:
        estimator: `return` (the return-to-go itself), `leave_one_out`, `gae`, `rloo`, `grpo` or `gigpo`.
        rewards: `(N,)`.
        starts: `(E,)`, as for `rloo`.
        values: `(N,)` the critic's, for `gae`.
        discount, decay: gamma and lambda; returns of whole episodes, as groups compare them, are not discounted.
        states: `(N,)`, for `gigpo`.
    """
    if estimator == "gae":
        return gae(rewards, values, steps, discount, decay)
    returns = return_to_go(rewards, steps, discount)
    if estimator == "leave_one_out":
        return returns - leave_one_out_means(returns, steps)
    if estimator not in GROUPED:
        return returns
    totals = return_to_go(rewards, steps)[_first_steps(steps)]
    if estimator == "gigpo":
        return gigpo(totals, returns, steps, starts, states)
    return _of_steps({"rloo": rloo, "grpo": grpo}[estimator](totals, starts), steps)
