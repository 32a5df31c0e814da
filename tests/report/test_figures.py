import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.base import Drawing
from reflect_rl.report import comparisons, curves, style, tables
from reflect_rl.report.film import film_strip
from reflect_rl.report.forest import forest
from reflect_rl.report.rule import Rule

KEYS = {"env": "taxi", "regime": "", "setting": "full", "split": "test", "horizon": 20, "decoding": "sampled"}
DATA = {"reflections": None, "target": "executed", "tells": "action"}
CEILINGS = pd.DataFrame(
    [
        {"env": "taxi", "regime": "", "setting": "full", "split": split, "horizon": 20, "ceiling": ceiling}
        for split, ceiling in (("test", 1.0), ("validation", 0.95))
    ]
)


def episodes(variants):
    rng = np.random.default_rng(0)
    rows = [
        {**KEYS, **DATA, "variant": variant, "model": "tiny", "seed": seed, "task": f"full-{task}", "repeat": 0}
        | {"success": int(rng.random() < 0.6), "return": 0.0, "steps": 9, "ended": "horizon", "provenance": "here"}
        for variant in variants
        for seed in range(3)
        for task in range(10)
    ]
    return pd.DataFrame(rows)


def training(change_steps=(200, 250)):
    """Two seeds of Reflect-RL whose full task begins after `change_steps` environment steps."""
    rows = [
        {"env": "taxi", "variant": "reflect_rl", "seed": seed, "update": update, "env_steps": steps}
        | {"stage": "pickup" if steps <= change else "full", "episode_length": 8.0, "entropy": 1.0}
        | {"val_success": 0.2 + 0.4 * seed if update % 2 == 0 else np.nan}
        for seed, change in enumerate(change_steps)
        for update, steps in enumerate(range(50, 601, 50))
    ]
    return pd.DataFrame(rows)


def reflector():
    situations = ["start", "right", "wrong"]
    frame = pd.DataFrame({"env": "taxi", "variant": "reflect_rl", "situation": situations, "names_best": 0.9})
    frame = frame.assign(judges_right=[np.nan, 0.8, 0.7], names_fatal=0.0)
    for mark in ("names_best", "judges_right"):
        frame[f"{mark}_low"], frame[f"{mark}_high"] = frame[mark] - 0.1, frame[mark] + 0.05
    return pd.concat([frame, frame.assign(variant="reflect_rl_no_negatives")], ignore_index=True)


def frames(count=2):
    steps = [{"observation": "OBSERVED", "reflection": "Go north.", "action": "move north", "reward": -0.05}]
    return steps * (count - 1) + [{"observation": "OBSERVED", "reflection": "", "action": "", "reward": 0.0}]


FIGURES = {
    "training_curves": lambda: curves.training_curves(training(), CEILINGS, 20),
    "main_results": lambda: comparisons.main_results(
        tables.main_table(episodes(["random", "sft_rl", "reflect_rl"]), CEILINGS)
    ),
    "ablations": lambda: comparisons.ablations(episodes(comparisons.ABLATIONS)),
    "reflector_effect": lambda: comparisons.reflector_effect(reflector()),
    "film_strip": lambda: film_strip(frames(), "Reflect-RL, full-231"),
}


def lines_at(axis, value, horizontal):
    ends = [line.get_ydata() if horizontal else line.get_xdata() for line in axis.get_lines()]
    return [end for end in ends if len(end) == 2 and end[0] == end[1] == value]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_figure_saved_twice_gives_the_same_bytes(name, tmp_path):
    style.save(FIGURES[name](), tmp_path / "first", "notebooks/06_results.ipynb")
    style.save(FIGURES[name](), tmp_path / "second", "notebooks/06_results.ipynb")
    for kind in ("png", "svg"):
        first, second = (tmp_path / f"{which}.{kind}" for which in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
        assert b"notebooks/06_results.ipynb" in first.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_drawing_leaves_the_global_style_alone():
    before = {key: matplotlib.rcParams[key] for key in style.STYLE}
    FIGURES["ablations"]()
    assert before == {key: matplotlib.rcParams[key] for key in style.STYLE} != style.STYLE


def test_save_to_an_impossible_place_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReflectRLError, match="cannot write .*figure.png"):
        style.save(FIGURES["film_strip"](), tmp_path / "file" / "figure", "test")


def test_every_variant_has_one_colour_of_its_own():
    assert list(style.COLOURS) == list(VARIANTS)
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)


