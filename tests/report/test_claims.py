import numpy as np
import pandas as pd
import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv
from reflect_rl.evaluate.stats import p_value, paired_difference, seeds_needed
from reflect_rl.report import claims
from reflect_rl.report.rule import Rule

PLACE = {"setting": "full", "horizon": 20, "split": "test", "decoding": "sampled"}
HEADLINE = {"env": "taxi", "regime": "plentiful", **PLACE, "model": "tiny"}
HEADLINE |= {"reflections": 100, "target": "oracle", "tells": "action"}
WORSE = {1: "sft_only", 2: "rl_only", 3: "sft_rl", 6: "prompted"}


def rule(regime="plentiful", envs=("taxi",), **changes):
    """Four of the paper's claims in one regime."""
    entries = [{"claim": n, "comparison": ["reflect_rl", w], "regime": regime, **PLACE} for n, w in WORSE.items()]
    sentences = {number: "It is better." for number in WORSE}
    return Rule(**{"claims": sentences, "comparisons": dict.fromkeys(envs, entries), **changes})


def episodes(variant, success, repeats=1, **keys):
    """Episodes of each seed (row) and task (column)."""
    rows = [
        {**HEADLINE, **keys, "variant": variant, "seed": seed, "task": f"full-{task}", "repeat": i, "success": value}
        for seed, of_seed in enumerate(np.asarray(success))
        for task, value in enumerate(of_seed)
        for i in range(repeats)
    ]
    return pd.DataFrame(rows)


def rates(*by_seed, tasks=20):
    """Success `(num_seeds, tasks)` with these rates."""
    return np.array([[float(task < round(rate * tasks)) for task in range(tasks)] for rate in by_seed])


def judge(better, worse, against="sft_only", ceilings=None, repeats=1, **changes):
    parts = episodes("reflect_rl", better), episodes(against, worse, repeats)
    table = claims.claims_table(pd.concat(parts), ceilings, rule(**changes))
    assert list(table) == [*claims.COLUMNS, "panel", "greedy"]
    (row,) = [row for row in table.to_dict("records") if row["comparison"].endswith(against)]
    return row


def test_the_columns_are_those_of_the_design():
    assert ", ".join(claims.COLUMNS) == (
        "claim, env, setting, regime, comparison, effect, ci_low, ci_high, p, p_holm, verdict, n_seeds, n_tasks, note"
    )


TESTED = {"n_seeds": 5, "seeds": 5, "better": 0.9, "worse": 0.1, "best": 1.0, "p_holm": np.nan}


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, None),
        ({"n_seeds": 4}, "undecided"),
        ({"seeds": 10}, "undecided"),
        ({"n_seeds": 10, "seeds": 10}, None),
        ({"better": 0.04, "worse": 0.0}, "undecided"),
        ({"better": 0.06, "worse": 0.0}, None),
        ({"better": 0.96, "worse": 0.95}, "at the ceiling"),
        ({"better": 0.96, "worse": 0.94}, None),
        ({"better": 0.74, "worse": 0.71, "best": 0.74}, "at the ceiling"),
        ({"better": 0.04, "worse": 0.04, "best": 0.04}, "undecided"),  # the floor comes first
    ],
)
def test_what_is_not_tested(changes, judged):
    found = claims.verdict(TESTED | changes, rule())
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
    row = TESTED | {"effect": effect, "ci_low": low, "ci_high": high, "p_holm": p_holm}
    found, why = claims.verdict(row, rule())
    assert found == judged and (judged == "undecided") == bool(why)


def test_the_constants_of_the_rule_count():
    row = TESTED | {"effect": 0.2, "ci_low": 0.1, "ci_high": 0.3, "p_holm": 0.03}
    assert claims.verdict(row, rule(alpha=0.02))[0] == "undecided"
    assert claims.verdict(row, rule(alpha=0.02, margin=0.3))[0] == "equivalent"
    assert claims.verdict(TESTED, rule(ceiling=0.1))[0] == "at the ceiling"
    assert claims.verdict(TESTED, rule(floor=0.95))[0] == "undecided"


