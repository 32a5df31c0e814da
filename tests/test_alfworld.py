"""Household games: generated soundly, played as the raw engine plays them, and nothing leaks or is lost."""

import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reflect_rl import data
from reflect_rl.baselines import Random
from reflect_rl.envs import domain
from reflect_rl.envs.alfworld import Household, experts, games, legal, shortest, store, workers
from reflect_rl.envs.alfworld.engine import Engine
from reflect_rl.envs.alfworld.experts import Goal, Notes, explore
from reflect_rl.envs.alfworld.games import PAPER, TASK_TYPES, Recipe
from reflect_rl.errors import ReflectRLError
from reflect_rl.rollout import play
from reflect_rl.teachers import teacher


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """One home for all tests of this file: games are made and translated once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(folder))
        patch.delenv("ALFWORLD_DATA", raising=False)
        yield folder
        workers.worker().close()
        workers._worker.cache_clear()


def example(task_type: str) -> Recipe:
    """A task of this type in a small room."""
    for scene in (401, 402, 301, 302, 303, 201, 2):
        found = [r for r in games.recipes(scene) if r.task_type == task_type]
        if found:
            return found[len(found) // 2]
    raise AssertionError(task_type)


def made(recipe: Recipe, trial: int = 7, folder: str = "train") -> str:
    game = f"{folder}/{recipe.name}/{store.trial_name(trial)}"
    store.make(game)
    return game


def task_of(recipe: Recipe, mode: str = "full", **options) -> str:
    return f"{mode}:{made(recipe, **options)}"


def reset(task: str, **options) -> Household:
    env = Household(horizon=options.pop("horizon", 50), **options)
    env.reset(options={"task": task})
    return env


# Recipes and generated games


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


# Panels


def test_panels_are_disjoint_and_of_the_stated_size():
    panels = {(s, split): store.games(s, split) for s in store.SETTINGS for split in store.TRIALS}
    assert {key: len(panel) for key, panel in panels.items() if key[0] == "paper"} == {
        ("paper", "train"): 60, ("paper", "validation"): 12, ("paper", "test"): 25
    }  # fmt: skip
    assert len(panels["kitchens", "train"]) == 144 and len(panels["kitchens", "test"]) == 25
    assert len(panels["all_seen", "test"]) == len(panels["all_unseen", "test"]) == 30
    everything = [game for panel in panels.values() for game in panel]
    assert len(everything) == len(set(everything))
    # no two games of different splits have the same task and trial number
    assert len({game.partition("/")[2] for game in everything}) == len(everything)


def test_unseen_scenes_are_never_trained_on():
    scene = {
        game: Recipe.parse(game.split("/")[1]).scene
        for s in store.SETTINGS
        for split in store.TRIALS
        for game in store.games(s, split)
    }
    for setting in store.SETTINGS:
        for split in ("train", "validation"):
            assert not {scene[game] for game in store.games(setting, split)} & set(games.UNSEEN)
    assert {scene[game] for game in store.games("kitchens", "test")} == {10}
    assert {scene[game] for game in store.games("all_unseen", "test")} <= set(games.UNSEEN)


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


# The engine


RAW_WALK = """
import json, os, sys
import numpy as np
from reflect_rl.envs.alfworld import games
textworld = games.package("textworld")
env = games.package("textworld.envs.pddl.pddl").PddlEnv(textworld.EnvInfos(facts=True))
raw = games.package("alfworld.agents.environment.alfred_tw_env").AlfredDemangler(env)
walks, out = json.loads(sys.argv[1]), open(sys.argv[2], "w")
for path, steps in walks:
    raw.load(path)
    state, walk, rng = raw.reset(), [], np.random.default_rng(1)
    for index in range(steps + 1):
        facts = sorted([f.name, *(v.name for v in f.arguments)] for f in state["facts"])
        command = str(rng.choice(state["admissible_commands"])) if index % 15 != 14 else "fly to the moon"
        walk.append([state.feedback, state["admissible_commands"], bool(state["won"]), facts, command])
        state, _, _ = raw.step(command)
    out.write(json.dumps(walk) + chr(10))
