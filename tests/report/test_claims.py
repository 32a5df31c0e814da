import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.evaluate.stats import newcombe, rate_interval
from reflect_rl.report import claims

HEADLINE = {"env": "taxi", "setting": "full", "split": "test", "horizon": 20, "decoding": "sampled", "model": "tiny"}


def episodes(variant, success, **keys):
    """One episode of each seed (row) and task (column)."""
    rows = [
        {**HEADLINE, **keys, "variant": variant, "seed": seed, "task": f"full-{task}", "success": value}
        for seed, of_seed in enumerate(np.asarray(success))
        for task, value in enumerate(of_seed)
    ]
    return pd.DataFrame(rows)


def rates(*by_seed, tasks=20):
    """Success `(num_seeds, tasks)` with these rates."""
    return [[int(task < round(rate * tasks)) for task in range(tasks)] for rate in by_seed]


def judge(better, worse, against="sft_only", ceilings=None):
    table = claims.claims_table(pd.concat([episodes("reflect_rl", better), episodes(against, worse)]), ceilings)
    assert list(table) == claims.COLUMNS
    (row,) = table.to_dict("records")
    return row


def test_seven_claims_compare_known_variants():
    assert [claim.number for claim in claims.CLAIMS] == [1, 2, 3, 4, 5, 6, 7]
    assert all(claim.better == "reflect_rl" and claim.worse in VARIANTS for claim in claims.CLAIMS[:6])
    assert (claims.CLAIMS[6].better, claims.CLAIMS[6].worse) == (None, None)


TESTED = {"n_seeds": 5, "n_tasks": 100, "prompted": False, "better": 0.9, "worse": 0.1, "best": 1.0, "p_holm": np.nan}


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({"n_seeds": 4}, "undecided"),
        ({"n_seeds": 1, "prompted": True}, "undecided"),
        ({"n_tasks": 19, "prompted": True}, "undecided"),
        ({"n_tasks": 19}, None),
        ({"n_tasks": 20, "prompted": True}, None),
        ({"better": 0.04, "worse": 0.0}, "undecided"),
        ({"better": 0.06, "worse": 0.0}, None),
        ({"better": 0.96, "worse": 0.95}, "at the ceiling"),
        ({"better": 0.96, "worse": 0.94}, None),
        ({"better": 0.74, "worse": 0.71, "best": 0.74}, "at the ceiling"),
    ],
)
def test_what_is_not_tested(changes, judged):
    found = claims.verdict(TESTED | changes)
    assert (None if found is None else found[0]) == judged
    assert found is None or (judged == "undecided") == bool(found[1])


@pytest.mark.parametrize(
    ("effect", "low", "high", "p_holm", "judged"),
    [
        (0.2, 0.1, 0.3, 0.049, "reproduced"),
        (-0.2, -0.3, -0.1, 0.01, "not reproduced"),
        (0.2, 0.1, 0.3, 0.05, "undecided"),  # does not survive the number of comparisons
        (0.01, 0.005, 0.015, 0.3, "equivalent"),
        (0.01, -0.04, 0.05, 0.3, "equivalent"),
        (0.01, -0.04, 0.06, 0.3, "undecided"),
        (-0.01, -0.06, 0.04, 0.3, "undecided"),
    ],
)
def test_what_a_tested_difference_decides(effect, low, high, p_holm, judged):
    found, why = claims.verdict(TESTED | {"effect": effect, "ci_low": low, "ci_high": high, "p_holm": p_holm})
    assert found == judged and (judged == "undecided") == bool(why)


def test_a_claim_pairs_seeds():
    better, worse = (0.5, 0.6, 0.7, 0.8, 0.9), (0.2, 0.4, 0.3, 0.5, 0.6)
    row = judge(rates(*better), rates(*worse))
    assert (row["claim"], row["comparison"]) == (1, "reflect_rl vs sft_only")
    assert (row["n_seeds"], row["n_tasks"]) == (5, 20)
    assert row["effect"] == pytest.approx(0.3)
    half = 2.776 * np.std([0.3, 0.2, 0.4, 0.3, 0.3], ddof=1) / np.sqrt(5)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-4)
    assert row["p"] == row["p_holm"] == pytest.approx(ttest_rel(better, worse).pvalue, abs=1e-6)
    assert row["verdict"] == "reproduced" and not row["note"]
    assert judge(rates(*worse), rates(*better))["verdict"] == "not reproduced"