def test_a_claim_pairs_seeds_and_tasks():
    better, worse = rates(0.5, 0.6, 0.7, 0.8, 0.9), rates(0.2, 0.4, 0.3, 0.5, 0.6)
    row = judge(better, worse)
    assert (row["claim"], row["regime"], row["comparison"]) == ("1", "plentiful", "reflect_rl vs sft_only")
    assert (row["n_seeds"], row["n_tasks"]) == (5, 20)
    assert row["effect"] == pytest.approx(0.3)
    assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx(paired_difference(better, worse))
    assert row["p"] == row["p_holm"] == pytest.approx(p_value(better, worse))
    assert row["verdict"] == "reproduced" and not row["note"]
    assert judge(worse, better)["verdict"] == "not reproduced"


def test_too_few_seeds_and_success_near_zero_decide_nothing():
    """What a run of minutes gives: two seeds, and hardly a success."""
    row = judge(rates(0.9, 1), rates(0, 0.1))
    assert (row["verdict"], row["note"]) == ("undecided", "only 2 seeds; a decision needs 5 seeds")
    row = judge(rates(*[0.04] * 5, tasks=100), rates(*[0] * 5, tasks=100))
    assert row["verdict"] == "undecided"
    assert row["note"] == "both below 5%; a decision needs an arm that has learned the task"
    row = judge(rates(0.9), rates(0.1))
    assert (row["verdict"], np.isnan(row["p_holm"])) == ("undecided", True)
    assert row["note"] == "only 1 seed; the interval is over tasks alone, and a decision needs 5 seeds"


def test_a_regime_may_ask_for_more_seeds():
    better, worse = rates(*[0.8, 0.9] * 3), rates(*[0.2, 0.1] * 3)
    assert judge(better, worse, seeds_of_regime={"alfworld": {"paper": 10}})["verdict"] == "reproduced"
    row = judge(better, worse, seeds_of_regime={"taxi": {"plentiful": 10}})
    assert (row["verdict"], row["note"]) == ("undecided", "only 6 seeds; a decision needs 10 seeds")


def test_an_undecided_row_says_how_many_seeds_a_decision_needs():
    better, worse = rates(0.4, 0.5, 0.9, 0.6, 0.7), rates(0.4, 0.6, 0.5, 0.5, 0.6)
    row, needed = judge(better, worse), seeds_needed(better, worse)
    assert row["verdict"] == "undecided" and needed > 5
    assert row["note"] == f"interval holds 0; a decision needs {needed} seeds"
    hard = np.tile([0.0, 0, 1], (5, 4))
    row = judge(hard, 1 - hard + 0.3 * np.eye(5, 12))
    tasks = seeds_needed(hard.T, (1 - hard + 0.3 * np.eye(5, 12)).T)
    assert row["note"].endswith(f"; a decision needs 5 seeds and {tasks} tasks")
    far = np.repeat([[0.0], [1.0]], 12, axis=1) + np.tile([0.0, 0.4], 6)
    row = judge(far / 2 + 0.2, 0.9 - far / 2, seeds=2, margin=0.001)
    assert row["note"].endswith("; a decision needs more seeds than 2 and more tasks than 12")


def test_what_needs_no_test_needs_the_least_seeds():
    notes = [judge(np.ones((2, 12)), np.full((2, 12), worse))["note"] for worse in (1.0, 0.0)]
    assert notes == ["only 2 seeds; a decision needs 5 seeds"] * 2


def test_a_certain_difference_that_does_not_matter_is_called_small():
    worse = np.full((5, 20), 0.5)
    for gain, note in ((0.02, "a difference of less than 5 points"), (0.1, "")):
        row = judge(worse + gain + np.array([[0.001], [0], [-0.001], [0], [0]]), worse)
        assert (row["verdict"], row["note"]) == ("reproduced", note)


def test_a_prompted_model_of_too_few_episodes_does_not_enter():
    both = [episodes("reflect_rl", rates(*[1] * 5, tasks=50)), episodes("prompted", rates(0, tasks=33), repeats=3)]
    table = claims.claims_table(pd.concat(both), rule=rule())
    assert "reflect_rl vs prompted" not in set(table["comparison"])
    both[1] = episodes("prompted", rates(0, tasks=34), repeats=3)
    table = claims.claims_table(pd.concat(both), rule=rule()).set_index("claim")
    assert (table.loc["6", "n_seeds"], table.loc["6", "n_tasks"]) == (5, 34)
    assert table.loc["6", "verdict"] == "reproduced"