def test_training_curves_draw_the_mean_of_seeds_the_validation_ceiling_and_a_common_stage_change():
    success, entropy, length = curves.training_curves(training(), CEILINGS, 20).axes
    assert (success.get_ylabel(), entropy.get_ylabel(), length.get_ylabel()) == (
        *("Validation success (share)", "Policy entropy (nats)", "Episode length (steps)"),
    )
    np.testing.assert_allclose(success.get_lines()[0].get_ydata(), 0.4)
    assert lines_at(success, 0.95, horizontal=True)
    assert lines_at(length, 200, horizontal=False)


def test_stages_have_the_colour_of_the_one_variant_that_has_them():
    others = training().assign(variant="sft_rl", stage="full")
    success = curves.training_curves(pd.concat([training(), others]), CEILINGS, 20).axes[0]
    (mark,) = [line for line in success.get_lines() if [*line.get_xdata()] == [200, 200]]
    (said,) = success.texts
    assert mark.get_color() == said.get_color() == style.COLOURS["reflect_rl"] and said.get_text() == " full"


def test_training_curves_mark_no_stage_where_seeds_change_apart():
    success = curves.training_curves(training(change_steps=(100, 500)), CEILINGS, 20).axes[0]
    assert not lines_at(success, 100, horizontal=False)


def test_a_single_evaluation_shows_as_a_dot():
    success = curves.training_curves(training()[:2].query("seed == 0"), CEILINGS, 20).axes[0]
    dots = [line for line in success.get_lines() if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[50]]


def test_main_results_show_the_papers_numbers_as_hollow_diamonds():
    axis = FIGURES["main_results"]().axes[0]
    diamonds = [line.get_xdata()[0] for line in axis.get_lines() if line.get_marker() == "D"]
    assert sorted(diamonds) == [0.0, 0.58]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["Random", "SFT + RL", "Reflect-RL"]


def test_main_results_without_test_rows_say_what_is_missing():
    main = tables.main_table(episodes(["random"]).assign(split="validation"), CEILINGS)
    with pytest.raises(ReflectRLError, match="nothing to draw"):
        comparisons.main_results(main)


def test_every_panel_of_the_ablations_shows_all_of_its_seeds():
    found = episodes(comparisons.ABLATIONS)
    hard, easy = found.assign(setting="a hard one", success=0), found.assign(setting="an easy one", success=1)
    axes = comparisons.ablations(pd.concat([hard, easy, found])).axes
    assert len(axes) == 3 and len({axis.get_ylim() for axis in axes}) == 1  # what is compared has one scale
    for axis in axes:
        low, high = axis.get_ylim()
        assert high - low > 0.05 and high < 1.05
        clouds = [c for c in axis.collections if isinstance(c, PathCollection)]
        dots = [y for cloud in clouds for _, y in cloud.get_offsets()]
        assert dots and all(low < y < high for y in dots)


def test_ablations_draw_a_dot_for_every_seed_in_the_colour_of_the_variant():
    clouds = FIGURES["ablations"]().axes[0].collections
    dots = [cloud for cloud in clouds if len(cloud.get_offsets()) == 3]
    assert [to_hex(cloud.get_facecolor()[0]) for cloud in dots] == [
        style.COLOURS[name] for name in comparisons.ABLATIONS
    ]


def test_reflector_effect_has_a_panel_for_each_mark():
    titles = [axis.get_title() for axis in FIGURES["reflector_effect"]().axes]
    assert titles == ["Names a best action next", "Judges the last action rightly"]


def test_reflector_effect_shows_fatal_advice_where_there_is_any():
    fatal = comparisons.reflector_effect(reflector().assign(names_fatal=[0.0, 0.1, 0.2] * 2)).axes[2]
    assert fatal.get_title() == "Its advice would lose the game"
    drawn = [container.lines[0].get_ydata().tolist() for container in fatal.containers]
    assert drawn == [[0.0, 0.1, 0.2]] * 2 and not any(container.has_yerr for container in fatal.containers)


def test_film_strip_draws_every_frame_and_its_words():
    drawn = []
    drawing = Drawing(lambda axis, observation: drawn.append(observation), lambda axis: axis.text(0, 0, "symbols"))
    figure = film_strip(frames(10), "An episode", drawing)
    *scenes, legend = figure.axes
    assert drawn == ["OBSERVED"] * 10 == ["OBSERVED"] * len(scenes)
    assert legend.texts[0].get_text() == "symbols"
    assert len({round(axis.get_position().y0, 3) for axis in scenes}) == 2  # ten frames wrap to two rows of five
    words = [text.get_text() for text in figure.texts]
    assert words.count("Go north.") == 9
    assert "end" in words and "→ move north  (−0.05)" in words


