"""How often 95% intervals of success hold the truth: the library's beside three that are common, on simulated panels.

    python benchmarks/coverage.py [--experiments 2000]

Success is drawn as it comes about: trained seeds and tasks each have a random effect on the logit, so has each seed on
each task, and of that probability every cell shows the mean of a few episodes. Of bimodal seeds some collapse to 2%.
The truth is the mean over all seeds and tasks that there could be. Writes coverage.csv and coverage.md beside this file.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.evaluate.stats import paired_difference, rate_interval

COLLAPSED = 0.02  # success of a seed that collapsed
SEEDS, PANELS = (5, 10), ((60, 1), (60, 10), (100, 5))  # panels: tasks, repeats
RATES = (0.05, 0.3, 0.5, 0.8, 0.95)
PAIRS = ((0.5, 0.5), (0.5, 0.3), (0.95, 0.8), (0.95, 0.95), (0.05, 0.05))
SHARED = (0.0, 0.5, 1.0)  # share of the effects' variance that two arms have in common
#: standard deviations on the logit of seeds, tasks, seed x task; share of seeds that collapse
SPREADS = {
    "nothing differs": (0, 0, 0, 0),
    "seeds alike": (0, 1.5, 0.5, 0),
    "seeds close": (0.3, 1.5, 0.5, 0),
    "seeds apart": (1, 1.5, 0.5, 0),
    "seeds far apart": (2, 1.5, 0.5, 0),
    "half collapse": (0.3, 1.5, 0.5, 0.5),
    "a fifth collapses": (0.3, 1.5, 0.5, 0.2),
}
METHODS = ["seeds and tasks", "t over seeds", "bootstrap of seeds", "bootstrap of both"]  # the first is the library's
NOTE = """
`seeds and tasks` is what the library reports; the others are Student's interval over the means of seeds, and percentiles
of resampled seeds, or of seeds and tasks. Where intervals hold the truth too often or too seldom:

- Where neither seeds nor tasks differ in what is measured, as between two arms that are alike, they are too wide (98%):
  with few seeds it cannot be known that these do not differ.
- Where seeds lie very far apart and success is close to 0 or 1, or a few seeds collapse, they are too narrow: if a fifth
  collapses, none does among a third of all fives of seeds and among a tenth of all tens, and no interval can know of
  what is not among its seeds. A rate of five equal seeds is one of seeds like these.
- Differences suffer less, since what both arms lack cancels; those of a rate near 1 with a lower one suffer most.
"""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


def logit_of_mean(rate: float, deviation: float) -> float:
    """Where a normal logit of this deviation is centred if its mean probability is `rate`."""
    return brentq(lambda at: expit(at + deviation * NODES) @ WEIGHTS / WEIGHTS.sum() - rate, -50, 50)


def panels(rng, rates, spread, num_seeds, num_tasks, repeats, experiments, shared=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Success `(arms, experiments, num_seeds, num_tasks)` of arms with these mean `rates`, and their true means."""
    *deviations, collapse = spread
    shapes = (num_seeds, 1), (1, num_tasks), (num_seeds, num_tasks)
    common = [rng.standard_normal((experiments, *shape)) for shape in shapes]
    found = []
    for rate in rates:
        logits = logit_of_mean(rate, float(np.linalg.norm(deviations)))
        for deviation, of_all, shape in zip(deviations, common, shapes, strict=True):
            own = rng.standard_normal((experiments, *shape))
            logits = logits + deviation * (np.sqrt(shared) * of_all + np.sqrt(1 - shared) * own)
        collapsed = rng.random((experiments, num_seeds, 1)) < collapse
        chances = np.broadcast_to(np.where(collapsed, COLLAPSED, expit(logits)), (experiments, num_seeds, num_tasks))
        found.append(rng.binomial(repeats, chances) / repeats)
    return np.stack(found), (1 - collapse) * np.array(rates) + collapse * COLLAPSED