def test_a_prompted_model_is_compared_on_the_tasks_it_played():
    better, worse = rates(0.5, 0.5, 0.6, 0.6, 0.4, tasks=40), rates(0.2, tasks=25)
    row = judge(better, worse, against="prompted", repeats=4)
    assert (row["claim"], row["n_seeds"], row["n_tasks"]) == ("6", 5, 25)
    assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx(paired_difference(better[:, :25], worse))
    assert row["verdict"] == "reproduced"


def test_the_ceiling_is_that_of_the_panel():
    ceilings = pd.DataFrame([HEADLINE | {"ceiling": 0.5}, HEADLINE | {"horizon": 15, "ceiling": 0.1}])
    below = rates(*[0.5] * 5), rates(0.5, 0.5, 0.5, 0.5, 0.45)
    assert judge(*below, ceilings=ceilings)["verdict"] == "at the ceiling"
    for unknown in (None, ceilings.assign(ceiling=np.nan), ceilings.iloc[1:]):
        assert judge(*below, ceilings=unknown)["verdict"] == "equivalent"


def test_p_is_adjusted_for_all_comparisons_that_are_tested_whatever_their_environment():
    parts = [
        episodes("reflect_rl", rates(0.5, 0.6, 0.7, 0.8, 0.9)),
        episodes("sft_only", rates(0.2, 0.4, 0.3, 0.5, 0.6)),
        episodes("sft_rl", rates(0.5, 0.4, 0.5, 0.7, 0.8)),
        episodes("rl_only", rates(0, 0, 0)),  # three seeds
        episodes("reflect_rl", rates(0.5, 0.6, 0.7, 0.8, 0.9), env="other"),
        episodes("sft_only", rates(0.1, 0.3, 0.3, 0.5, 0.6), env="other"),
    ]
    table = claims.claims_table(pd.concat(parts), rule=rule(envs=("taxi", "other"))).set_index(["claim", "env"])
    ours, other, third = table["p"]["1", "taxi"], table["p"]["1", "other"], table["p"]["3", "taxi"]
    assert ours < third and other < third
    tested = table["p_holm"].dropna().sort_values().to_numpy()
    assert tested == pytest.approx([3 * min(ours, other), max(2 * max(ours, other), 3 * min(ours, other)), third])
    assert np.isnan(table.loc[("2", "taxi"), "p_holm"]) and table.loc[("2", "taxi"), "note"].startswith(
        "only 3 seeds; "
    )


def test_verdicts_at_a_glance_have_a_column_for_each_panel_and_a_row_for_each_comparison():
    better, worse = rates(0.9, 0.95, 0.9, 0.85, 0.9), rates(0.1, 0.2, 0.15, 0.1, 0.1)
    parts = [episodes("reflect_rl", better, env=env) for env in ("taxi", "other")]
    parts += [episodes("sft_only", worse, env=env) for env in ("taxi", "other")]
    parts += [episodes(name, rates(*[0.9] * 5), decoding="greedy") for name in ("reflect_rl", "sft_only")]
    of_two = rule(envs=("taxi", "other"))
    judged = claims.claims_table(pd.concat(parts), rule=of_two)
    table, of_other = (claims.verdicts(judged[judged["env"] == env], of_two) for env in ("taxi", "other"))
    panel = "full, 20 steps, test, sampled"
    assert list(table) == list(of_other) == ["claim", "comparison", panel]
    assert table["comparison"].tolist() == [f"Reflect-RL - {name}" for name in ("SFT only", "RL only", "SFT + RL")]
    assert table["claim"][0] == "1. It is better."
    _, low, high = 100 * np.array(paired_difference(*[rates(*[0.9] * 5)] * 2))
    assert table[panel][0].startswith("reproduced: +77 (+")
    assert table[panel][0].endswith(f"); greedy 0 ({low:+.0f} to {high:+.0f})")
    assert of_other[panel][0].startswith("reproduced: +77 (+") and "greedy" not in of_other[panel][0]
    assert table[panel].tolist()[1:] == ["undecided"] * 2
    assert list(claims.verdicts(judged[:0], Rule())) == ["claim", "comparison"]


