"""Success and return of episodes by what the tasks of an environment can be sorted by (`EnvSpec.strata`)."""

import pandas as pd

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.base import EnvSpec
from reflect_rl.evaluate.stats import rate_interval
from reflect_rl.report.tables import in_order, matching, scores


def strata_table(episodes: pd.DataFrame, spec: EnvSpec) -> pd.DataFrame:
    """A row for each setting and variant, a column for each stratum: `0.950 (0.930-0.970); +0.61` in each cell, success
    with its interval and the mean return, which counts what it cost.

    Test episodes of one regime at `EnvSpec.claims_horizon`, sampled where a variant samples. Empty where the environment has
    no strata, or no such episodes.
    """
    rows = matching(episodes, env=spec.name, split="test", horizon=spec.claims_horizon)
    if spec.strata is None or rows.empty:
        return pd.DataFrame()
    strata = {task: spec.strata(task) for task in rows["task"].unique()}
    of_task = pd.DataFrame.from_dict(strata, orient="index")
    table = []
    for setting in spec.settings:
        for variant in in_order(rows["variant"]):
            own = matching(rows, setting=setting, variant=variant)
            if own.empty:
                continue
            own = own[own["decoding"] == ("sampled" if "sampled" in {*own["decoding"]} else "greedy")]
            line = {"setting": setting, "variant": VARIANTS[variant].label}
            for name in of_task.columns:
                for value, tasks in own.groupby(own["task"].map(of_task[name])):
                    success, low, high = rate_interval(scores(tasks))
                    line[f"{name} {value}"] = f"{success:.3f} ({low:.3f}-{high:.3f}); {tasks['return'].mean():+.2f}"
            table.append(line)
    found = pd.DataFrame(table)
    return found[["setting", "variant", *sorted(set(found.columns) - {"setting", "variant"})]].fillna("")