def test_film_strip_sets_observations_as_text_where_nothing_draws_them():
    lines = ["Task: put some tomato on microwave", "At: the middle of the room", "Not searched: fridge 1"]
    figure = film_strip([{**frames()[0], "observation": "\n".join(lines)}] * 6, "")
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [lines] * 6
    long = film_strip([{**frames()[0], "observation": "cabinet 1, " * 100}], "")
    assert [long.axes[0].texts[i].get_text() for i in (0, -1)] == ["...", "  cabinet 1,"]
    edge = long.axes[0].get_ylim()[0]
    assert all(text.get_position()[1] > edge for text in long.axes[0].texts)


def test_a_long_action_does_not_run_into_the_next_scene():
    words = {**frames()[0], "action": "take the very long-handled tomato 1 from the countertop 1", "reward": 0.28}
    texts = [text.get_text() for text in film_strip([words] * 3, "").texts]
    (action,) = {text for text in texts if "take" in text}
    assert max(map(len, action.splitlines())) <= 38 and "very long-handled" in action and "(+0.28)" in action


def test_film_strip_refuses_an_empty_episode():
    with pytest.raises(ReflectRLError, match="no frames"):
        film_strip([], "")


def test_what_is_not_known_is_not_drawn():
    """An environment without an oracle and one run of one seed."""
    unknown = CEILINGS.assign(ceiling=np.nan)
    figure = curves.training_curves(training().query("seed == 0").assign(stage="full"), unknown, 20)
    assert not [line for axis in figure.axes for line in axis.get_lines() if line.get_linestyle() == "--"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["Reflect-RL"]
    figure = comparisons.main_results(tables.main_table(episodes(["random"]), unknown))
    assert not [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert not {"ceiling", "paper (secondary source)"} & {text.get_text() for text in figure.legends[0].texts}


def test_settings_stand_in_the_environments_order_with_its_headline_first():
    found = episodes(["random", "reflect_rl"])
    panels = [found.assign(setting=name, horizon=h) for name in ("pickup", "full") for h in (15, 20)]
    figure = comparisons.main_results(tables.main_table(pd.concat(panels), CEILINGS))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"{of},\n{steps} steps" for steps in (15, 20) for of in ("whole task", "pickup alone")]


def test_claims_in_one_picture():
    """A dot with its interval for each comparison that has one, below its claim, with its verdict."""
    columns = ["claim", "env", "setting", "regime", "comparison", "effect", "ci_low", "ci_high", "verdict", "note"]
    few = "only 5 seeds; a decision needs 10 seeds"
    rows = [
        ("1", "taxi", "full", "paper", "reflect_rl vs sft_only", 0.5, 0.3, 0.7, "reproduced", ""),
        ("1", "taxi", "pickup", "", "reflect_rl vs sft_only", -0.1, -0.2, 0.0, "undecided", few),
        ("5", "taxi", "full", "paper", "reflect_rl vs reflect_rl_no_milestones", 0.01, -0.01, 0.03, "equivalent", ""),
        ("5", "taxi", "full", "paper", "reflect_rl_stages vs reflect_rl", np.nan, np.nan, np.nan, "undecided", ""),
    ]
    table, rule = pd.DataFrame(rows, columns=columns), Rule(claims={"1": "It is better.", "5": "Stages help."})
    (axis,) = forest(table, rule).axes
    dots = [container.lines[0] for container in axis.containers]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([50, -10, 1])
    ends = [line.get_segments()[0][:, 0].tolist() for container in axis.containers for line in container.lines[2]]
    assert np.array(ends) == pytest.approx(np.array([[30, 70], [-20, 0], [-1, 3]]))
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "Taxi: whole task, regime paper",
        "Taxi: pickup alone",
        "Taxi: whole task, regime paper",
    ]
    both = [label.get_text() for label in forest(table.fillna(0.0), rule).axes[0].get_yticklabels()]
    assert both[2:] == [
        f"Taxi: whole task, regime paper\n({of})" for of in ("Reflect-RL - w/o milestones", "with stages - Reflect-RL")
    ]
    assert axis.get_yticks().tolist() == [float(dot.get_ydata()[0]) for dot in dots]
    written = [text.get_text() for text in axis.texts]
    assert written == ["1. It is better.", "reproduced", "undecided: only 5 seeds", "5. Stages help.", "equivalent"]
    assert to_hex(dots[1].get_markerfacecolor()) == "#ffffff" != to_hex(dots[0].get_markerfacecolor())
    assert forest(table[3:], rule) is None