def bounds(arms: np.ndarray) -> np.ndarray:
    """The library's bounds `(2, experiments)`: of a rate for one arm, of the difference for two."""
    interval = rate_interval if len(arms) == 1 else paired_difference
    return np.array([interval(*scores)[1:] for scores in zip(*arms, strict=True)]).T


def t_bounds(cells: np.ndarray) -> np.ndarray:
    """Student's over the means of seeds `(2, experiments)`; `cells` `(experiments, num_seeds, num_tasks)`."""
    by_seed = cells.mean(axis=-1)
    half = stats.t.ppf(0.975, by_seed.shape[1] - 1) * stats.sem(by_seed, axis=1)
    return by_seed.mean(axis=1) + np.array([[-1], [1]]) * half


def bootstrap_bounds(rng, cells: np.ndarray, tasks_too: bool, resamples: int = 500) -> np.ndarray:
    """Percentiles of means `(2, experiments)` of resampled seeds, with `tasks_too` of tasks as well (Owen 2007)."""
    _, num_seeds, num_tasks = cells.shape
    seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), resamples) / num_seeds
    if not tasks_too:
        return np.percentile(cells.mean(axis=-1) @ seeds.T, [2.5, 97.5], axis=1)
    tasks = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), resamples) / num_tasks
    means = [((seeds @ one) * tasks).sum(axis=1) for one in cells]
    return np.percentile(means, [2.5, 97.5], axis=1)


def coverage(rng, rates, spread, num_seeds, num_tasks, repeats, experiments=2000, shared=0.0) -> dict[str, float]:
    """Shares of experiments whose interval holds the truth, by method, and the width of the library's."""
    arms, true = panels(rng, rates, spread, num_seeds, num_tasks, repeats, experiments, shared)
    cells, true = (arms[0], true[0]) if len(arms) == 1 else (arms[0] - arms[1], true[0] - true[1])
    ours = bounds(arms)
    found = {
        "seeds and tasks": ours,
        "t over seeds": t_bounds(cells),
        "bootstrap of seeds": bootstrap_bounds(rng, cells, tasks_too=False),
        "bootstrap of both": bootstrap_bounds(rng, cells[:500], tasks_too=True),
    }
    held = {name: float(((low <= true) & (true <= high)).mean()) for name, (low, high) in found.items()}
    return held | {"width": float((ours[1] - ours[0]).mean())}


def simulated(experiments: int) -> pd.DataFrame:
    """A row for each spread, number of seeds, panel and rate or pair of rates."""
    rng, rows = np.random.default_rng(8), []
    alone = [((rate,), 0.0) for rate in RATES]
    paired = list(itertools.product(PAIRS, SHARED))
    for (name, spread), num_seeds, (num_tasks, repeats) in itertools.product(SPREADS.items(), SEEDS, PANELS):
        for rates, shared in alone + paired:
            at = {"of": "rate" if len(rates) == 1 else "difference", "spread": name, "seeds": num_seeds}
            at |= {"tasks": num_tasks, "repeats": repeats, "rates": " - ".join(map(str, rates)), "shared": shared}
            rows.append(at | coverage(rng, rates, spread, num_seeds, num_tasks, repeats, experiments, shared))
        print(rows[-1])
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Per cent of intervals that hold the truth, by spread and seeds: the library's by rate, and the mean of all."""
    parts, at = [], ["seeds", "spread"]
    for kind, rows in table.groupby("of", sort=False):
        ours = rows.pivot_table(index=at, columns="rates", values="seeds and tasks", sort=False)
        shown = 100 * ours.join(rows.groupby(at, sort=False)[METHODS].mean())
        shown = shown.round(1).reset_index().to_markdown(index=False)
        parts.append(f"## Intervals of a {kind}: the library's at each {kind}, and all methods' means\n\n{shown}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000, help="of each row")
    table = simulated(parser.parse_args().experiments)
    here = Path(__file__).parent
    write_csv(here / "coverage.csv", table.round(4))
    text = f"# Per cent of 95% intervals that hold the truth\n\n{summary(table)}{NOTE}"
    write_text(here / "coverage.md", text)


if __name__ == "__main__":
    main()
