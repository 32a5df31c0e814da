"""What the figures that compare regimes draw, on episodes and learning curves that are made up."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from test_regimes import SUCCESS, episodes

from reflect_rl.report import maps, regimes, style, tables

CEILINGS = pd.DataFrame(columns=["env", "regime", "setting", "split", "horizon", "ceiling"]).astype({"horizon": int})
GRID = [("paper", None, "action"), ("few-50", 50, "action"), ("few-800", 800, "action"), ("few-50-hint", 50, "hint")]


def played(grid=GRID, success=None):
    return pd.concat([episodes(success, regime=name, reflections=n, tells=tells) for name, n, tells in grid])


def main(found, ceiling=1.0):
    known = found[["env", "regime", "setting", "split", "horizon"]].drop_duplicates().assign(ceiling=ceiling)
    return tables.main_table(found, known)


def training(grid=GRID):
    rows = [
        {"env": "taxi", "regime": name, "variant": variant, "seed": seed, "env_steps": steps}
        | {"val_success": 0.2 + steps / 1000 + 0.1 * seed + (number or 1000) / 10000}
        for name, number, _ in grid
        for variant in ("reflect_rl", "sft_rl")
        for seed in (0, 1)
        for steps in (0, 100, 200)
    ]
    return pd.DataFrame(rows)


def all_figures(found, curves):
    return maps.figures(main(found), regimes.parts_table(found), curves)


def arrows(axis):
    """(number before RL, success before, success after) of each arrow of the map, and its colour."""
    return {(round(t.xyann[1], 3), round(t.xy[1], 3), to_hex(t.arrow_patch.get_edgecolor())) for t in axis.texts}


def test_the_map_has_an_arrow_from_before_to_after_rl_for_both_arms_and_every_number():
    axes = maps.success_map(main(played())).axes
    assert [axis.get_title() for axis in axes] == [
        "The policy imitates executed actions;\nreflections name the action",
        "The policy imitates executed actions;\nreflections give a hint",
    ]
    green, blue = style.COLOURS["sft_rl"], style.COLOURS["reflect_rl"]
    assert [len(axis.texts) for axis in axes] == [6, 2]
    assert arrows(axes[0]) == arrows(axes[1]) == {(0, 0.5, green), (0.333, 0.5, blue)}
    assert axes[0].get_xscale() == "log"


def test_no_limit_stands_at_the_right_end_of_all_numbers():
    axis = maps.success_map(main(played())).axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["50", "800", "all"]
    assert sorted(axis.get_xticks()) == axis.get_xticks().tolist()
    drawn = sorted(t.xy[0] for t in axis.texts)
    for place, pair in zip(axis.get_xticks(), np.reshape(drawn, (3, 2)), strict=True):
        assert pair == pytest.approx(place, rel=0.3) and pair[0] < pair[1]


def test_names_of_near_numbers_do_not_collide():
    grid = [(f"few-{n}", n, "action") for n in (50, 55, 60, 1500, 1600)]
    axis = maps.success_map(main(played(grid))).axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["", "", "60", "", "1.6k"]


def test_what_was_not_evaluated_is_not_drawn():
    lacking = played().query("not (variant == 'sft_only' and regime == 'paper') and variant != 'reflect_sft'")
    (axis, hint) = maps.success_map(main(lacking, np.nan)).axes
    assert (len(axis.texts), len(hint.texts)) == (2, 1)  # of SFT + RL with 50 and 800 examples, and with 50
    legend = [text.get_text() for text in axis.figure.legends[0].texts]
    assert "ceiling" not in legend and "before RL" in legend


def test_own_parts_are_two_curves_whose_line_ends_at_the_largest_number():
    figure = maps.own_parts(regimes.parts_table(played()))
    assert [axis.get_ylabel() for axis in figure.axes] == ["Difference in test success\n(percentage points)", ""]
    lines = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    curves = {to_hex(line.get_color()): line.get_ydata().tolist() for line in lines if line.get_linewidth() > 1}
    assert curves == {
        style.INK: pytest.approx([100 / 6] * 2),
        "#a50f15": pytest.approx([0, 0]),
    }
    assert [len(bar[0].get_xdata()) for bar in figure.axes[0].containers] == [3, 3]


def test_costs_draw_a_curve_for_each_number_from_before_rl_and_one_without_reflections():
    figure = maps.costs(training(), main(played()))
    action, hint = figure.axes
    solid = [line for line in action.get_lines() if line.get_linestyle() == ":" and line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in solid] == pytest.approx([0.255, 0.33, 0.35])
    assert all(line.get_xdata()[0] == 0 for line in solid)
    for axis, ends in (
        (action, [0.35, 0.55]),
        (hint, [0.255, 0.455]),
    ):  # of the regime of the panel with the most examples
        (dashed,) = (line for line in axis.get_lines() if line.get_linestyle() == "--")
        assert dashed.get_ydata()[[0, -1]] == pytest.approx(ends)
    assert [text.get_text() for text in figure.legends[0].texts] == [
        *(
            "50 reflections",
            "800 reflections",
            "all reflections",
            "none: SFT + RL",
            "95% interval over seeds, at the end",
        ),
    ]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("grid", [GRID[:1], GRID[1:2], GRID[:2], GRID], ids=len)
def test_every_number_of_regimes_can_be_drawn(grid, tmp_path):
    made = all_figures(played(grid), training(grid))
    assert list(made) == ["map", "parts", "costs"] == list(maps.CAPTIONS)[:3]
    for name, figure in made.items():
        assert len(figure.axes) == len({tells for _, _, tells in grid})
        assert all(axis.lines for axis in figure.axes)
        style.save(figure, tmp_path / name, "a test", maps.CAPTIONS[name])
        assert maps.CAPTIONS[name].encode() in (tmp_path / f"{name}.svg").read_bytes().replace(b"&apos;", b"'")


def test_figures_of_nothing_are_left_out():
    found = played(success={"reflect_rl": SUCCESS["reflect_rl"]})
    assert list(all_figures(found, training())) == ["map", "costs"]
    none = training().assign(val_success=np.nan)
    assert list(all_figures(found.assign(horizon=3), none)) == []


def test_a_caption_says_what_is_drawn_and_what_to_look_at():
    assert all(re.fullmatch(r"[^.]*(?:\.\d[^.]*)*\. Look at [^.]*\.", text) for text in maps.CAPTIONS.values())


def test_success_along_a_setting_has_a_curve_for_each_variant_with_two_values():
    short = {"reflect_rl": [(0, 0, 1), (0, 1, 0)]}
    found = pd.concat([episodes(), episodes(short, regime="short"), episodes(regime="other")])
    values = {("short", "reflect_rl"): 100, ("paper", "reflect_rl"): 2000, ("paper", "sft_rl"): 2000}
    figure = maps.success_along(main(found), values, "Warm-up")
    (axis,) = figure.axes
    (curve,) = axis.containers
    assert curve.lines[0].get_ydata().tolist() == pytest.approx([1 / 3, 0.5])
    assert to_hex(curve.lines[0].get_color()) == style.COLOURS["reflect_rl"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["100", "2k"]
    assert maps.success_along(main(episodes()), values, "Warm-up") is None


def test_shares_of_random_actions_are_drawn_too():
    found = pd.concat([episodes(), episodes(regime="noisy")])
    values = {(regime, "sft_rl"): share for regime, share in (("paper", 0.5), ("noisy", 0.9))}
    (axis,) = maps.success_along(main(found), values, "Random actions").axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.5", "0.9"]