"""


@pytest.fixture(scope="module")
def raw_walks(tmp_path_factory):
    """Random walks by TextWorld's own environment behind ALFWorld's own wrapper, in a process where nothing is ours."""
    walks = [  # a raw step takes 0.1 to 0.5 s
        (str(store.path_of(made(example(t)))), 15 if "heat" in t or "cool" in t else 60) for t in TASK_TYPES
    ]
    out = tmp_path_factory.mktemp("raw") / "walks.jsonl"
    subprocess.run([sys.executable, "-c", RAW_WALK, json.dumps(walks), out], check=True, stdout=subprocess.DEVNULL)
    return dict(zip(TASK_TYPES, map(json.loads, out.read_text().splitlines()), strict=True))


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_outputs_equal_the_raw_engines(task_type, raw_walks):
    ours, text = Engine(), None
    for index, (feedback, commands, won, facts, command) in enumerate(raw_walks[task_type]):
        text = ours.reset(store.path_of(made(example(task_type)))) if index == 0 else text
        assert text == feedback
        assert list(ours.commands) == commands and ours.won == won
        assert sorted([p, *(ours.game.names[a] for a in arguments)] for p, *arguments in ours.facts) == facts
        text = ours.step(command)


def test_remembered_texts_are_those_that_were_derived(tmp_path):
    path = store.path_of(made(example("pick_and_place_simple")))

    def walk():
        engine, texts = Engine(), []
        texts.append(engine.reset(path))
        rng = np.random.default_rng(2)
        for _ in range(80):
            texts.append(engine.step(str(rng.choice(engine.commands))))
        return texts, engine.game

    first, game = walk()
    known = len(game.feedback)
    again, _ = walk()
    assert again == first and len(game.feedback) == known > 10


def test_a_damaged_translation_is_made_anew(home):
    path = store.path_of(made(example("pick_and_place_simple")))
    engine = Engine()
    intro = engine.reset(path)
    kept = sorted((home / "data" / "alfworld" / "translations").iterdir())
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
    from reflect_rl.envs.alfworld.engine import translated

    translated.cache_clear()
    assert Engine().reset(path) == intro


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ('{"pddl_domain": "", "grammar": ""}', "is damaged"),
        ('{"pddl_domain": "", "grammar": "", "pddl_problem": ""}', "sets no task"),
        ('{"pddl_domain": "(", "grammar": "Your task is to: rest.", "pddl_problem": "("}', "cannot be played"),
    ],
)
def test_a_broken_game_file(tmp_path, content, message):
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(ReflectRLError, match=message):
        Engine().reset(path)


def test_a_missing_game_file(tmp_path):
    with pytest.raises(ReflectRLError, match="no game at .*check ALFWORLD_DATA"):
        Engine().reset(tmp_path / "game.tw-pddl")


# Who knows what to do


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_oracle_and_explorer_win(task_type):
    for trial in (7, 8):
        recipe = example(task_type)
        task = task_of(recipe, trial=trial)
        env = reset(task)
        steps = 0
        done = False
        while not done and steps < 50:
            _, _, terminated, truncated, info = env.step(env.best_action())
            assert env.verdict == "right"
            done, steps = terminated or truncated, steps + 1
        assert info["success"]
        assert shortest(task) <= steps


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_reflections_name_the_object_and_every_phase_is_met(task_type):
    recipe = example(task_type)
    env = Household(horizon=60)
    now, phases = data.begin(env, task_of(recipe, trial=7)), []
    while now is not None:
        text = teacher("alfworld").reflect(now)
        assert re.search(rf"{recipe.object.lower()}\. Next: ", text)
        phases.append(now.phase)
        now = data.act(env, now, env.best_action())
    assert phases[0] == "search" and "fetch" in phases
    last = "light" if task_type == "look_at_obj_in_light" else "place"
    assert phases[-1] == last and set(phases) <= set(teacher("alfworld")._ABOUT)


def test_a_lamp_that_is_not_known_is_searched_for():
    notes = Notes("look at cup under the desklamp", ("desk 1", "shelf 1"), here="shelf 1", held="cup 1")
    notes.contents["shelf 1"] = ()
    advice = explore(notes, Goal("cup", "", "", (), 1, True), ["go to desk 1", "move cup 1 to shelf 1"])
    assert (advice.phase, advice.commands) == ("seek light", ("go to desk 1",))


def test_what_shares_a_place_is_within_reach():
    # in floor plan 26, sink and microwave share a pose: no command goes from one to the other
    game = "train/pick_and_place_simple-Tomato-None-Microwave-26/trial_G00504"
    store.make(game)
    env = reset(f"full:{game}", horizon=30)
    while env.notes.here != "sinkbasin 1":
        env.step(env.actions.index("go to sinkbasin 1"))
    assert "go to microwave 1" not in env.actions and env.notes.near == ("microwave 1",)
    assert "\nNear: microwave 1\n" in env.notes.text()
    done = False
    while not done:
        _, _, done, truncated, _ = env.step(env.best_action())
        assert not truncated
    env.reset(options={"task": f"full:{game}"})
    assert env.notes.near == () and "Near:" not in env.notes.text()


def test_an_explorer_that_cannot_reach_anything_still_answers():
    notes = Notes.start("Looking quickly around you, you see a bed 1, and a desk 1.", "put some pen on desk")
    recipe = Recipe("pick_and_place_simple", "Pen", "Desk", 301)
    assert explore(notes, Goal.of(recipe), ("open bed 1",)).commands == ("open bed 1",)


def test_the_oracle_shortens_the_way_at_every_step():
    env = reset(task_of(example("pick_two_obj_and_place")))
    length = len(env.plan())
    while length:
        env.step(env.actions.index(env.plan()[0]))
        assert len(env.plan()) == length - 1
        length -= 1


def test_the_oracle_keeps_to_its_way_and_thinks_again_off_it():
    env = reset(task_of(example("pick_two_obj_and_place")))
    length, asked, plan = len(env.plan()), [], env.plan
    env.plan = lambda: asked.append(1) or plan()
    env.step(env.oracle_action())
    env.step(env.oracle_action())
    assert len(asked) == 1
    wrong = next(i for i, command in enumerate(env.actions) if command != env._way[0])
    env.step(wrong)
    steps, done = 3, False
    while not done:
        _, _, done, _, info = env.step(env.oracle_action())
        steps += 1
    assert info["success"] and len(asked) == 2 and length <= steps <= length + 3


def test_the_oracle_recovers_with_the_wrong_thing_in_hand():
    env = reset(task_of(example("pick_and_place_simple")))
    rng = np.random.default_rng(0)
    for _ in range(200):
        takes = [
            i for i, a in enumerate(env.actions) if a.startswith("take ") and experts.kind(a[5:]) != env.goal.object
        ]
        if takes:
            env.step(takes[0])
            break
        env.step(int(rng.integers(len(env.actions))))
    assert env.notes.held and experts.kind(env.notes.held) != env.goal.object
    won = False
    while env.plan():
        *_, info = env.step(env.actions.index(env.plan()[0]))
        won = info["success"]
    assert won


@pytest.mark.slow
def test_the_oracle_is_as_short_as_the_planner():
    # a child with a deadline: the planner may take for ever
    game = made(example("pick_and_place_simple"))
    script = (
        "import sys, textworld\n"
        "from reflect_rl.envs.alfworld.games import package\n"
        "env = package('textworld.envs.pddl.pddl').PddlEnv(textworld.EnvInfos(policy_commands=True))\n"
        "env = package('alfworld.agents.environment.alfred_tw_env').AlfredDemangler(env)\n"
        "path = sys.argv[1]; env.load(path); state = env.reset(); print(len(state['policy_commands']), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path_of(game))],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert shortest(f"full:{game}") == int(done.stderr.split()[-1])


def hidden_twins(trial: int) -> tuple[str, str]:
    """Two games that differ only in where the tomatoes lie, which nobody has seen."""
    game = made(PAPER, trial=trial)
    path = store.path_of(game)
    content = json.loads(path.read_text())
    problem = content["pddl_problem"]
    fridge = re.search(r"receptacleAtLocation (Fridge\S+) (\S+)\)", problem)
    moved = re.sub(r"(nReceptacle Tomato\S+) \S+\)", rf"\1 {fridge[1]})", problem)
    moved = re.sub(r"(objectAtLocation Tomato\S+) \S+\)", rf"\1 {fridge[2]})", moved)
    assert moved != problem
    twin = game.replace(store.trial_name(trial), store.trial_name(900 + trial))
    store.path_of(twin).parent.mkdir(parents=True, exist_ok=True)
    store.path_of(twin).write_text(json.dumps(content | {"pddl_problem": moved}))
    return f"full:{game}", f"full:{twin}"


def test_games_that_look_the_same_so_far_get_the_same_advice():
    lengths = []
    for trial in (3, 4, 5):
        first, second = map(reset, hidden_twins(trial))
        assert first.plan() != second.plan(), "the oracle knows"
        rng = np.random.default_rng(4)
        for length in range(1, 30):
            assert first.notes.text() == second.notes.text() and first.actions == second.actions
            assert (first.advice(), first.verdict) == (second.advice(), second.verdict)
            action = first.best_action() if length % 3 else int(rng.integers(len(first.actions)))
            first.step(action), second.step(action)
            if first.notes != second.notes:
                break
        else:
            raise AssertionError("nobody looked where the twins differ")
        lengths.append(length)
    assert max(lengths) > 2


def test_notes_read_the_texts():
    notes = Notes.start(
        "Looking around you, you see a cabinet 10, a cabinet 2, and a fridge 1.\n\nYour task is to: cool some egg.",
        "cool some egg",
    )
    assert notes.receptacles == ("cabinet 2", "cabinet 10", "fridge 1")
    notes.read("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed.")
    assert notes.closed == {"fridge 1"} and "At: fridge 1, closed" in notes.text()
    notes.read("open fridge 1", "You open the fridge 1. The fridge 1 is open. In it, you see a egg 2, and a egg 1.")
    assert notes.contents == {"fridge 1": ("egg 1", "egg 2")} and not notes.closed
    notes.read("take egg 1 from fridge 1", "You pick up the egg 1 from the fridge 1.")
    assert notes.held == "egg 1" and notes.known("egg") == [("egg 2", "fridge 1")]
    notes.read("cool egg 1 with fridge 1", "You cool the egg 1 using the fridge 1.")
    assert "Hand: egg 1, cold" in notes.text() and "Here: egg 2\n" in notes.text()
    notes.read("close fridge 1", "You close the fridge 1.")
    assert "At: fridge 1, closed\nHand" in notes.text() and "Seen: egg 2 in fridge 1\n" in notes.text()
    notes.read("go to cabinet 2", "You arrive at cabinet 2. On the cabinet 2, you see nothing.")
    assert (
        "Here:" not in notes.text()
        and "Seen: egg 2 in fridge 1" in notes.text()
        and "Not searched: cabinet 10" in notes.text()
    )
    notes.read("put egg 1 in/on cabinet 2", "You put the egg 1 in/on the cabinet 2.")  # the wording before 0.4
    assert notes.contents["cabinet 2"] == ("egg 1",) and not notes.held
    notes.read("go to cabinet 10", "Nothing happens.")
    assert notes.here == "cabinet 2"


def test_the_explorer_prefers_what_needs_no_opening():
    notes = Notes("put some egg on countertop", ("cabinet 1", "countertop 1", "fridge 1", "microwave 1", "sinkbasin 1"))
    actions = [f"go to {name}" for name in notes.receptacles]
    advice = explore(notes, Goal("egg", "countertop", "", (), 1, False), actions)
    assert advice.phase == "search" and advice.commands[0] == "go to sinkbasin 1"
    assert set(advice.commands) == {"go to sinkbasin 1", "go to fridge 1", "go to microwave 1"}


def test_what_is_within_reach_is_used_without_going_there():
    notes = Notes(
        "look at cup under the desklamp", ("desk 1", "shelf 1"), here="shelf 1", held="cup 1", near=("desk 1",)
    )
    notes.contents["desk 1"] = ("desklamp 1",)
    goal = Goal("cup", "", "", (), 1, True)
    assert explore(notes, goal, ["move cup 1 to shelf 1", "use desklamp 1"]).commands == ("use desklamp 1",)
    notes.held, notes.contents["desk 1"] = "", ("cup 2", "cup 3")
    takes = ["take cup 2 from desk 1", "take cup 3 from desk 1"]  # either is as good
    assert explore(notes, goal, takes).commands == tuple(takes)


# The environment


def test_it_keeps_gymnasiums_contract():
    tasks = store.tasks("paper", "train")
    env = gym.make("reflect_rl/Household-v0", disable_env_checker=True, horizon=5).unwrapped
    env.reset(options={"task": tasks[0]})
    observation, info = env.reset(options={"task": tasks[0]})
    assert env.observation_space.contains(observation)
    assert info["actions"] and len(set(info["actions"])) == len(info["actions"])
    again, _ = env.reset(options={"task": tasks[0]})
    assert again == observation


@pytest.fixture
def few_tasks(monkeypatch):
    monkeypatch.setattr("reflect_rl.envs.alfworld.tasks", lambda *_: (task_of(example("pick_and_place_simple")),))


def test_check_env_is_clean(few_tasks, recwarn):
    check_env(Household(horizon=5), skip_render_check=True)
    assert not [str(w.message) for w in recwarn if "alfworld" in str(w.filename)]


def test_equal_choices_give_equal_episodes():
    task = task_of(example("pick_clean_then_place_in_recep"))

    def episode(seed):
        env, rng = reset(task, horizon=15), np.random.default_rng(seed)
        return [env.step(int(rng.integers(len(env.actions))))[:4] for _ in range(15)]

    assert episode(1) == episode(1)
    assert episode(1) != episode(2)


def test_labels_keep_their_commands_from_room_to_room():
    of = domain("alfworld").labels.of
    there = of(("go to cabinet 1", "go to cabinet 2", "take tomato 1 from fridge 1", "open fridge 1"))
    here = of(("go to cabinet 2", "open drawer 3", "take tomato 1 from shelf 2"))
    assert (there[1], there[3], there[2]) == here and len(set(there)) == 4


def test_silent_commands_are_not_legal_and_the_order_is_natural():
    actions = legal(["look", "inventory", "help", "examine egg 1", "go to cabinet 10", "go to cabinet 2"])
    assert actions == ("go to cabinet 2", "go to cabinet 10")


def test_an_invalid_action_costs_a_step_and_changes_nothing():
    env = reset(task_of(example("pick_and_place_simple")), horizon=2)
    before = env.notes.text()
    observation, reward, terminated, truncated, info = env.step(len(env.actions))
    assert (observation, terminated, truncated) == (before, False, False) and reward < 0
    assert info["invalid_action"] == len(env.actions)
    *_, truncated, info = env.step(-1)
    assert truncated and info["ended"] == "horizon" and not info["success"]


def test_modes_and_milestones():
    recipe = example("pick_clean_then_place_in_recep")
    env = reset(task_of(recipe))
    rewards = []
    info = {"success": False}
    while not info["success"]:
        _, reward, _, _, info = env.step(env.best_action())
        rewards.append(round(reward, 6))
    assert sorted(rewards)[-3:] == [0.28, 0.28, 0.98]
    plain = reset(task_of(recipe), milestone=False)
    rewards = []
    while not plain.notes.held:
        rewards.append(plain.step(plain.best_action())[1])
    assert set(rewards) == {-0.02}
    carried = reset(task_of(recipe, "dropoff"))
    assert experts.kind(carried.notes.held) == recipe.object.lower() and carried.steps == 0
    picked = reset(task_of(recipe, "pickup"))
    done = False
    while not done:
        _, _, done, _, info = picked.step(picked.best_action())
    assert info["success"] and experts.kind(picked.notes.held) == recipe.object.lower()
    assert shortest(task_of(recipe, "pickup")) < shortest(task_of(recipe))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fly"}, "unknown mode 'fly'"),
        ({"split": "tset"}, "unknown split 'tset'; .*test"),
        ({"horizon": 0}, "leaves no step"),
        ({"render_mode": "human"}, "unknown render mode"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ReflectRLError, match=message):
        Household(**options)


def test_a_bad_task():
    with pytest.raises(
        ReflectRLError, match="is no ALFWorld task; an example: 'full:train/pick_and_place_simple-Tomato"
    ):
        Household().reset(options={"task": "full-231"})


def test_slots_are_used_again():
    task = task_of(example("pick_and_place_simple"))
    slots = set()
    for _ in range(5):
        env = reset(task)
        slots.add(env._slot)
        del env
    assert len(slots) == 1


# Workers


def test_a_killed_engine_is_replaced_and_nothing_is_lost():
    task = task_of(example("pick_and_place_simple"))
    first, second = reset(task), reset(task)
    reference = reset(task)
    for env in (first, second, reference):
        for _ in range(2):
            env.step(env.best_action())
    engine = workers.worker()
    before = engine.replaced
    engine.process.send_signal(signal.SIGKILL)
    for env in (first, second):
        assert env.step(env.best_action())[0]
    reference.step(reference.best_action())
    assert first.notes == second.notes == reference.notes
    assert engine.replaced == before + 1


def test_two_engines_play_the_same_episodes_as_one_even_if_one_is_killed(monkeypatch):
    tasks = [task_of(example("pick_and_place_simple"))] * 6

    def played(engines):
        monkeypatch.setenv("REFLECT_RL_ENGINES", engines)
        rngs = [np.random.default_rng(i) for i in range(len(tasks))]
        episodes = play(domain("alfworld"), Random(), tasks, rngs, 6)
        return [[(t.observation, t.actions, t.decision.action) for t in e.transitions] for e in episodes]

    alone = played("1")
    assert played("2") == alone and len({str(episode) for episode in alone}) == 6
    first, second = workers.worker(0), workers.worker(1)
    assert first is not second and first.games and second.games
    second.process.send_signal(signal.SIGKILL)
    assert played("2") == alone and second.replaced == 1


def test_two_engines_start_in_a_fresh_process(home):
    task = task_of(example("pick_and_place_simple"))
    code = f"""
