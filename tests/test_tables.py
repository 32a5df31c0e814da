import numpy as np
import pandas as pd
import pytest

from reflect_rl import tables
from reflect_rl.errors import ReflectRLError
from reflect_rl.stats import wilson

KEYS = {"env": "taxi", "setting": "full", "split": "test", "horizon": 20, "decoding": "sampled"}
CEILINGS = pd.DataFrame([{"env": "taxi", "setting": "full", "split": "test", "horizon": 20, "ceiling": 0.9}])


def episodes(variant="reflect_rl", success=((1, 0), (1, 1)), repeats=1, **keys):
    """Episodes with `success` of each seed (row) and task (column), alike in every repeat."""
    rows = [
        {**KEYS, "variant": variant, "model": "tiny", **keys, "seed": seed, "task": f"full-{task}"}
        | {"repeat": repeat, "success": value, "return": 0.5, "steps": 9, "ended": "success", "provenance": "here"}
        for seed, of_seed in enumerate(success)
        for task, value in enumerate(of_seed)
        for repeat in range(repeats)
    ]
    return pd.DataFrame(rows)[tables.EPISODE_COLUMNS]


def test_scores_are_seeds_by_tasks_in_sorted_order_and_means_over_repeats():
    rows = episodes(success=[(1, 0, 0), (0, 1, 0)], repeats=2)
    rows.loc[(rows["seed"] == 1) & (rows["task"] == "full-2") & (rows["repeat"] == 0), "success"] = 1
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(tables.scores(shuffled), [[1, 0, 0], [0, 1, 0.5]])


def test_scores_refuse_a_seed_that_lacks_a_task_and_name_it():
    with pytest.raises(ReflectRLError, match=r"taxi full .* seeds \[1\] lack episodes"):
        tables.scores(episodes(success=[(1, 0), (1, 1), (0, 0)]).drop(index=2))


def test_intervals_between_seeds_replace_those_within_where_there_are_several_seeds():
    rows = pd.concat([episodes(success=[(1,) * 8, (0,) * 8, (1,) * 8]), episodes("sft_only", success=[(1, 0) * 4])])
    main = tables.main_table(rows, CEILINGS)
    shown = tables.with_seed_intervals(main, rows)
    assert list(shown.columns) == list(main.columns) and len(shown) == len(main) == 2
    by_variant, plain = shown.set_index("variant"), main.set_index("variant")
    assert by_variant.success.to_dict() == plain.success.to_dict()
    between = tables.interval_table(rows).set_index("variant").loc["reflect_rl"]
    assert tuple(by_variant.loc["reflect_rl", ["ci_low", "ci_high"]]) == (between.seed_low, between.seed_high)
    assert tuple(by_variant.loc["sft_only", ["ci_low", "ci_high"]]) == tuple(
        plain.loc["sft_only", ["ci_low", "ci_high"]]
    )


def test_prompts_are_summed_over_seeds_and_the_longest_kept():
    rows = [
        ["taxi", "sft_rl", 0, 10, 40, 95, 0],
        ["taxi", "sft_rl", 1, 5, 99, 95, 1],
        ["taxi", "sft_only", 0, 2, 7, 95, 0],
    ]
    table = tables.prompt_table(
        pd.DataFrame(rows, columns=["env", "variant", "seed", "prompts", "longest", "limit", "shortened"])
    )
    assert table.to_dict("split")["data"] == [
        ["taxi", "sft_only", 1, 2, 7, 95, 0],
        ["taxi", "sft_rl", 2, 15, 99, 95, 1],
    ]


def test_scores_refuse_mixed_rows():
    mixed = pd.concat([episodes(), episodes(decoding="greedy")])
    with pytest.raises(ReflectRLError, match="one decoding, found: sampled, greedy"):
        tables.scores(mixed)


def test_main_table_keeps_its_column_contract():
    assert ",".join(tables.main_table(episodes(), CEILINGS)) == (
        "env,setting,split,horizon,decoding,variant,model,n_seeds,n_tasks,n_episodes,"
        "success,ci_low,ci_high,ceiling,paper"
    )


def test_main_table_row_by_hand():
    row = tables.main_table(episodes(success=[(1, 0), (1, 1)], repeats=3), CEILINGS).iloc[0]
    assert (row["n_seeds"], row["n_tasks"], row["n_episodes"]) == (2, 2, 12)
    assert row["success"] == 0.75
    assert (row["ci_low"], row["ci_high"]) == (0.5, 1.0)  # only the second task varies between seeds
    assert (row["ceiling"], row["paper"]) == (0.9, 0.58)


def test_main_table_gives_wilson_intervals_to_a_single_seed():
    row = tables.main_table(episodes(success=[(1, 0, 1, 1)]), CEILINGS).iloc[0]
    assert (row["ci_low"], row["ci_high"]) == wilson(3, 4)


