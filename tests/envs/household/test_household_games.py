"""Games are generated soundly, and every panel holds the games that it should."""

import json
import random
import re
import shutil

import numpy as np
import pytest
from small_games import example, made, task_of

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import games, store
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import PAPER, TASK_TYPES, Recipe
from reflect_rl.envs.household.spec import SPEC


def test_every_task_type_can_be_set_in_its_rooms():
    kinds = {
        name: {r.task_type for scene in (s[0], s[8]) for r in games.recipes(scene)} for name, s in games.ROOMS.items()
    }
    assert kinds["kitchen"] == set(TASK_TYPES) - {"look_at_obj_in_light"}
    assert kinds["bedroom"] >= {"look_at_obj_in_light", "pick_and_place_simple", "pick_two_obj_and_place"}
    assert "pick_clean_then_place_in_recep" in kinds["bathroom"]


def test_the_papers_task_can_be_set_in_all_kitchens():
    for scene in games.ROOMS["kitchen"]:
        assert Recipe("pick_and_place_simple", "Tomato", "Microwave", scene) in games.recipes(scene)


@pytest.mark.parametrize(
    "name", ["nonsense", "pick_up-Tomato-None-Microwave-13", "pick_and_place_simple-Tomato-None-Microwave-x"]
)
def test_a_name_that_is_no_task(name):
    with pytest.raises(ReflectRLError, match="names no ALFWorld task; an example: pick_and_place_simple-Tomato"):
        Recipe.parse(name)


def test_a_task_that_a_scene_cannot_have():
    with pytest.raises(ReflectRLError, match="unknown task of this scene"):
        games.generate(Recipe("pick_and_place_simple", "Tomato", "Microwave", 401), 0)
    with pytest.raises(ReflectRLError, match="unknown scene"):
        games.recipes(31)


def test_equal_trials_are_equal_and_different_trials_differ():
    first, again, other = games.generate(PAPER, 1), games.generate(PAPER, 1), games.generate(PAPER, 2)
    assert first == again
    assert first[0]["pddl_problem"] != other[0]["pddl_problem"]
    assert games.generate(PAPER, 1, attempt=1)[0]["pddl_problem"] != first[0]["pddl_problem"]


def test_generating_leaves_global_generators_alone():
    random.seed(3), np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    games.generate(PAPER, 5)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("trial", range(3))
def test_objects_lie_where_they_may_and_the_tasks_object_not_at_its_target(trial):
    problem = games.generate(PAPER, trial)[0]["pddl_problem"]
    placed = re.findall(r"\(inReceptacle (\w+?)_bar_\S+ (\S+)\)", problem)
    allowed = games.constants().VAL_RECEPTACLE_OBJECTS
    assert len(placed) > 15
    for thing, where in placed:
        kind = where.split("_bar_")[-1] if "Basin" in where else where.split("_bar_")[0]
        assert thing in allowed[kind]
        assert (thing, kind) != ("Tomato", "Microwave")
    assert {thing for thing, _ in placed} >= {"Tomato"}


def test_the_papers_words():
    assert games.generate(PAPER, 0)[1]["turk_annotations"]["anns"][0]["task_desc"] == "put some tomato on microwave"


def test_made_games_have_alfworlds_layout_and_a_walkthrough_that_wins():
    folder = store.path_of(made(example("pick_and_place_simple"))).parent
    assert sorted(p.name for p in folder.iterdir()) == ["game.tw-pddl", "initial_state.pddl", "traj_data.json"]
    game = json.loads((folder / "game.tw-pddl").read_text())
    assert game["solvable"] is True
    engine = Engine()
    engine.reset(folder / "game.tw-pddl")
    assert not engine.won
    for command in game["walkthrough"]:
        engine.step(command)
    assert engine.won
    assert json.loads((folder / "traj_data.json").read_text())["provenance"].startswith("generated from floor plan")


def test_panels_are_disjoint_and_of_the_stated_size():
    panels = {(s, split): store.games(s, split) for s in store.SETTINGS for split in store.FIRST_TRIAL}
    assert {key: len(panel) for key, panel in panels.items() if key[1] == "train"} == {
        ("paper", "train"): 60, ("kitchens", "train"): 135, ("all_seen", "train"): 300, ("all_unseen", "train"): 0
    }  # fmt: skip
    assert {len(panel) for key, panel in panels.items() if key[1] != "train"} == {60}
    everything = [game for panel in panels.values() for game in panel]
    assert len(everything) == len(set(everything))
    # no two games of different splits have the same task and trial number
    assert len({game.partition("/")[2] for game in everything}) == len(everything)


