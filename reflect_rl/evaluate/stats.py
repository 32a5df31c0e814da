"""Means, intervals and tests of success over seeds and task panels: pure functions of `(num_seeds, num_tasks)`.

Trained models are a sample of the models that training can give, and tasks one of the tasks there are, so an interval
counts both: by the variance of the mean in a crossed layout of two random effects, with Satterthwaite's degrees of
freedom. With one seed it counts tasks alone and says nothing of other seeds, which whoever prints it must say.
`benchmarks/coverage.md` says how often the intervals hold the truth, and where they do not.
"""

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from reflect_rl.core.errors import ReflectRLError

Interval = tuple[float, float, float]  # mean, lower and upper bound
MeanSquares = tuple[np.ndarray, np.ndarray, np.ndarray]  # of seeds, of tasks, and what neither explains

NO_VARIANCE = 1e-14  # of a mean of rates; below is rounding
POWER, MOST = 0.8, 1000  # with which a decision is to come about, and how many seeds are tried


def t_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean of `(n,)` values, one a seed, and Student's interval; `(mean, nan, nan)` for a single value."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, float(mean - half), float(mean + half)


def wilson(successes: float, n: float, confidence: float = 0.95, df: float = np.inf) -> tuple[float, float]:
    """Wilson's score interval (1927, equation 4) of `successes` in `n` trials, neither necessarily whole.

    Where `n` is an estimate of `df` degrees of freedom, Student's quantile replaces the normal one.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ReflectRLError(f"{successes} successes of {n} episodes; give 0 <= successes <= n and n > 0")
    rate, z = successes / n, stats.t.ppf((1 + confidence) / 2, df)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(middle - half) if successes > 0 else 0.0, float(middle + half) if successes < n else 1.0


def mean_squares(scores: np.ndarray) -> MeanSquares:
    """Mean squares of seeds, tasks and residual of `(..., num_seeds, num_tasks)`, each `(...)`; 0 where there is one."""
    num_seeds, num_tasks = scores.shape[-2:]
    by_seed, by_task = scores.mean(axis=-1, keepdims=True), scores.mean(axis=-2, keepdims=True)
    mean = scores.mean(axis=(-2, -1), keepdims=True)
    seeds = num_tasks * ((by_seed - mean) ** 2).sum(axis=(-2, -1)) / max(num_seeds - 1, 1)
    tasks = num_seeds * ((by_task - mean) ** 2).sum(axis=(-2, -1)) / max(num_tasks - 1, 1)
    residual = ((scores - by_seed - by_task + mean) ** 2).sum(axis=(-2, -1))
    return seeds, tasks, residual / max((num_seeds - 1) * (num_tasks - 1), 1)


def variance_of_mean(squares: MeanSquares, num_seeds: np.ndarray, num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean over seeds and tasks, both random and crossed, and its degrees of freedom.

    `s_seed^2 / num_seeds + s_task^2 / num_tasks + s_residual^2 / (num_seeds * num_tasks)`, by the method of moments with
    components not below 0 (Searle, Casella & McCulloch 1992, chapter 4); degrees of freedom after Satterthwaite (1946).
    """
    seeds, tasks, rest = squares
    total = np.maximum(seeds, rest) + np.maximum(tasks, rest) - rest
    freedom = np.maximum(num_seeds - 1, 1), max(num_tasks - 1, 1)
    of_total = seeds**2 / freedom[0] + tasks**2 / freedom[1] + rest**2 / (freedom[0] * freedom[1])
    df = total**2 / np.maximum(of_total, np.finfo(float).tiny)
    return total / (num_seeds * num_tasks), np.maximum(df, np.minimum(num_seeds, num_tasks) - 1)