import os
import numpy as np
from reflect_rl.baselines import Expert
from reflect_rl.envs import domain
from reflect_rl.rollout import play
before = dict(os.environ)
episodes = play(domain("alfworld"), Expert(), [{task!r}] * 8, [np.random.default_rng(i) for i in range(8)], 30)
assert os.environ == before
print(all(e.success for e in episodes))
"""
    variables = os.environ | {"REFLECT_RL_ENGINES": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_a_bad_number_of_engines(monkeypatch, number):
    monkeypatch.setenv("REFLECT_RL_ENGINES", number)
    with pytest.raises(ReflectRLError, match=f"REFLECT_RL_ENGINES={number} is not a whole number"):
        workers.engines()


def test_a_hanging_engine_is_replaced(monkeypatch):
    env = reset(task_of(example("pick_and_place_simple")))
    engine = workers.worker()
    before = engine.replaced
    engine.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(workers, "DEADLINE", 5.0)
    env.step(env.best_action())
    assert engine.replaced == before + 1


def test_a_request_that_ends_every_process_is_an_error(monkeypatch):
    engine = workers.Worker(Path(os.environ["REFLECT_RL_HOME"]))
    monkeypatch.setattr(engine, "_start", lambda: None)
    engine.process.kill()
    engine.process.wait()
    with pytest.raises(ReflectRLError, match="engine process ended 3 times"):
        engine.ask("make", "train/x/y")
    engine._connection.close()


def test_an_error_in_the_engine_is_told_and_the_process_lives(home):
    engine = workers.worker()
    process = engine.process.pid
    with pytest.raises(ReflectRLError, match="no game at"):
        engine.ask("reset", 999, str(home / "nowhere" / "game.tw-pddl"))
    assert engine.process.pid == process and engine.process.poll() is None


# Guests leave the house as they found it


def test_home_arguments_output_and_environment_are_left_alone(tmp_path):
    script = (
        "import os, sys\n"
        "argv, out, env = list(sys.argv), sys.stdout, dict(os.environ)\n"
        "from reflect_rl.envs.alfworld import Household, store\n"
        "from reflect_rl.envs.alfworld.games import Recipe\n"
        "task = sys.argv[1]\n"
        "game = Household(); game.reset(options={'task': task}); game.step(game.best_action())\n"
        "assert (argv, out) == (list(sys.argv), sys.stdout), sys.argv\n"
        "assert env == dict(os.environ), set(os.environ) ^ set(env)\n"
        "assert 'textworld' not in sys.modules\n"
        "print('fine')\n"
    )
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, task_of(example("pick_and_place_simple"))],
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert list(tmp_path.iterdir()) == []


# Real data, and none


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Something of the real archives' shape."""
    for folder, trial in (("train", 1), ("train", 2), ("valid_seen", 3)):
        source = store.path_of(made(example("pick_and_place_simple"), trial=trial)).parent
        shutil.copytree(source, tmp_path / store.LAYOUT / folder / source.parent.name / f"trial_T2019090{trial}")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    store.games.cache_clear()
    yield tmp_path
    store.games.cache_clear()