def test_few_seeds_and_success_near_zero_decide_nothing():
    """What a run of minutes gives: two seeds, and hardly a success."""
    row = judge(rates(0.9, 1), rates(0, 0.1))
    assert (row["verdict"], row["note"]) == ("undecided", "2 seeds; a verdict needs 5")
    row = judge(rates(*[0.04] * 5, tasks=100), rates(*[0] * 5, tasks=100))
    assert (row["verdict"], row["note"]) == ("undecided", "both succeed in less than 5%")
    row = judge(rates(0.9), rates(0.1))
    assert row["verdict"] == "undecided" and np.isnan([row["ci_low"], row["p"], row["p_holm"]]).all()


def test_three_episodes_of_a_prompted_model_decide_nothing():
    row = judge(rates(*[1] * 5, tasks=25), rates(0, tasks=3), against="prompted")
    assert (row["verdict"], row["note"]) == ("undecided", "3 tasks of the prompted model; a verdict needs 20")
    assert row["effect"] == 1 and row["ci_low"] < 0.25 and np.isnan(row["p_holm"])


def test_a_prompted_model_is_compared_on_the_tasks_it_played_and_its_uncertainty_counts():
    better = rates(*[0.5] * 5, tasks=40)  # on the first 25 tasks: 20
    row = judge(better, rates(0.2, tasks=25), against="prompted")
    assert (row["claim"], row["n_seeds"], row["n_tasks"]) == (6, 5, 25)
    assert row["effect"] == pytest.approx(0.8 - 0.2)
    expected = newcombe(rate_interval(np.array(better)[:, :25]), rate_interval(np.array(rates(0.2, tasks=25))))
    assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx(expected)
    assert row["verdict"] == "reproduced"


def test_the_ceiling_is_that_of_the_panel():
    ceilings = pd.DataFrame([HEADLINE | {"ceiling": 0.5}, HEADLINE | {"horizon": 15, "ceiling": 0.1}])
    below = rates(*[0.5] * 5), rates(0.5, 0.5, 0.5, 0.5, 0.45)
    assert judge(*below, ceilings=ceilings)["verdict"] == "at the ceiling"
    for unknown in (None, ceilings.assign(ceiling=np.nan), ceilings.iloc[1:]):
        assert judge(*below, ceilings=unknown)["verdict"] == "equivalent"


def test_p_is_adjusted_for_the_comparisons_of_the_environment_that_are_tested():
    parts = [
        episodes("reflect_rl", rates(0.5, 0.6, 0.7, 0.8, 0.9)),
        episodes("sft_only", rates(0.2, 0.4, 0.3, 0.5, 0.6)),
        episodes("sft_rl", rates(0.5, 0.4, 0.5, 0.7, 0.8)),
        episodes("rl_only", rates(0, 0, 0)),  # three seeds
    ]
    table = claims.claims_table(pd.concat(parts)).set_index("claim")
    first, third = table.loc[1, "p"], table.loc[3, "p"]
    assert first < third < 0.05
    assert table.loc[[1, 3], "p_holm"].tolist() == pytest.approx([2 * first, third])
    assert np.isnan(table.loc[2, "p_holm"]) and table.loc[2, "note"] == "3 seeds; a verdict needs 5"


def test_claims_need_sampled_test_episodes_at_the_environments_horizon_of_both_variants():
    both = [episodes(name, rates(0.5), horizon=15) for name in ("reflect_rl", "sft_only")]
    table = claims.claims_table(pd.concat([*both, episodes("reflect_rl", rates(0.5))]))
    assert table.empty and list(table) == claims.COLUMNS


def test_claims_use_the_seeds_that_both_variants_have():
    row = judge(rates(1, 1, 0), rates(0, 1), against="sft_rl")
    assert (row["effect"], row["n_seeds"]) == (0.5, 2)


def test_claims_refuse_different_tasks():
    worse = episodes("sft_rl", rates(0.5)).assign(task=lambda rows: rows["task"] + "0")
    with pytest.raises(ReflectRLError, match="taxi full reflect_rl vs sft_rl: no common seeds and tasks"):
        claims.claims_table(pd.concat([episodes("reflect_rl", rates(0.5)), worse]))
