import numpy as np
import pandas as pd
import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.evaluate.panels import EPISODE_COLUMNS
from reflect_rl.evaluate.stats import rate_interval, wilson
from reflect_rl.report import tables

KEYS = {"env": "taxi", "regime": "", "setting": "full", "split": "test", "horizon": 20, "decoding": "sampled"}
CEILINGS = pd.DataFrame([KEYS | {"ceiling": 0.9}]).drop(columns="decoding")
DATA = {"reflections": None, "target": "executed", "tells": "action"}


def episodes(variant="reflect_rl", success=((1, 0), (1, 1)), repeats=1, **keys):
    """Episodes with `success` of each seed (row) and task (column), alike in every repeat."""
    rows = [
        {**KEYS, **DATA, "variant": variant, "model": "tiny", **keys, "seed": seed, "task": f"full-{task}"}
        | {"repeat": repeat, "success": value, "return": 0.5, "steps": 9, "ended": "success", "provenance": "here"}
        for seed, of_seed in enumerate(success)
        for task, value in enumerate(of_seed)
        for repeat in range(repeats)
    ]
    return pd.DataFrame(rows)[EPISODE_COLUMNS]


def test_scores_are_seeds_by_tasks_in_sorted_order_and_means_over_repeats():
    rows = episodes(success=[(1, 0, 0), (0, 1, 0)], repeats=2)
    rows.loc[(rows["seed"] == 1) & (rows["task"] == "full-2") & (rows["repeat"] == 0), "success"] = 1
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(tables.scores(shuffled), [[1, 0, 0], [0, 1, 0.5]])


def test_scores_refuse_a_seed_that_lacks_a_task_and_name_it():
    with pytest.raises(ReflectRLError, match=r"taxi full .* seeds \[1\] lack episodes"):
        tables.scores(episodes(success=[(1, 0), (1, 1), (0, 0)]).drop(index=2))


def test_prompts_are_summed_over_seeds_and_the_longest_kept():
    rows = [
        ["taxi", "", "sft_rl", 0, 10, 40, 95, 0],
        ["taxi", "", "sft_rl", 1, 5, 99, 95, 1],
        ["taxi", "", "sft_only", 0, 2, 7, 95, 0],
    ]
    table = tables.prompt_table(
        pd.DataFrame(rows, columns=["env", "regime", "variant", "seed", "prompts", "longest", "limit", "shortened"])
    )
    assert table.to_dict("split")["data"] == [
        ["taxi", "", "sft_only", 1, 2, 7, 95, 0],
        ["taxi", "", "sft_rl", 2, 15, 99, 95, 1],
    ]


def test_scores_refuse_mixed_rows():
    mixed = pd.concat([episodes(), episodes(decoding="greedy")])
    with pytest.raises(ReflectRLError, match="one decoding, found: sampled, greedy"):
        tables.scores(mixed)


def test_main_table_keeps_its_column_contract():
    assert ",".join(tables.main_table(episodes(), CEILINGS)) == (
        "env,regime,setting,split,horizon,decoding,variant,model,reflections,target,tells,n_seeds,n_tasks,n_episodes,"
        "success,ci_low,ci_high,validation,ceiling,paper"
    )


def test_main_table_row_by_hand():
    row = tables.main_table(episodes(success=[(1, 0), (1, 1)], repeats=3), CEILINGS).iloc[0]
    assert (row["n_seeds"], row["n_tasks"], row["n_episodes"]) == (2, 2, 12)
    assert row["success"] == 0.75
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.010, 0.999), abs=1e-3)  # little is known of two seeds
    assert (row["ceiling"], row["paper"]) == (0.9, 0.58)


def test_validation_stands_beside_the_test_of_the_players_that_it_measured():
    """That of an arm before its RL is the first measurement of the arm with it; other panels and decodings have none."""
    curves = [
        {"env": "taxi", "regime": "", "variant": variant, "seed": seed, "env_steps": steps, "val_success": rate}
        for variant, before in (("reflect_rl", 0.2), ("sft_rl", 0.1))
        for seed in (0, 1)
        for steps, rate in ((0, before + 0.2 * seed), (50, None), (90, 0.6 + 0.2 * seed))
    ]
    found = tables.validation(pd.DataFrame(curves).sample(frac=1, random_state=0), {("taxi", ""): 20})
    parts = [episodes(name) for name in ("random", "sft_only", "sft_rl", "reflect_sft", "reflect_rl")]
    parts += [episodes(decoding="greedy"), episodes(horizon=15), episodes(split="train")]
    table = tables.main_table(pd.concat(parts), CEILINGS, found)
    compared = tables.matching(table, horizon=20, split="test", decoding="sampled").set_index("variant")["validation"]
    assert compared.dropna().to_dict() == pytest.approx(
        {"sft_only": 0.2, "sft_rl": 0.7, "reflect_sft": 0.3, "reflect_rl": 0.7}
    )
    assert table["validation"].notna().sum() == 4 and len(table) == len(parts)