def test_claims_are_judged_on_the_episodes_that_the_rule_names():
    kept = rates(0.5, 0.6, 0.7, 0.8, 0.9), rates(0.2, 0.4, 0.3, 0.5, 0.6)
    names = "reflect_rl", "sft_only"
    right = [episodes(name, success) for name, success in zip(names, kept, strict=True)]
    others = [{"regime": "paper"}, {"setting": "pickup"}, {"horizon": 15}, {"split": "train"}, {"decoding": "greedy"}]
    wrong = [episodes(name, rates(*[0.1] * 5), **other) for other in others for name in names]
    for frame in (pd.concat(right), pd.concat(right + wrong)):
        row = claims.claims_table(frame, rule=rule()).iloc[0]
        assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx(paired_difference(*kept))


def test_what_was_not_played_is_undecided_and_what_has_another_regime_is_left_out():
    both = pd.concat([episodes(name, rates(*[0.5] * 5), horizon=15) for name in ("reflect_rl", "sft_only")])
    table = claims.claims_table(both, rule=rule())
    assert table["claim"].tolist() == ["1", "2", "3"] and table["effect"].isna().all()
    assert set(table["verdict"]) == {"undecided"} and set(table["n_seeds"]) == {0}
    assert set(table["note"]) == {"only 0 seeds; a decision needs 5 seeds of both"}
    table = claims.claims_table(both, rule=rule(regime="limited"))
    assert table.empty and list(table)[:-2] == claims.COLUMNS


def test_claims_use_the_seeds_that_both_variants_have():
    row = judge(rates(1, 1, 0), rates(0, 1), against="sft_rl")
    assert (row["effect"], row["n_seeds"]) == (0.5, 2)


def test_claims_refuse_different_tasks():
    worse = episodes("sft_rl", rates(0.5)).assign(task=lambda rows: rows["task"] + "0")
    where = "taxi full reflect_rl vs sft_rl, regime plentiful: no common seeds and tasks"
    with pytest.raises(ReflectRLError, match=where):
        claims.claims_table(pd.concat([episodes("reflect_rl", rates(0.5)), worse]), rule=rule())


def test_claims_are_counted_and_those_that_nothing_tests_are_named():
    one = episodes("reflect_rl", rates(*[0.9] * 5)), episodes("sft_only", rates(*[0.1] * 5))
    table = claims.claims_table(pd.concat(one), None, rule())
    tested = table["claim"].unique()
    (env,) = table["env"].unique()
    said = claims.counted(table, [env, "elsewhere"], rule())
    left = [name for name in rule().claims if name not in tested]
    assert said.startswith("Comparisons: ") and left
    assert said.endswith(f"not tested here: {', '.join(left)} in {env}; {', '.join(rule().claims)} in elsewhere.")
    assert claims.counted(table[:0], [env], rule()).startswith("Nothing that configs/claims.yaml lists")


def test_what_a_profile_does_not_test_is_taken_from_those_that_do(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))  # whose results stand before the committed ones
    values = {**dict.fromkeys(claims.COLUMNS, ""), "env": "nowhere", "setting": "full", "regime": "texts", "claim": "7"}
    values |= {"comparison": "reflect_rl vs reflect_rl_texts", "verdict": "not reproduced", "n_tasks": 60}
    values |= {"effect": -0.2, "ci_low": -0.3, "ci_high": -0.1}
    tests = [
        ("beyond", values | {"n_seeds": 10, "p": 0.02, "p_holm": 0.02, "note": "why"}),
        ("smoke", values | {"n_seeds": 5, "p": 0.01, "p_holm": 0.01}),
    ]
    for name, row in tests:
        write_csv(tmp_path / "results" / name / "claims.csv", pd.DataFrame([row]))
    ours = pd.DataFrame([values | {"claim": "1", "p": 0.04, "p_holm": 0.04}, values | {"claim": "2", "p_holm": np.nan}])
    found = claims.elsewhere("study", ["nowhere"], ours)
    assert [(row["profile"], row["n_seeds"], row["verdict"]) for _, row in found.iterrows()] == [
        ("beyond", 10, "not reproduced")
    ]
    assert found["note"][0] == "p = 0.040 after Holm with those of study; why"
    said = claims.counted(ours, ["nowhere"], rule(), claims.elsewhere("study", ["nowhere"], ours))
    line = "- 7 in nowhere, full, texts (`beyond`): Reflect-RL - texts for labels: not reproduced, -20 (-30 to -10); p = 0.040"
    assert line in said
    assert claims.elsewhere("study", [], ours).empty
    assert claims.elsewhere("study", ["nowhere"], ours.assign(claim="7")).empty
