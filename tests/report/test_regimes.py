"""What sets regimes apart, and the parts of RL and reflection, on episodes whose numbers are known by hand."""

import numpy as np
import pandas as pd
import pytest

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.evaluate.panels import EPISODE_COLUMNS
from reflect_rl.evaluate.stats import paired_difference
from reflect_rl.report import regimes, tables
from reflect_rl.report.claims import claims_table
from reflect_rl.report.rule import Rule

PROFILE = """
envs: [taxi]
seeds: [0, 1]
variants: [sft_only, sft_rl, reflect_sft, reflect_rl]
taxi:
  policy: {steps: 400}
  regimes:
    paper: {settings: {data.target: executed}}
    same: {settings: {data.target: executed}, seeds: [0]}
    noisy: {settings: {data.target: executed, data.random_action_probability: 0.9}}
    few:
      settings: {data.target: executed}
      grid: {data.reflections: [50, 100], teacher.tells: [action, hint]}
"""
SUCCESS = {  # (seeds x tasks) of the variants
    "sft_only": [(0, 0), (0, 0), (0, 0)],
    "sft_rl": [(1, 0), (1, 0), (1, 0)],
    "reflect_sft": [(0, 0), (0, 0), (1, 1)],
    "reflect_rl": [(0, 0), (0.5, 0.5), (1, 1)],
}


def episodes(success=None, decoding="sampled", regime="paper", reflections=None, tells="action", **keys):
    """Two episodes for each seed and task of each variant, of which success is the mean."""
    rows = [
        {"env": "taxi", "regime": regime, "setting": "full", "variant": variant, "model": "tiny"}
        | {"reflections": reflections, "target": "executed", "tells": tells if VARIANTS[variant].reflection else None}
        | {"seed": seed, "split": "test", "task": f"full-{task}", "horizon": 20, "decoding": decoding}
        | {"repeat": repeat, "success": int(value > repeat / 2), "return": 0.0, "steps": 9, "ended": "x"}
        for variant, by_seed in (success or SUCCESS).items()
        for seed, of_seed in enumerate(by_seed)
        for task, value in enumerate(of_seed)
        for repeat in range(2)
    ]
    return pd.DataFrame(rows).assign(provenance="here", **keys)[EPISODE_COLUMNS]


def part_of(table, part):
    return table.set_index("part").loc[part]


def test_regimes_that_differ_in_more_than_their_reflections_are_not_on_one_map(write):
    write(PROFILE)
    assert regimes.comparable("mine", "taxi") == [
        "paper",
        "few-50-action",
        "few-50-hint",
        "few-100-action",
        "few-100-hint",
    ]


def test_regimes_on_a_map_may_differ_in_more_from_those_of_the_other_target(write):
    expert = "    expert: {settings: {data.target: oracle, policy.steps: 800}}\n"
    write(PROFILE + expert + expert.replace("expert", "other").replace("800", "900"))
    assert "expert" in regimes.comparable("mine", "taxi") and "other" not in regimes.comparable("mine", "taxi")


@pytest.mark.parametrize("profile", ["laptop", "study"])
def test_the_projects_own_environments_are_on_maps(profile):
    found = settings.profile(profile)
    assert {"paper", "plentiful"} <= {*found.regimes_of("taxi")} & {*found.regimes_of("alfworld")}
    for env in found.envs:
        assert {"paper", "plentiful"} & {*found.regimes_of(env)} <= {*regimes.comparable(profile, env)}


def test_regimes_that_differ_from_the_first_in_one_setting_lie_along_it(write):
    more = """    a: {settings: {data.target: executed, policy.steps: 9}}
    b:
      settings: {data.target: executed, policy.steps: 4}
      variants: [sft_rl, reflect_rl]
      variant_overrides: {sft_rl: {rl.clip: 0.4}}
    c: {settings: {data.target: executed, policy.steps: 5, rl.clip: 0.3}}
    d: {settings: {data.target: executed, data.random_action_probability: [0.1, 0.2]}}
"""
    write(PROFILE + more)
    found = regimes.along("mine", "taxi", "policy.steps")
    assert {key: n for key, n in found.items() if key[1] == "reflect_rl"} == {
        ("paper", "reflect_rl"): 400,
        ("a", "reflect_rl"): 9,
        ("b", "reflect_rl"): 4,
    }
    assert {regime for regime, variant in found if variant == "sft_rl"} == {"paper", "a"}
    shares = regimes.along("mine", "taxi", "data.random_action_probability")
    assert {key: n for key, n in shares.items() if key[1] == "sft_rl"} == {
        ("paper", "sft_rl"): 0.5,
        ("noisy", "sft_rl"): 0.9,
    }


def test_an_environment_without_regimes_has_nothing_to_compare(write):
    write(PROFILE.partition("  regimes:")[0])
    assert regimes.comparable("mine", "taxi") == [""]


