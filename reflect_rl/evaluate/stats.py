"""Means, intervals and tests of success over seeds and task panels: pure functions of `(num_seeds, num_tasks)`.

Tasks of one seed share its trained players, so it is seeds that are counted, by Student's interval: a bootstrap of five
covers too seldom. Where seeds do not differ at all, what is left is how few the tasks are: Wilson's.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from reflect_rl.core.errors import ReflectRLError

Interval = tuple[float, float, float]  # mean, lower and upper bound


def t_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean of `(n,)` values, one a seed, and Student's interval; `(mean, nan, nan)` for a single value."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, float(mean - half), float(mean + half)


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927, equation 4) of `successes` in `n` trials; a task played often counts by its mean."""
    if n < 1 or not 0 <= successes <= n:
        raise ReflectRLError(f"{successes} successes of {n} episodes; give 0 <= successes <= n and n >= 1")
    rate, z = successes / n, stats.norm.ppf((1 + confidence) / 2)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(middle - half) if successes > 0 else 0.0, float(middle + half) if successes < n else 1.0


def rate_interval(scores: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean success of one arm `(num_seeds, num_tasks)` and its interval.

    Student's over seeds; Wilson's over tasks where there is one seed or where seeds do not differ (repeats of a task are
    no independent trials, so they do not narrow it).
    """
    scores = _checked(scores)
    mean, by_seed = float(scores.mean()), scores.mean(axis=1)
    if np.allclose(by_seed, by_seed[0], rtol=0, atol=1e-12):
        return mean, *wilson(mean * scores.shape[1], scores.shape[1], confidence)
    _, low, high = t_interval(by_seed, confidence)
    return mean, max(low, 0.0), min(high, 1.0)


def newcombe(a: Interval, b: Interval) -> Interval:
    """Difference of two independent rates, from their intervals (Newcombe 1998, method 10)."""
    (mean_a, low_a, high_a), (mean_b, low_b, high_b) = a, b
    difference = mean_a - mean_b
    down, up = np.hypot(mean_a - low_a, high_b - mean_b), np.hypot(high_a - mean_a, mean_b - low_b)
    return difference, float(difference - down), float(difference + up)


def paired_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean of `a - b`, both `(num_seeds, num_tasks)` with the same seeds and tasks, and its interval.

    Student's over the seeds' differences, cut at -1 and 1; `newcombe` where all seeds differ by the same, which says
    nothing of their spread. A single seed has none: `(mean, nan, nan)`.
    """
    a, b = _checked(a), _checked(b)
    if a.shape != b.shape:
        raise ReflectRLError(f"paired scores of shapes {a.shape} and {b.shape}; give both for the same seeds and tasks")
    by_seed = (a - b).mean(axis=1)
    if len(by_seed) > 1 and np.allclose(by_seed, by_seed[0], rtol=0, atol=1e-12):
        return newcombe(rate_interval(a, confidence), rate_interval(b, confidence))
    mean, low, high = t_interval(by_seed, confidence)
    return mean, float(np.maximum(low, -1)), float(np.minimum(high, 1))


def p_value(interval_at: Callable[[float], Interval]) -> float:
    """Two-sided p of a difference: the `alpha` at which its interval of confidence `1 - alpha` just touches 0.

    `interval_at` takes a confidence. For Student's interval it is the p of the t-test. Not below 1e-12; NaN where the
    interval is.
    """
    difference, low, _ = interval_at(0.95)
    if np.isnan(low):
        return np.nan
    if difference == 0:
        return 1.0

    def nearest_to_0(alpha: float) -> float:
        _, low, high = interval_at(1 - alpha)
        return low if difference > 0 else -high

    return 1e-12 if nearest_to_0(1e-12) > 0 else float(brentq(nearest_to_0, 1e-12, 1, xtol=1e-13))


def holm(p: np.ndarray) -> np.ndarray:
    """`(n,)` p-values adjusted for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.size == 0:
        raise ReflectRLError(f"scores have shape {scores.shape}; give a non-empty (num_seeds, num_tasks) array")
    if np.isnan(scores).any():
        raise ReflectRLError(f"{np.isnan(scores).sum()} of {scores.size} scores are NaN; give every seed every task")
    return scores