def rate_interval(scores: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean success of one arm `(num_seeds, num_tasks)` and its interval over seeds and tasks; over tasks with one seed.

    Wilson's, of as many trials as would give `variance_of_mean` (their effective number: Dean & Pagano 2015). Where nothing varies, as where
    all succeed, a task counts as one trial, however often it was played.
    """
    scores = _checked(scores)
    mean, num_tasks = float(scores.mean()), scores.shape[1]
    variance, df = variance_of_mean(mean_squares(scores), *scores.shape)
    if variance < NO_VARIANCE:
        return mean, *wilson(mean * num_tasks, num_tasks, confidence)
    trials = mean * (1 - mean) / variance
    return mean, *wilson(mean * trials, trials, confidence, df)


def newcombe(a: Interval, b: Interval) -> Interval:
    """Difference of two independent rates, from their intervals (Newcombe 1998, method 10)."""
    (mean_a, low_a, high_a), (mean_b, low_b, high_b) = a, b
    difference = mean_a - mean_b
    down, up = np.hypot(mean_a - low_a, high_b - mean_b), np.hypot(high_a - mean_a, mean_b - low_b)
    return difference, float(difference - down), float(difference + up)


def paired_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean of `a - b`, both `(num_seeds, num_tasks)` with the same seeds and tasks, and its interval over both.

    Of a model that is not trained, `b` is `(1, num_tasks)`. Student's interval by `variance_of_mean`, cut at -1 and 1;
    `newcombe` where the difference is the same everywhere.
    """
    a, b = _checked(a), _checked(b)
    differences = _paired(a, b)
    variance, df = variance_of_mean(mean_squares(differences), *differences.shape)
    if variance < NO_VARIANCE:
        return newcombe(rate_interval(a, confidence), rate_interval(b, confidence))
    mean, half = float(differences.mean()), stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(variance)
    return mean, float(max(mean - half, -1)), float(min(mean + half, 1))


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of the `paired_difference`: the `alpha` at which its interval of confidence `1 - alpha` touches 0.

    Not below 1e-12.
    """
    difference = paired_difference(a, b)[0]
    if difference == 0:
        return 1.0

    def nearest_to_0(alpha: float) -> float:
        _, low, high = paired_difference(a, b, 1 - alpha)
        return low if difference > 0 else -high

    return 1e-12 if nearest_to_0(1e-12) > 0 else float(brentq(nearest_to_0, 1e-12, 1, xtol=1e-13))


def seeds_needed(
    a: np.ndarray, b: np.ndarray, margin: float = 0.05, alpha: float = 0.05, comparisons: int = 1
) -> int | None:
    """Seeds with which `paired_difference` would decide, on as many tasks, if what is seen is the truth.

    The fewest that with probability `POWER` either leave 0 out of the interval of confidence `1 - alpha / comparisons`
    or put that of `1 - alpha` within `margin` of 0. None where `MOST` are too few, since tasks differ too much, or where
    one seed says nothing of their spread. With both arrays transposed: how many tasks are needed with as many seeds.
    """
    differences = _paired(_checked(a), _checked(b))
    num_seeds, num_tasks = differences.shape
    seeds, tasks, rest = mean_squares(differences)
    counts = np.arange(2, MOST + 1)
    expected = np.maximum(seeds, rest), np.maximum(tasks - rest, 0) / num_seeds * counts + rest, rest
    variance, df = variance_of_mean(expected, counts, num_tasks)
    if num_seeds == 1:
        return None
    if variance[0] < NO_VARIANCE:  # seeds do not count in this interval
        _, low, high = paired_difference(a, b, 1 - alpha)
        return 2 if p_value(a, b) < alpha / comparisons or (-margin <= low and high <= margin) else None

    def beyond(distance: float, level: float) -> np.ndarray:
        """Probability that the bound of the interval on one side falls short of what lies `distance` away."""
        return stats.t.cdf(distance / np.sqrt(variance) - stats.t.ppf(1 - level / 2, df), df)

    effect = abs(differences.mean())
    equivalent = beyond(margin - effect, alpha) + beyond(margin + effect, alpha) - 1
    decided = np.maximum(beyond(effect, alpha / comparisons), equivalent) >= POWER
    return int(counts[decided.argmax()]) if decided.any() else None


def holm(p: np.ndarray) -> np.ndarray:
    """`(n,)` p-values adjusted for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a - b`, where `b` may have one row; raises where tasks or seeds are not the same."""
    if a.shape[1] != b.shape[1] or b.shape[0] not in (1, a.shape[0]):
        raise ReflectRLError(f"paired scores of shapes {a.shape} and {b.shape}; give both for the same seeds and tasks")
    return a - b


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.size == 0:
        raise ReflectRLError(f"scores have shape {scores.shape}; give a non-empty (num_seeds, num_tasks) array")
    if np.isnan(scores).any():
        raise ReflectRLError(f"{np.isnan(scores).sum()} of {scores.size} scores are NaN; give every seed every task")
    return scores