def test_what_a_regime_is_comes_from_the_variants_that_learn():
    rows = [episodes(), episodes(regime="few", reflections=50, tells="hint")]
    rows.append(episodes({"random": [(0, 0)]}, regime="few", target=None, tells=None))
    known = regimes.facts(pd.concat(rows, ignore_index=True))
    assert known["reflections"].isna().tolist() == [True, False] and known["reflections"].dtype == "Int64"
    found = known.astype(object).where(known.notna(), None)
    assert found.to_numpy().tolist() == [
        ["taxi", "paper", None, "executed", "action"],
        ["taxi", "few", 50, "executed", "hint"],
    ]


def test_parts_are_differences_of_pairs_of_variants():
    table = regimes.parts_table(episodes())
    assert list(table) == regimes.COLUMNS
    effects = table.set_index("part")["effect"].to_dict()
    assert effects == pytest.approx(
        {
            "RL, with reflections": 1 / 6,
            "RL, without": 1 / 2,
            "reflection, before RL": 1 / 3,
            "reflection, after RL": 0,
        }
    )
    assert (table["n_seeds"] == 3).all() and (table["n_tasks"] == 2).all()
    assert part_of(table, "RL, without")["comparison"] == "sft_rl vs sft_only"
    assert set(table["tells"]) == {"action"}  # of the regime: also where no reflection was read


def test_the_interval_of_a_part_counts_seeds_and_tasks():
    """Differences of 0, 0.5 and 1 by seed, alike in both tasks: Student's t of three seeds, cut at 1. Where the tasks differ
    and the seeds do not, the interval is not that of equal seeds, which has no width."""
    success = {"reflect_rl": SUCCESS["reflect_rl"], "sft_rl": SUCCESS["sft_only"]}
    (row,) = regimes.parts_table(episodes(success)).to_dict("records")
    assert (row["part"], row["effect"], row["ci_high"]) == ("reflection, after RL", 0.5, 1)
    assert row["ci_low"] == pytest.approx(0.5 - 4.3027 * 0.5 / 3**0.5, abs=1e-4)
    of_tasks = np.array([(1, 1, 0, 0.5)] * 3), np.zeros((3, 4))
    success = dict(zip(("reflect_rl", "sft_rl"), of_tasks, strict=True))
    (row,) = regimes.parts_table(episodes(success)).to_dict("records")
    bounds = row["effect"], row["ci_low"], row["ci_high"]
    assert bounds == pytest.approx(paired_difference(*of_tasks)) and row["ci_low"] < 0.4 < 0.8 < row["ci_high"]


def test_what_follows_the_advice_is_compared_with_a_policy_that_is_as_greedy():
    advice = episodes({"follow": [(0, 0), (0, 0), (0, 0)], "reflect_rl": [(1, 1), (1, 0), (1, 1)]}, decoding="greedy")
    table = regimes.parts_table(pd.concat([episodes({"reflect_rl": SUCCESS["reflect_rl"]}), advice]))
    (row,) = table.to_dict("records")
    assert (row["part"], row["comparison"], row["decoding"]) == ("beyond the advice", "reflect_rl vs follow", "greedy")
    assert row["effect"] == pytest.approx(5 / 6)


def test_parts_are_over_common_seeds_and_tasks_and_left_out_without():
    more = {"reflect_rl": [(0, 1), (0, 1), (1, 1), (1, 1)], "reflect_sft": [(0, 0, 1), (0, 0, 1)]}
    (row,) = regimes.parts_table(episodes(more)).to_dict("records")
    assert (row["n_seeds"], row["n_tasks"], row["effect"]) == (2, 2, 0.5)
    apart = pd.concat([episodes({"reflect_rl": [(1, 1)]}), episodes({"reflect_sft": [(1, 1)]}, seed=7)])
    assert regimes.parts_table(apart).empty
    assert list(regimes.parts_table(episodes(split="validation"))) == regimes.COLUMNS


def test_every_regime_setting_and_horizon_has_its_parts():
    two = [episodes(), episodes(regime="few", reflections=50), episodes(setting="pickup"), episodes(horizon=15)]
    table = regimes.parts_table(pd.concat(two, ignore_index=True))
    panels = table[regimes.PANEL[1:]].drop_duplicates().to_numpy().tolist()
    assert panels == [["paper", "full", 15], ["paper", "full", 20], ["paper", "pickup", 20], ["few", "full", 20]]
    assert len(table) == 16 and table["reflections"].dropna().tolist() == [50] * 4


