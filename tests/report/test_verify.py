import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_results import SMALL, copy_small

from reflect_rl.cli.main import main as command
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.report import verify


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A project with the results of `SMALL` alone: where they lie."""
    results = copy_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFLECT_RL_HOME", raising=False)
    return results


def edit(path: Path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow
def test_committed_results_come_out_of_their_raw_episodes():
    found = dict(verify.verify_each(verify.committed(), processes=2))
    assert {"study", "laptop"} <= found.keys()
    assert not any(found.values())


@pytest.mark.slow
def test_each_kind_of_change_is_named_and_the_command_fails(copied, capsys):
    figures = copied.parents[1] / "figures" / SMALL
    table = pd.read_csv(copied / "tables" / "main.csv", dtype=str, keep_default_na=False)
    row = table.index[table["success"] == "0.7"][0]
    table.loc[row, "success"] = "0.8"
    table.to_csv(copied / "tables" / "main.csv", index=False)
    edit(copied / "tables" / "seeds.md", "| Random", "| Rando")
    (copied / "tables" / "runs.md").unlink()
    (copied / "tables" / "mine.md").write_text("# Made by hand\n")
    (copied / "summary.csv").write_text("success\n1.0\n")
    picture = np.array(Image.open(figures / "taxi_main_results.png"))
    marks = np.argwhere(np.abs(picture[..., :3].astype(int) - (0, 114, 178)).max(axis=-1) < 8)  # Reflect-RL's
    y, x = marks[len(marks) // 2]
    picture[y - 8 : y + 8, x - 8 : x + 8] = 255  # one of them is taken away
    Image.fromarray(picture).save(figures / "taxi_main_results.png")
    edit(figures / "taxi_main_results.svg", "#DejaVuSans-35", "#DejaVuSans-39")
    (figures / "taxi_training_curves.png").write_bytes(b"no picture")
    edit(copied / "taxi_episodes.json", '"ended": "', '"ended": "not ')
    assert command(["verify", SMALL]) == 1
    said = capsys.readouterr().out
    for named in (
        f"results/{SMALL}/tables/main.csv: row {row + 1} (taxi",
        "success: 0.8, made anew 0.7",
        f"results/{SMALL}/tables/seeds.md: line ",
        f"results/{SMALL}/tables/runs.md: is missing",
        f"results/{SMALL}/tables/mine.md: is made by nothing",
        f"results/{SMALL}/summary.csv: is made by nothing",
        f"figures/{SMALL}/taxi_main_results.png: drawn anew it looks different",
        f"figures/{SMALL}/taxi_main_results.svg: drawn anew it is another drawing",
        f"figures/{SMALL}/taxi_training_curves.png: cannot be read: ",
        f"results/{SMALL}/taxi_episodes.json: reflect_rl seed 0 on ",
    ):
        assert named in said


def test_changed_and_missing_episodes_are_named(copied):
    file = f"results/{SMALL}/episodes.csv.gz"
    episodes = pd.read_csv(copied / "episodes.csv.gz", dtype=str, keep_default_na=False)
    whole = episodes.groupby("variant").size()
    kept = episodes[
        (episodes["variant"] != "sft_only") & ~((episodes["variant"] == "sft_rl") & (episodes["horizon"] == "15"))
    ]
    kept = kept.assign(success=kept["success"].mask(kept["variant"] == "follow", "1"))
    kept.to_csv(copied / "episodes.csv.gz", index=False)
    assert {*verify.of_rows(SMALL)} == {
        (file, "rows of taxi follow seed 0 are not those collected"),
        (file, "rows of taxi sft_rl seed 0 are not those collected"),
        (file, "rows of taxi sft_only seed 0 are missing"),
    }
    rest = (kept["variant"] == "sft_rl").sum()
    assert {*verify.of_runs(SMALL)} == {
        (file, f"0 of {whole['sft_only']} episodes of taxi sft_only seed 0"),
        (file, f"{rest} of {whole['sft_rl']} episodes of taxi sft_rl seed 0"),
    }


def test_other_settings_than_the_profiles_and_other_environments_are_named(copied):
    file = f"results/{SMALL}/manifest.json"
    manifest = json.loads((copied / "manifest.json").read_text())
    settings = manifest["environments"]["taxi"]["regimes"][""]["settings"]
    settings["reflect_rl"]["rl"]["entropy"] = 0.5
    del settings["sft_rl"]["policy"]
    manifest["environments"]["chess"] = manifest["environments"]["taxi"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert [*verify.of_runs(SMALL)] == [
        (file, "results of chess, which the profile does not run"),
        (file, "taxi sft_rl was made with other settings: policy"),
        (file, "taxi reflect_rl was made with other settings: rl.entropy"),
    ]


@pytest.mark.parametrize("damage", [lambda text: text + text.splitlines(keepends=True)[1], lambda text: text[4:]])
def test_damaged_checksums_are_named(copied, damage):
    (copied / "checksums.csv").write_text(damage((copied / "checksums.csv").read_text()))
    ((file, what),) = verify.of_rows(SMALL)
    assert file == f"results/{SMALL}/checksums.csv" and what.startswith(
        "should have one row a run and the columns env,"
    )
    (copied / "checksums.csv").unlink()
    with pytest.raises(ReflectRLError, match="cannot be read"):
        [*verify.of_rows(SMALL)]


@pytest.mark.parametrize(
    ("alike", "one", "other", "are_alike"),
    [
        (verify.alike, "0.950 (0.930-0.970)", "0.951 (0.930-0.970)", True),
        (verify.alike, "0.950 (0.930-0.970)", "0.952 (0.930-0.970)", False),
        (verify.alike, "1,024 steps", "1,025 steps", False),
        (verify.alike, "reproduced: +9.1", "undecided: +9.1", False),
        (verify.alike, "", "0.1", False),
        (verify.alike_cells, "0.7", "0.8", False),  # cells of a CSV end without zeros
        (verify.alike_cells, "0.85", "0.8501", True),
        (verify.alike_cells, "0.85", "0.8502", False),
        (verify.alike_cells, "20", "21", False),
        (verify.alike_cells, "1.0", "1", True),
    ],
)
def test_numbers_may_differ_by_one_in_the_last_digit_and_counts_may_not(alike, one, other, are_alike):
    assert alike(one, other) == are_alike


def main(**changes):
    """A main table: oracle, random play and an arm, at one setting and horizon."""
    rows = [("oracle", 0.9, 0.9, 0.9), ("random", 0.12, 0.1, 0.2), ("reflect_rl", 0.8, 0.7, 0.9)]
    table = pd.DataFrame(rows, columns=["variant", "success", "ci_low", "ci_high"])
    table = table.assign(
        env="taxi", regime="", setting="full", split="test", horizon=20, decoding="greedy", ceiling=0.9
    )
    for column, (variant, value) in changes.items():
        table.loc[table.variant == variant, column] = value
    return table


def test_a_sound_table_is_described_with_the_success_of_random_play():
    assert verify.check_main(main()) == [
        "3 of 3 rates have a ceiling, and none exceeds it",
        "the oracle reaches the ceiling everywhere",
        "random play finishes 12.0% of the tasks of taxi",
    ]


def test_without_an_oracle_there_is_less_to_check():
    table = main().query("variant == 'reflect_rl'").assign(ceiling=float("nan"))
    assert verify.check_main(table) == ["0 of 1 rates have a ceiling, and none exceeds it"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"success": ("reflect_rl", 0.95), "ci_high": ("reflect_rl", 1.0)},
            "above the ceiling: taxi full 20 greedy reflect_rl",
        ),
        ({"ci_high": ("reflect_rl", 0.75)}, "outside its interval: taxi full 20 greedy reflect_rl 0.8"),
        ({"success": ("oracle", 0.8), "ci_low": ("oracle", 0.8)}, "of the oracle and not at the ceiling: taxi"),
    ],
)
def test_what_cannot_be_is_named(changes, complaint):
    with pytest.raises(ReflectRLError, match=complaint):
        verify.check_main(main(**changes))
