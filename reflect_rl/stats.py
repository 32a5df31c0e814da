"""Means and intervals of success over seeds and task panels: pure functions of `(num_seeds, num_tasks)`.

Two questions have two intervals. `stratified_bootstrap` (Agarwal et al. 2021, "Deep RL at the Edge of the
Statistical Precipice", section 4.3) resamples seeds within each task and so takes tasks as independent;
`seed_bootstrap` resamples whole seeds, because the tasks of one seed share its trained players. Where
training fails by seed the second is the wider and the more honest one.
"""

import numpy as np
from scipy import stats

from reflect_rl.errors import ReflectRLError


def stratified_bootstrap(
    scores: np.ndarray, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 2000
) -> tuple[float, float, float]:
    """Mean of `scores` `(num_seeds, num_tasks)` and its interval, seeds resampled within each task.

    Scores that agree between seeds (or a single seed) leave nothing to resample: `(mean, mean, mean)`.
    """
    scores = _checked(scores)
    mean = float(scores.mean())
    if (scores == scores[0]).all():
        return mean, mean, mean
    return mean, *_percentile_interval(tuple(scores.T), rng, confidence, resamples)


def seed_bootstrap(
    scores: np.ndarray, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 2000
) -> tuple[float, float, float]:
    """Mean of `scores` `(num_seeds, num_tasks)` and its interval, whole seeds (rows) resampled.

    One seed says nothing about other seeds: `(mean, nan, nan)`. With few seeds (3 to 5) the interval is
    about as wide as the range of the seeds' means and covers less often than `confidence` says.
    """
    scores = _checked(scores)
    mean, by_seed = float(scores.mean()), scores.mean(axis=1)
    if len(by_seed) == 1:
        return mean, np.nan, np.nan
    if (by_seed == by_seed[0]).all():
        return mean, mean, mean
    return mean, *_percentile_interval((by_seed,), rng, confidence, resamples)


def paired_difference(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 2000
) -> tuple[float, float, float]:
    """Mean of `a - b` and its `seed_bootstrap` interval; `(num_seeds, num_tasks)`, same seeds and tasks."""
    a, b = _checked(a), _checked(b)
    if a.shape != b.shape:
        raise ReflectRLError(
            f"paired scores have shapes {a.shape} and {b.shape}; give both for the same seeds and tasks"
        )
    return seed_bootstrap(a - b, rng, confidence, resamples)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (Wilson 1927) for a rate of `successes` in `n` independent episodes."""
    if not 0 <= successes <= n or n == 0:
        raise ReflectRLError(f"{successes} successes of {n} episodes; give 0 <= successes <= n and n >= 1")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.size == 0:
        raise ReflectRLError(f"scores have shape {scores.shape}; give a non-empty (num_seeds, num_tasks) array")
    if np.isnan(scores).any():
        raise ReflectRLError(f"{np.isnan(scores).sum()} of {scores.size} scores are NaN; give every seed every task")
    return scores


def _percentile_interval(samples, rng, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean over strata of each stratum's mean; each sample is `(num_seeds,)`."""
    interval = stats.bootstrap(
        samples,
        lambda *strata, axis: np.mean([stratum.mean(axis=axis) for stratum in strata], axis=0),
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=rng,
    ).confidence_interval
    return float(interval.low), float(interval.high)