@pytest.mark.parametrize("repeats", [1, 10])
def test_one_seed_is_as_uncertain_as_its_tasks_are_few(repeats):
    row = tables.main_table(episodes(success=[(1, 0, 1, 1)], repeats=repeats), CEILINGS).iloc[0]
    assert (row["n_tasks"], row["ci_low"], row["ci_high"]) == (4, *wilson(2.25, 3, df=3))


def test_the_interval_of_several_seeds_is_over_seeds_and_tasks():
    success = np.array([(1, 0), (1, 1), (1, 0), (1, 0), (0, 0)])
    row = tables.main_table(episodes(success=success), CEILINGS).iloc[0]
    assert (row["success"], row["ci_low"], row["ci_high"]) == rate_interval(success)


def test_all_or_no_successes_are_as_uncertain_as_the_tasks_are_few():
    rows = pd.concat([episodes(success=np.ones((5, 25))), episodes("rl_only", success=np.zeros((5, 3)))])
    bounds = tables.main_table(rows, CEILINGS).set_index("variant")[["ci_low", "ci_high"]]
    assert tuple(bounds.loc["reflect_rl"]) == wilson(25, 25) and tuple(bounds.loc["rl_only"]) == wilson(0, 3)


@pytest.mark.parametrize(
    "elsewhere",
    [{"decoding": "greedy"}, {"horizon": 15}, {"split": "validation"}, {"setting": "pickup"}, {"target": "oracle"}],
)
def test_the_papers_numbers_stand_only_where_they_belong(elsewhere):
    table = tables.main_table(pd.concat([episodes(), episodes(**elsewhere)]), CEILINGS)
    assert table["paper"].notna().sum() == 1


def test_main_table_leaves_unknown_ceilings_empty():
    assert tables.main_table(episodes(horizon=15), CEILINGS)["ceiling"].isna().all()


def test_main_table_sorts_by_protocol_and_then_in_the_order_of_the_variants():
    variants = ["reflect_rl", "random", "reflect_rl_no_negatives", "sft_only"]
    parts = [episodes(name, decoding=decoding) for decoding in ("sampled", "greedy") for name in variants]
    table = tables.main_table(pd.concat(parts), CEILINGS)
    assert table["decoding"].tolist() == ["greedy"] * 4 + ["sampled"] * 4
    assert table["variant"].tolist() == ["random", "sft_only", "reflect_rl", "reflect_rl_no_negatives"] * 2


def test_regimes_are_rows_of_their_own_in_the_order_of_the_results():
    limited = [episodes(regime=f"limited-{n}", reflections=n, success=[(1, 1)]) for n in (100, 50)]
    parts = [*limited, episodes(regime="paper"), episodes("random", regime="paper", target=None, tells=None)]
    table = tables.main_table(pd.concat(parts), CEILINGS.assign(regime="paper"))
    assert table["regime"].tolist() == ["limited-100", "limited-50", "paper", "paper"]
    assert table["reflections"].tolist()[:2] == [100, 50] and table["reflections"][2:].isna().all()
    assert table["success"].tolist() == [1, 1, 0.75, 0.75]
    assert table["ceiling"].notna().tolist() == [False, False, True, True]


def test_rows_do_not_depend_on_each_other():
    success = np.random.default_rng(0).integers(2, size=(5, 8))
    alone = tables.main_table(episodes(success=success), CEILINGS)
    among = tables.main_table(pd.concat([episodes("sft_rl"), episodes(success=success)]), CEILINGS)
    pd.testing.assert_frame_equal(among.iloc[[1]].reset_index(drop=True), alone)


def test_an_unknown_variant_is_named():
    with pytest.raises(ReflectRLError, match="unknown variant .*reflekt.*choose among: random"):
        tables.main_table(episodes("reflekt"), CEILINGS)


def test_the_seed_table_shows_the_spread_between_seeds():
    rows = pd.concat([episodes(success=[(0, 0), (0, 1), (1, 1)]), episodes("prompted", success=[(1, 0)])])
    table = tables.seed_table(rows).set_index("variant")[["success", "seed_min", "seed_max", "seed_sd"]]
    assert tuple(table.loc["reflect_rl"]) == (0.5, 0, 1, 0.5)
    assert tuple(table.loc["prompted"])[:3] == (0.5, 0.5, 0.5) and np.isnan(table.loc["prompted", "seed_sd"])