def test_the_budget_table_reads_learning_curves_at_shares_of_the_steps():
    rows = [
        {"env": "taxi", "regime": "few", "variant": variant, "seed": seed, "env_steps": steps, "val_success": value}
        for variant in ("reflect_rl", "sft_rl")
        for seed in (0, 1)
        for steps, value in ((0, 0.2), (50, np.nan), (60, 0.4), (100, 0.4 + 0.4 * seed))
    ]
    table = regimes.budget_table(pd.DataFrame(rows), regimes.facts(episodes(regime="few", reflections=50)))
    (row,) = table.to_dict("records")
    assert (row["regime"], row["reflections"], row["n_seeds"], row["env_steps"]) == ("few", 50, 2, 100)
    shares = [row[share] for share in ("0", "25%", "50%", "75%", "100%")]
    assert shares == pytest.approx(
        [0.2, np.nan, 0.2 + 0.2 * 5 / 6, np.nan, 0.6], nan_ok=True
    )  # 25 and 75 are far from all
    assert regimes.budget_table(pd.DataFrame(rows), regimes.facts(episodes()), "rl_only").empty


def test_what_rl_and_reflections_add_at_a_glance_is_what_the_rule_asks_for():
    place = {"regime": "paper", "setting": "full", "horizon": 20, "split": "test", "decoding": "sampled"}
    asked = [
        {"claim": "RL", "comparison": ("reflect_rl", "reflect_sft"), **place},
        {"claim": "RL", "comparison": ("reflect_rl", "reflect_sft"), **place, "regime": "unplayed"},
        {"claim": "3", "comparison": ("reflect_rl", "sft_rl"), **place, "horizon": 15},
    ]
    rule = Rule(claims={"RL": "It adds.", "3": "So do they."}, comparisons={"taxi": asked})
    advice = episodes({"follow": [(1, 0), (1, 1), (1, 1)]}, decoding="greedy")
    found = pd.concat([episodes(), advice])
    ceilings = found[["env", "regime", "setting", "split", "horizon"]].drop_duplicates().assign(ceiling=1.0)
    made = tables.main_table(found, ceilings), regimes.parts_table(found)
    judged = claims_table(found, ceilings, rule)
    table = regimes.contributions(*made, judged, rule)
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["panel"], row["regime"], row["policy imitates"]) == (
        "Taxi: whole task, 20 steps",
        "paper",
        "executed",
    )
    shares = row[["SFT + RL", "Reflect-RL before RL", "after RL", "advice alone"]].tolist()
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 2, 5 / 6])
    assert (
        row["RL adds"].startswith("+17 (") and row["reflections add"].startswith("0 (") and row["RL adds, greedy"] == ""
    )
    assert row["RL adds"].endswith(" †") and not row["reflections add"].endswith("†")
    decided = regimes.contributions(*made, judged.assign(verdict="reproduced"), rule).iloc[0]
    assert decided["RL adds"] == row["RL adds"].removesuffix(" †")
    assert regimes.contributions(*made, judged, Rule()).empty


def test_regimes_along_a_setting_are_compared_on_the_seeds_that_all_have():
    found = pd.concat([episodes(), episodes(regime="longer").query("seed < 2"), episodes(regime="apart")])
    values = {("paper", "sft_rl"): 1, ("longer", "sft_rl"): 3, ("paper", "reflect_rl"): 1}
    rows = regimes.on_common_seeds(found, values)
    assert {*zip(rows.regime, rows.variant, rows.seed, strict=True)} == {
        (regime, "sft_rl", seed) for regime in ("paper", "longer") for seed in (0, 1)
    }
    assert regimes.on_common_seeds(found, {("paper", "sft_rl"): 1}).empty


def test_what_is_shown_side_by_side_is_compared_with_the_first():
    more = {"reflect_rl": [(1, 1), (1, 1), (1, 0)]}
    found = pd.concat([episodes(), episodes(more, regime="other"), episodes(more, regime="other", decoding="greedy")])
    shown = {"title": "Targets", "setting": "full", "horizon": 20}
    of = [("paper", "reflect_rl"), ("other", "reflect_rl"), ("paper", "sft_rl"), ("unplayed", "sft_rl")]
    table = regimes.contrasts(found, Rule(contrasts={"taxi": [shown | {"of": of}]}))
    assert [*zip(table["regime"], table["variant"], strict=True)] == of[:3]
    assert table["success"].tolist() == pytest.approx([1 / 2, 5 / 6, 1 / 2])
    assert table["seed_min"].tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert table["success, greedy"].tolist() == pytest.approx([np.nan, 5 / 6, np.nan], nan_ok=True)
    first, other, same = table["minus the first"]
    assert first == "" and other.startswith("+33 (") and same.startswith("0 (")
    assert not table["minus the first, greedy"].any()  # there is none of the first
    for without in (of[1:2] + of[:1], of[3:] + of[:1], of[:1] + of[3:]):  # another panel's, no first, nothing beside it
        panel = shown | {"of": without, "setting": "full" if without[0] != of[1] else "pickup"}
        assert regimes.contrasts(found, Rule(contrasts={"taxi": [panel]})).empty