@pytest.mark.parametrize(
    "elsewhere", [{"decoding": "greedy"}, {"horizon": 15}, {"split": "validation"}, {"setting": "pickup"}]
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


def test_rows_do_not_depend_on_each_other():
    success = np.random.default_rng(0).integers(2, size=(5, 8))
    alone = tables.main_table(episodes(success=success), CEILINGS)
    among = tables.main_table(pd.concat([episodes("sft_rl"), episodes(success=success)]), CEILINGS)
    pd.testing.assert_frame_equal(among.iloc[[1]].reset_index(drop=True), alone)


def test_an_unknown_variant_is_named():
    with pytest.raises(ReflectRLError, match="unknown variant .*reflekt.*choose among: random"):
        tables.main_table(episodes("reflekt"), CEILINGS)


def test_interval_table_shows_the_spread_between_seeds():
    row = tables.interval_table(episodes(success=[(0, 0), (0, 0), (1, 1), (1, 1)])).iloc[0]
    assert (row["seed_min"], row["seed_max"]) == (0, 1)
    assert row["seed_high"] - row["seed_low"] >= row["stratified_high"] - row["stratified_low"]


def test_claims_table_pairs_seeds_and_judges():
    better = episodes(success=[(1, 1), (1, 0), (1, 1)])
    worse = episodes("sft_only", success=[(0, 1), (0, 0), (0, 0)])
    table = tables.claims_table(pd.concat([better, worse]))
    assert list(table) == [*("claim", "env", "setting", "comparison", "effect", "ci_low", "ci_high", "verdict")]
    assert table["claim"].tolist() == [1]
    row = table.iloc[0]
    assert row["comparison"] == "reflect_rl vs sft_only"
    assert row["effect"] == pytest.approx(2 / 3)
    assert (row["ci_low"], row["ci_high"]) == (0.5, 1.0)
    assert row["verdict"] == "reproduced"


def test_claims_need_sampled_test_episodes_at_horizon_20_of_both_variants():
    both = [episodes(name, horizon=15) for name in ("reflect_rl", "sft_only")]
    table = tables.claims_table(pd.concat([*both, episodes()]))
    assert table.empty
    assert list(table)[0] == "claim"


def test_claims_from_one_seed_are_inconclusive():
    table = tables.claims_table(pd.concat([episodes(success=[(1, 1)]), episodes("rl_only", success=[(0, 0)])]))
    assert table[["claim", "effect", "verdict"]].values.tolist() == [[2, 1.0, "inconclusive"]]
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_claims_use_the_seeds_that_both_variants_have():
    better, worse = episodes(success=[(1, 1), (1, 1), (0, 0)]), episodes("sft_rl", success=[(0, 0), (1, 1)])
    assert tables.claims_table(pd.concat([better, worse])).loc[0, "effect"] == 0.5


def test_claims_refuse_different_tasks():
    worse = episodes("sft_rl").assign(task=lambda rows: rows["task"] + "0")
    with pytest.raises(ReflectRLError, match="taxi full reflect_rl vs sft_rl: no common seeds and tasks"):
        tables.claims_table(pd.concat([episodes(), worse]))


def test_reflector_table_averages_seeds_not_prompts():
    marks = [(0, "wrong", 1, 1, 0), (0, "wrong", 1, 0, 0), (0, "wrong", 1, 0, 0), (1, "wrong", 0, 1, 1)]
    marks += [(0, "start", 1, np.nan, 0), (1, "start", 1, np.nan, 0)]
    columns = ["seed", "situation", "names_best", "judges_right", "names_fatal"]
    raw = pd.DataFrame(marks, columns=columns).assign(env="taxi", variant="reflect_rl", phase="to passenger")
    table = tables.reflector_table(raw)
    assert list(table) == [
        *("env", "variant", "situation", "n_seeds", "n_prompts"),
        *("names_best", "names_best_low", "names_best_high"),
        *("judges_right", "judges_right_low", "judges_right_high", "names_fatal"),
    ]
    assert table["situation"].tolist() == ["start", "wrong"]
    start, wrong = (row for _, row in table.iterrows())
    assert np.isnan(start["judges_right"])
    assert (wrong["n_seeds"], wrong["n_prompts"]) == (2, 4)
    assert (wrong["names_best"], wrong["names_best_low"], wrong["names_best_high"]) == (0.5, 0, 1)
    assert (wrong["judges_right"], wrong["names_fatal"]) == (pytest.approx(2 / 3), 0.5)


def test_run_table_follows_the_order_of_variants_and_seeds():
    raw = pd.DataFrame({"env": "taxi", "variant": ["sft_rl", "rl_only", "sft_rl"], "seed": [1, 0, 0]})
    table = tables.run_table(raw)
    assert table[["variant", "seed"]].values.tolist() == [["rl_only", 0], ["sft_rl", 0], ["sft_rl", 1]]


def test_write_table_gives_rates_in_csv_and_per_cent_in_markdown_with_the_protocol(tmp_path):
    frame = pd.DataFrame({"variant": ["a", "b"], "n_seeds": [5, 1], "success": [1 / 3, np.nan]})
    tables.write_table(frame, tmp_path / "tables" / "main.v1", "Main results", "Split test, horizon 20.")
    folder = tmp_path / "tables"
    assert (folder / "main.v1.csv").read_text() == "variant,n_seeds,success\na,5,0.3333\nb,1,\n"
    text = (folder / "main.v1.md").read_text()
    assert text.startswith("# Main results\n\n| variant ")
    assert "33.3" in text and "nan" not in text
    assert text.endswith("Rates in per cent. Empty where unknown. Split test, horizon 20.\n")
    assert sorted(file.name for file in folder.iterdir()) == ["main.v1.csv", "main.v1.md"]


def test_write_table_to_an_impossible_place_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReflectRLError, match="cannot write .*main.csv") as error:
        tables.write_table(pd.DataFrame({"a": [1]}), tmp_path / "file" / "main", "Main", "")
    assert "\n" not in str(error.value)