def test_reflector_table_averages_seeds_not_prompts():
    marks = [(0, "wrong", 1, 1, 0), (0, "wrong", 1, 0, 0), (0, "wrong", 1, 0, 0), (1, "wrong", 0, 1, 1)]
    marks += [(0, "start", 1, np.nan, 0), (1, "start", 1, np.nan, 0)]
    columns = ["seed", "situation", "names_best", "judges_right", "names_fatal"]
    raw = pd.DataFrame(marks, columns=columns).assign(env="taxi", regime="", variant="reflect_rl", phase="to passenger")
    raw["facts_right"] = [0.5, 1, 0, 1, 1, 1]
    table = tables.reflector_table(raw)
    assert list(table) == [
        *("env", "regime", "variant", "situation", "n_seeds", "n_prompts"),
        *("names_best", "names_best_low", "names_best_high"),
        *("judges_right", "judges_right_low", "judges_right_high"),
        *("facts_right", "facts_right_low", "facts_right_high", "names_fatal"),
    ]
    assert table["situation"].tolist() == ["start", "wrong"]
    start, wrong = (row for _, row in table.iterrows())
    assert np.isnan(start["judges_right"])
    assert (wrong["n_seeds"], wrong["n_prompts"]) == (2, 4)
    assert (wrong["names_best"], wrong["names_best_low"], wrong["names_best_high"]) == (0.5, 0, 1)
    assert (wrong["judges_right"], wrong["names_fatal"]) == (pytest.approx(2 / 3), 0.5)
    assert wrong["facts_right"] == 0.75


def test_the_headline_says_how_much_stands_behind_a_row():
    rows = pd.concat([episodes(success=[(1, 0), (1, 1)]), episodes("prompted", success=[(0, 0)])])
    table = tables.headline(tables.main_table(rows, CEILINGS), "taxi", "full").set_index("variant")
    assert table["seeds x tasks"].to_dict() == {"Reflect-RL": "2 x 2", "Prompted": "1 x 2"}
    assert table.loc["Reflect-RL", "sampled, 20 steps"] == "0.750 (0.010-0.999)"
    assert table["paper (secondary source)"].to_dict() == {"Reflect-RL": "0.58 (GPT-2 XL)", "Prompted": ""}


def test_online_rl_is_from_the_first_to_the_last_measurement():
    rows = [
        (variant, seed, steps, value)
        for variant, values in (("sft_rl", (0.1, 0.9)), ("rl_only", (0.0, 0.0)))
        for seed in (0, 1)
        for steps, value in ((0, values[0]), (50, np.nan), (100, values[1] + seed / 10))
    ]
    table = tables.online_rl_table(pd.DataFrame(rows, columns=["variant", "seed", "env_steps", "val_success"]))
    assert table["variant"].tolist() == ["rl_only", "sft_rl"]
    assert table.loc[1].tolist()[1:] == pytest.approx([0.1, 0.1, 0.1, 0.95, 0.9, 1.0])


def test_rows_are_in_the_order_of_the_study():
    raw = pd.DataFrame({"env": "taxi", "variant": ["sft_rl", "rl_only", "sft_rl"], "seed": [1, 0, 0]})
    table = tables.ordered(raw, ["env", "variant", "seed"])
    assert table[["variant", "seed"]].values.tolist() == [["rl_only", 0], ["sft_rl", 0], ["sft_rl", 1]]


def test_write_table_gives_rates_in_csv_and_per_cent_in_markdown_with_the_protocol(tmp_path):
    frame = pd.DataFrame({"variant": ["a", "b"], "n_seeds": [5, 1], "success": [1 / 3, np.nan]})
    tables.write_table(frame, tmp_path / "tables" / "main.v1", "Main results", "Split test, horizon 20.")
    folder = tmp_path / "tables"
    assert (folder / "main.v1.csv").read_text() == "variant,n_seeds,success\na,5,0.3333\nb,1,\n"
    text = (folder / "main.v1.md").read_text()
    assert text.startswith("# Main results\n\n| variant ")
    assert "33.3" in text and "nan" not in text
    assert text.endswith("Rates in per cent. Empty where unknown or not tested. Split test, horizon 20.\n")
    assert sorted(file.name for file in folder.iterdir()) == ["main.v1.csv", "main.v1.md"]


def test_write_table_to_an_impossible_place_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReflectRLError, match="cannot write .*main.csv") as error:
        tables.write_table(pd.DataFrame({"a": [1]}), tmp_path / "file" / "main", "Main", "")
    assert "\n" not in str(error.value)


def test_readable_names_variants_as_figures_do_and_leaves_unknown_cells_empty():
    rows = pd.DataFrame({"variant": ["sft_rl"], "comparison": ["reflect_rl vs sft_rl"], "target": ["oracle"], "n": 1})
    assert tables.readable(rows).iloc[0].tolist() == ["SFT + RL", "Reflect-RL - SFT + RL", "oracle", 1]
    by_both = tables.readable(rows.set_index(["variant", "target"])[["n"]])
    assert by_both.index.tolist() == [("SFT + RL", "oracle")]
    wide = tables.readable(rows.pivot_table(index="target", columns="variant", values="n"))
    assert wide.columns.tolist() == ["SFT + RL"] and wide.index.tolist() == ["oracle"]
    assert tables.readable(pd.DataFrame({"n": [1.5, np.nan], "m": [1, 2]})).to_numpy().tolist() == [[1.5, 1], ["", 2]]
    assert tables.readable(pd.DataFrame({"comparison": ["sft_rl vs mine", None]}))["comparison"].tolist() == [
        "SFT + RL - mine",
        "",
    ]
