import pandas as pd

from reflect_rl.envs.registry import get
from reflect_rl.evaluate.panels import EPISODE_COLUMNS
from reflect_rl.report.strata import strata_table

SPEC = get("autoexplore")


def episodes(variant, decoding, success):
    """Two seeds on 80 test tasks of `companies`; those at the top succeed, others as often as is said."""
    rows = []
    for seed in (0, 1):
        for i, task in enumerate(SPEC.panel("companies", "test", 80)):
            won = SPEC.strata(task)["depth"] == "0" or i % 10 < 10 * success
            found = {"task": task, "seed": seed, "success": int(won), "return": 0.5 if won else -1.0, "repeat": 0}
            rows.append(dict.fromkeys(EPISODE_COLUMNS, "") | found | {"variant": variant, "decoding": decoding})
    return pd.DataFrame(rows).assign(env="autoexplore", setting="companies", split="test", horizon=SPEC.claims_horizon)


def test_success_and_return_stand_by_stratum():
    played = pd.concat([episodes("reflect_rl", "sampled", 0), episodes("reflect_rl", "greedy", 1)])
    (row,) = (
        strata_table(pd.concat([played, episodes("follow", "greedy", 1)]), SPEC)
        .query("variant == 'Reflect-RL'")
        .to_dict("records")
    )
    assert row["depth 0"].startswith("1.000 (") and row["depth 0"].endswith("; +0.50")
    assert row["depth 1"].startswith("0.000 (") and row["depth 1"].endswith("; -1.00")
    assert {"depth 2", "words seen"} < set(row) and row["setting"] == "companies"
    low, high = map(float, row["words seen"].split("(")[1].split(")")[0].split("-"))
    assert low < float(row["words seen"][:5]) < high


def test_an_environment_without_strata_has_no_such_table():
    assert strata_table(episodes("follow", "greedy", 1), get("taxi")).empty
