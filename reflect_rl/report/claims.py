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

import pandas as pd

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import Interval, holm, newcombe, p_value, paired_difference, rate_interval
from reflect_rl.report.tables import HEADLINE, scores

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


def on_headline(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of results that the claims are judged on."""
    horizons = {env: get(env).claims_horizon for env in frame["env"].unique()}
    kept = frame["horizon"] == frame["env"].map(horizons)
    for column, value in HEADLINE.items():
        kept &= frame[column] == value
    return frame[kept]


def untestable(
    better: float, worse: float, num_seeds: int, num_tasks: int | None, ceiling: float = 1.0
) -> tuple[str, str] | None:
    """(verdict, why) by the first of rules 1 to 3 that applies; None where the difference is to be tested.

    Args:
        better, worse: success rates of the two arms.
        num_seeds: seeds that both have (of the trained arm, where the other is prompted).
        num_tasks: tasks that the prompted arm played; None where both arms are trained.
        ceiling: success of an optimal player.
    """
    if num_seeds < SEEDS:
        return "undecided", f"{num_seeds} seed{'s' * (num_seeds > 1)}; a verdict needs {SEEDS}"
    if num_tasks is not None and num_tasks < TASKS:
        tasks = f"{num_tasks} task{'s' * (num_tasks > 1)}"
        return "undecided", f"{tasks} of the prompted model; a verdict needs {TASKS}"
    if max(better, worse) < FLOOR:
        return "undecided", f"both succeed in less than {FLOOR:.0%}"
    if min(better, worse) >= CEILING * ceiling:
        return "at the ceiling", ""
    return None


def decision(effect: float, low: float, high: float, p_holm: float) -> tuple[str, str]:
    """(verdict, why) on a tested difference with its 95% interval and adjusted p, by rules 4 to 6."""
    if p_holm < ALPHA:
        return ("reproduced" if effect > 0 else "not reproduced"), ""
    if -MARGIN <= low and high <= MARGIN:
        return "equivalent", ""
    if low > 0 or high < 0:
        return "undecided", f"among this many comparisons p is {p_holm:.2f}"
    return "undecided", f"the interval holds 0 and more than {100 * MARGIN:.0f} points"


def claims_table(episodes: pd.DataFrame, ceilings: pd.DataFrame | None = None) -> pd.DataFrame:
    """The claims that compare two variants found here, judged on `HEADLINE`; columns `COLUMNS`.

    `effect` is the success of the first variant of `comparison` minus that of the second, with its 95% interval: of
    `paired_difference`, since the seeds are the same. A prompted model has one seed; it may have played a part of the
    tasks, and is compared on these with `newcombe`, so that what its episodes leave open counts. `p` is the `p_value` of
    that interval; `p_holm` adjusts it for the comparisons of the environment that are tested, and is empty for others.
    With `ceilings` (env, setting, split, horizon, ceiling) the best possible success is known, else it is 1.

    Seeds that only one of two trained variants has are left out.

    Raises:
        ReflectRLError: two variants have no seeds or tasks in common.
    """
    table = []
    for (env, setting), found in on_headline(episodes).groupby(["env", "setting"]):
        best = _ceiling(ceilings, env, setting)
        for claim in CLAIMS:
            if {claim.better, claim.worse} <= set(found["variant"]):
                table.append({"claim": claim.number, "env": env, "setting": setting} | _compared(claim, found, best))
    table = pd.DataFrame(table, columns=COLUMNS).sort_values(["claim", "env", "setting"], ignore_index=True)
    for _, rows in table[table["verdict"].isna()].groupby("env"):
        table.loc[rows.index, "p_holm"] = holm(rows["p"].to_numpy())
    for row in table[table["verdict"].isna()].itertuples():
        table.loc[row.Index, ["verdict", "note"]] = decision(row.effect, row.ci_low, row.ci_high, row.p_holm)
    return table


def _compared(claim: Claim, found: pd.DataFrame, ceiling: float) -> dict:
    """A row of the claims from the episodes of one setting; without a verdict where it is to be tested."""
    better, worse = (found[found["variant"] == name] for name in (claim.better, claim.worse))
    comparison = f"{claim.better} vs {claim.worse}"
    prompted = VARIANTS[claim.worse].prompted
    common = set(better["seed"]) if prompted else set(better["seed"]) & set(worse["seed"])
    if prompted:
        better = better[better["task"].isin(worse["task"])]
    if not common or set(better["task"]) != set(worse["task"]):
        env, setting = found["env"].iloc[0], found["setting"].iloc[0]
        raise ReflectRLError(f"{env} {setting} {comparison}: no common seeds and tasks; evaluate both alike")
    if not prompted:
        worse = worse[worse["seed"].isin(common)]
    a, b = scores(better[better["seed"].isin(common)]), scores(worse)

    def difference(confidence: float) -> Interval:
        if prompted:
            return newcombe(rate_interval(a, confidence), rate_interval(b, confidence))
        return paired_difference(a, b, confidence)

    num_seeds, num_tasks = a.shape
    judged = untestable(a.mean(), b.mean(), num_seeds, num_tasks if prompted else None, ceiling) or (None, None)
    values = (comparison, num_seeds, num_tasks, *difference(0.95), p_value(difference), float("nan"), *judged)
    return dict(zip(COLUMNS[3:], values, strict=True))


def _ceiling(ceilings: pd.DataFrame | None, env: str, setting: str) -> float:
    """Success of an optimal player where the claims are judged; 1 where it is not known."""
    if ceilings is None:
        return 1.0
    wanted = {"env": env, "setting": setting, "split": HEADLINE["split"], "horizon": get(env).claims_horizon}
    rows = ceilings[(ceilings[list(wanted)] == pd.Series(wanted)).all(axis=1)]["ceiling"].dropna()
    return float(rows.iloc[0]) if len(rows) else 1.0