def test_real_archives_are_used_and_never_written_into(archive):
    before = sorted((p, p.stat().st_mtime_ns) for p in archive.rglob("*"))
    (task,) = store.tasks("all_seen", "test")
    assert store.provenance(task) == "ALFWorld 2.1.1 archive"
    assert task.startswith("full:valid_seen/") and task.endswith("trial_T20190903")
    assert len(store.games("all_seen", "train")) + len(store.games("all_seen", "validation")) == 2
    env = reset(task)
    env.step(env.best_action())
    assert sorted((p, p.stat().st_mtime_ns) for p in archive.rglob("*")) == before


def test_a_variable_without_games(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(ReflectRLError, match="ALFWORLD_DATA=.* holds no json_2.1.1.*; unset it"):
        store.real_root()


def test_the_stock_environment_accepts_generated_games(archive, capsys):
    argv = sys.argv
    stock = games.package("alfworld.agents.environment.alfred_tw_env").AlfredTWEnv
    settings = {"env": {"goal_desc_human_anns_prob": 0, "task_types": [1]}, "dataset": {"num_eval_games": 0}}
    settings["dataset"]["eval_id_data_path"] = str(archive / store.LAYOUT / "valid_seen")
    assert stock(settings, train_eval="eval_in_distribution").num_games == 1
    sys.argv = argv


def test_without_the_package(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="alfworld")

    games.package.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ReflectRLError, match=r"needs the package 'alfworld'; install it by: pip install 'reflect-rl\[alfworld\]'"
    ):
        games.package("alfworld.info")


def test_on_a_python_that_cannot_play(monkeypatch):
    games.package.cache_clear()
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ReflectRLError, match="does not work on Python 3.13; use Python 3.11 or 3.12"):
        games.package("alfworld.info")
