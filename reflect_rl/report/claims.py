"""The claims of the paper, and when one counts as reproduced.

Zhou, Du & Li, "Reflect-RL: Two-Player Online RL Fine-Tuning for LMs", ACL 2024, doi 10.18653/v1/2024.acl-long.56.

A claim says that one arm beats another. Its verdict is that of the first rule that applies:

1. `undecided` with fewer than `SEEDS` seeds, or where a prompted model played fewer than `TASKS` tasks;
2. `undecided` where both arms succeed in less than `FLOOR`: neither has learned the task;
3. `at the ceiling` where both reach `CEILING` of the best possible success: nothing is left to show;
4. `reproduced` where the difference is above 0, `not reproduced` where it is below, with p below `ALPHA` after Holm's
   adjustment for all comparisons of the environment that rules 1 to 3 leave;
5. `equivalent` where its 95% interval lies within `MARGIN` of 0;
6. `undecided`: more seeds or tasks are needed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.evaluate.stats import Interval, holm, newcombe, p_value, paired_difference, rate_interval
from reflect_rl.report.tables import HEADLINE, ceiling_of, on_headline, scores

COLUMNS = [
    *("claim", "env", "setting", "comparison", "n_seeds", "n_tasks", "effect", "ci_low", "ci_high"),
    *("p", "p_holm", "verdict", "note"),
]
SEEDS = 5  # trained runs of each arm without which there is no verdict
TASKS = 20  # that a prompted model, which has one seed, must have played for a verdict
FLOOR = 0.05  # success below which an arm has not learned the task
CEILING = 0.95  # share of the best possible success above which an arm has nothing left to gain
ALPHA = 0.05
MARGIN = 0.05  # difference in success that does not matter


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; `better` and `worse` name the variants it compares, where it compares two."""

    number: int
    sentence: str
    better: str | None = None
    worse: str | None = None


CLAIMS = (
    Claim(1, "Reflect-RL beats supervised fine-tuning alone.", "reflect_rl", "sft_only"),
    Claim(2, "Reflect-RL beats RL fine-tuning alone, without a warm-up.", "reflect_rl", "rl_only"),
    Claim(3, "Reflect-RL beats warm-up and RL without reflection.", "reflect_rl", "sft_rl"),
    Claim(4, "Negative examples in the warm-up help.", "reflect_rl", "reflect_rl_no_negatives"),
    Claim(5, "Curriculum learning helps.", "reflect_rl", "reflect_rl_no_curriculum"),
    Claim(6, "A small model trained this way beats a much larger prompted one.", "reflect_rl", "prompted"),
    Claim(7, "Single-prompt action enumeration costs less than action-prompt normalisation and loses nothing."),
)
SENTENCES = "Claims: " + " ".join(f"({claim.number}) {claim.sentence}" for claim in CLAIMS)


def verdict(row: dict) -> tuple[str, str] | None:
    """(verdict, why) on a row of `_compared` by the first rule that applies; None where it is to be tested first."""
    if row["n_seeds"] < SEEDS:
        return "undecided", f"{row['n_seeds']} seed{'s' * (row['n_seeds'] > 1)}; a verdict needs {SEEDS}"
    if row["prompted"] and row["n_tasks"] < TASKS:
        tasks = f"{row['n_tasks']} task{'s' * (row['n_tasks'] > 1)}"
        return "undecided", f"{tasks} of the prompted model; a verdict needs {TASKS}"
    if max(row["better"], row["worse"]) < FLOOR:
        return "undecided", f"both succeed in less than {FLOOR:.0%}"
    if min(row["better"], row["worse"]) >= CEILING * row["best"]:
        return "at the ceiling", ""
    if np.isnan(row["p_holm"]):
        return None
    if row["p_holm"] < ALPHA:
        return ("reproduced" if row["effect"] > 0 else "not reproduced"), ""
    if -MARGIN <= row["ci_low"] and row["ci_high"] <= MARGIN:
        return "equivalent", ""
    if row["ci_low"] > 0 or row["ci_high"] < 0:
        return "undecided", f"among this many comparisons p is {row['p_holm']:.2f}"
    return "undecided", f"the interval holds 0 and more than {100 * MARGIN:.0f} points"


def claims_table(episodes: pd.DataFrame, ceilings: pd.DataFrame | None = None) -> pd.DataFrame:
    """The claims that compare two variants found here, judged on the rows of `tables.on_headline`; columns `COLUMNS`.

    `effect` is the difference of the two success rates, with the 95% interval of `paired_difference` over the seeds that
    both have. A prompted model has one seed, and is compared on the tasks that it played with `newcombe`, so that what
    its episodes leave open counts. `p` is the `p_value` of that interval, and `p_holm` that after Holm's adjustment.
    Without `ceilings` (`results.ceilings`) the best possible success is 1.

    Raises:
        ReflectRLError: two variants have no seeds or tasks in common.
    """
    rows = []
    for (env, setting), found in on_headline(episodes).groupby(["env", "setting"]):
        best = None if ceilings is None else ceiling_of(ceilings, env, setting, HEADLINE["split"])
        pairs = [claim for claim in CLAIMS if {claim.better, claim.worse} <= set(found["variant"])]
        rows += [_compared(claim, found) | {"best": 1.0 if best is None else best} for claim in pairs]
    rows.sort(key=lambda row: (row["claim"], row["env"], row["setting"]))
    for env in {row["env"] for row in rows}:
        tested = [row for row in rows if row["env"] == env and verdict(row) is None]
        for row, p_holm in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p_holm
    for row in rows:
        row["verdict"], row["note"] = verdict(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(claim: Claim, found: pd.DataFrame) -> dict:
    """A row of the claims, not yet judged, from the episodes of one setting; with both success rates, and `prompted`."""
    better, worse = (found[found["variant"] == name] for name in (claim.better, claim.worse))
    prompted = VARIANTS[claim.worse].prompted
    if prompted:
        better = better[better["task"].isin(worse["task"])]
    else:
        better, worse = better[better["seed"].isin(worse["seed"])], worse[worse["seed"].isin(better["seed"])]
    env, setting, comparison = *found[["env", "setting"]].iloc[0], f"{claim.better} vs {claim.worse}"
    if better.empty or set(better["task"]) != set(worse["task"]):
        raise ReflectRLError(f"{env} {setting} {comparison}: no common seeds and tasks; evaluate both alike")
    a, b = scores(better), scores(worse)

    def difference(confidence: float) -> Interval:
        if prompted:
            return newcombe(rate_interval(a, confidence), rate_interval(b, confidence))
        return paired_difference(a, b, confidence)

    values = (claim.number, env, setting, comparison, *a.shape, *difference(0.95), p_value(difference), np.nan)
    rates = {"better": a.mean(), "worse": b.mean(), "prompted": prompted}
    return dict(zip(COLUMNS[: len(values)], values, strict=True)) | rates