@pytest.mark.parametrize("setting", ["all_seen", "all_unseen"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_panels_of_all_tasks_have_ten_games_a_type(setting, split):
    types = [Recipe.parse(game.split("/")[1]).task_type for game in store.games(setting, split)]
    assert {t: types.count(t) for t in TASK_TYPES} == dict.fromkeys(TASK_TYPES, 10)


def test_training_uses_the_games_of_all_settings():
    parts = [SPEC.panel(setting, "train") for setting in store.SETTINGS]
    full = SPEC.panel(SPEC.training_setting, "train")
    assert full[: len(sum(parts, ()))] == sum(parts, ())
    assert SPEC.panel(SPEC.training_setting, "train", 2) == sum((part[:2] for part in parts), ())
    assert [task.replace("pickup:", "full:") for task in SPEC.panel("pickup", "train")] == list(full)
    assert len(SPEC.panel(SPEC.training_setting, "validation")) == 240
    with pytest.raises(ReflectRLError, match="unknown setting 'papers'; .*paper"):
        SPEC.panel("papers", "train")


def scenes(setting: str, split: str) -> set[int]:
    return {Recipe.parse(game.split("/")[1]).scene for game in store.games(setting, split)}


def test_rooms_of_validation_and_of_test_are_used_for_nothing_else():
    for setting in ("kitchens", "all_unseen"):
        assert scenes(setting, "test") <= set(games.UNSEEN) and scenes(setting, "validation") <= set(games.VALIDATED)
    elsewhere = [
        scenes(s, split)
        for s in store.SETTINGS
        for split in store.FIRST_TRIAL
        if s in ("paper", "all_seen") or split == "train"
    ]
    assert not set.union(*elsewhere) & {*games.UNSEEN, *games.VALIDATED}
    assert scenes("kitchens", "test") == {10} and scenes("kitchens", "validation") == {9, 11}


def test_other_goals_are_of_training_games_and_lie_elsewhere_at_the_start():
    found = store.other_goals()
    assert len(found) == len(set(found)) > 4500
    panel = {game for setting in store.SETTINGS for game in store.games(setting, "train")}
    assert {goal.partition("#")[0] for goal in found} <= panel
    types = [Recipe.parse(goal.partition("#")[2]).task_type for goal in found]
    assert min(types.count(t) for t in TASK_TYPES) > 400
    for goal in found[:600]:
        assert goal.rpartition("-")[2] == goal.partition("/trial")[0].rpartition("-")[2], "the room stays"
    game, recipe = found[0].partition("#")[0], Recipe.parse(found[0].partition("#")[2])
    problem = games.generate(Recipe.parse(game.split("/")[1]), games.trial_number(game.split("/")[2]))[0][
        "pddl_problem"
    ]
    placed = re.findall(rf"\(inReceptacle {recipe.object}_bar_\S+ (\w+?)_bar_\S+\)", problem)
    assert placed and recipe.target not in placed


def test_a_manifest_has_checksums_and_refuses_equal_games(home):
    panel = tuple(task_of(example("pick_and_place_simple"), trial=trial) for trial in (1, 2))
    missing = f"full:{store.games('paper', 'test')[-1]}"
    listed = store.manifest((*panel, missing))
    assert set(listed) == {task[5:] for task in panel}, "what has not been made is not listed"
    assert len({entry["sha256"] for entry in listed.values()}) == 2
    assert all(entry["steps"] > 2 for entry in listed.values())
    scene = example("pick_and_place_simple").scene
    assert listed[panel[0][5:]]["provenance"] == f"generated from floor plan {scene}, seed 1"
    copy = panel[0].replace("trial_G00001", "trial_G00099")
    shutil.copytree(store.path_of(panel[0][5:]).parent, store.path_of(copy[5:]).parent)
    with pytest.raises(ReflectRLError, match="equal games: .*trial_G00001.*trial_G00099"):
        store.manifest((*panel, copy))
    shutil.rmtree(store.path_of(copy[5:]).parent)
