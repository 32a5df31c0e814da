"""Oracle, explorer and teacher know what they should and no more."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from small_games import example, made, reset, task_of

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.env import oracle_steps
from reflect_rl.envs.household.explorer import explore
from reflect_rl.envs.household.games import PAPER, TASK_TYPES, Recipe
from reflect_rl.envs.household.goal import Goal, kind
from reflect_rl.envs.household.notes import Notes
from reflect_rl.envs.household.oracle import reached, shortest_plan


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_oracle_and_explorer_win(task_type):
    for trial in (7, 8):
        recipe = example(task_type)
        task = task_of(recipe, trial=trial)
        env = reset(task)
        steps = 0
        done = False
        while not done and steps < 50:
            _, _, terminated, truncated, info = env.step(env.expert_action())
            done, steps = terminated or truncated, steps + 1
        assert info["success"]
        assert oracle_steps(task) <= steps


def test_a_lamp_that_is_not_known_is_searched_for():
    notes = Notes("look at cup under the desklamp", ("desk 1", "shelf 1"), here="shelf 1", held="cup 1")
    notes.contents["shelf 1"] = ()
    advice = explore(notes, Goal("cup", "", "", "", 1, True), ["go to desk 1", "move cup 1 to shelf 1"])
    assert (advice.phase, advice.commands) == ("seek light", ("go to desk 1",))


def test_what_shares_a_place_is_within_reach():
    # in floor plan 26, sink and microwave share a pose: no command goes from one to the other
    game = "train/pick_and_place_simple-Tomato-None-Microwave-26/trial_G00504"
    store.make(game)
    env = reset(f"full:{game}", horizon=30)
    while env.notes.here != "sinkbasin 1":
        env.step(env.actions.index("go to sinkbasin 1"))
    assert "go to microwave 1" not in env.actions and env.notes.near == ("microwave 1",)
    assert "\nNear, closed: microwave 1\n" in env.notes.text()
    done = False
    while not done:
        _, _, done, truncated, _ = env.step(env.expert_action())
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


def test_the_oracle_keeps_to_its_plan_and_plans_anew_off_it():
    env = reset(task_of(example("pick_two_obj_and_place")))
    length, made_anew, plan = len(env.plan()), [], env.plan
    env.plan = lambda: made_anew.append(1) or plan()
    env.step(env.oracle_action())
    env.step(env.oracle_action())
    assert len(made_anew) == 1
    wrong = next(i for i, command in enumerate(env.actions) if command != env._plan[0])
    env.step(wrong)
    steps, done = 3, False
    while not done:
        _, _, done, _, info = env.step(env.oracle_action())
        steps += 1
    assert info["success"] and len(made_anew) == 2 and length <= steps <= length + 3


def test_the_oracle_recovers_with_the_wrong_thing_in_hand():
    env = reset(task_of(example("pick_and_place_simple")))
    rng = np.random.default_rng(0)
    for _ in range(200):
        takes = [i for i, a in enumerate(env.actions) if a.startswith("take ") and kind(a[5:]) != env.goal.object]
        if takes:
            env.step(takes[0])
            break
        env.step(int(rng.integers(len(env.actions))))
    assert env.notes.held and kind(env.notes.held) != env.goal.object
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
        "from reflect_rl.envs.household.games import package\n"
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
    assert oracle_steps(f"full:{game}") == int(done.stderr.split()[-1])


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
            assert first.advice() == second.advice()
            action = first.expert_action() if length % 3 else int(rng.integers(len(first.actions)))
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
    assert "Hand: cold egg 1 !" in notes.text() and "Here: egg 2\n" in notes.text()
    notes.read("close fridge 1", "You close the fridge 1.")
    assert "At: fridge 1, closed\n" in notes.text() and "Seen: egg 2 in fridge 1\n" in notes.text()
    notes.read("go to cabinet 2", "You arrive at cabinet 2. On the cabinet 2, you see nothing.")
    assert (
        "Here:" not in notes.text()
        and "Seen: egg 2 in fridge 1" in notes.text()
        and "Searched: fridge 1\nNot searched: cabinet 10" in notes.text()
    )
    notes.read("put egg 1 in/on cabinet 2", "You put the egg 1 in/on the cabinet 2.")  # the wording before 0.4
    assert notes.contents["cabinet 2"] == ("egg 1",) and not notes.held
    notes.read("go to cabinet 10", "Nothing happens.")
    assert notes.here == "cabinet 2"


def test_notes_are_short_and_mark_what_the_task_names():
    room = tuple(f"cabinet {i}" for i in range(1, 29)) + ("drawer 1", "drawer 2", "sinkbasin 1")
    notes = Notes("put a clean cup in drawer", room, here="drawer 2", held="cup 1", treated={"cup 1": "clean"})
    notes.contents = {"cabinet 2": ("cup 2",), "drawer 1": ("cup 3", "pen 1"), "drawer 2": ("pen 2",)}
    assert notes.text() == (
        "Searched: cabinet 2, drawer 1\n"
        "Not searched: cabinet 1 cabinet 3-28 sinkbasin 1\n"
        "In place: cup 3 in drawer 1 !\n"
        "Seen: cup 2 in cabinet 2\n"
        "There: pen 2\n"
        "Hand: clean cup 1 !\n"
        "At: drawer 2 !\n"
        "Task: put a clean cup in drawer"
    )


def test_what_is_within_reach_is_noted_from_the_legal_commands():
    room = ("cabinet 1", "cabinet 2", "desk 1", "desk 2", "shelf 1")
    notes = Notes(
        "look at pen under the desklamp", room, here="desk 1", contents={"desk 1": (), "desk 2": ("desklamp 1",)}
    )
    notes.look(["go to shelf 1", "go to cabinet 2", "open cabinet 1", "take pen 1 from desk 2"])
    assert notes.near == ("cabinet 1", "desk 2") and notes.closed == {"cabinet 1"}
    assert notes.contents["desk 2"] == ("desklamp 1", "pen 1")
    assert "Not searched: cabinet 2 shelf 1\nNear: desk 2\nNear, closed: cabinet 1\n" in notes.text()
    goal = Goal("cup", "", "", "", 1, True)
    legal = ["go to shelf 1", "go to cabinet 2", "open cabinet 1"]
    assert explore(notes, goal, legal).commands == ("open cabinet 1",), "before one leaves"


def test_the_explorer_prefers_what_needs_no_opening():
    notes = Notes("put some egg on countertop", ("cabinet 1", "countertop 1", "fridge 1", "microwave 1", "sinkbasin 1"))
    actions = [f"go to {name}" for name in notes.receptacles]
    advice = explore(notes, Goal("egg", "countertop", "", "", 1, False), actions)
    assert advice.phase == "search" and advice.commands[0] == "go to sinkbasin 1"
    assert set(advice.commands) == {"go to sinkbasin 1", "go to fridge 1", "go to microwave 1"}


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_goal_is_reached_when_the_engine_says_so(task_type):
    recipe = example(task_type)
    goal, engine, rng = Goal.of(recipe), Engine(), np.random.default_rng(0)
    for share in (0.0, 0.3, 0.6):
        engine.reset(store.path_of(made(recipe)))
        for _ in range(40):
            plan = shortest_plan(engine, goal)
            assert reached(engine, goal) == engine.won == (not plan)
            engine.step(str(rng.choice(engine.commands)) if engine.won or rng.random() < share else plan[0])


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_game_is_played_with_another_goal(task_type):
    game, goal = next(t.split("#") for t in store.other_goals() if f"#{task_type}" in t)
    store.make(game)
    env = reset(f"full:{game}#{goal}")
    assert env.recipe == Recipe.parse(goal) and kind(env.recipe.object.lower()) in env.notes.task
    assert env.plan() and env.oracle_action() < len(env.actions)
    while env.plan():
        *_, info = env.step(env.oracle_action())
    assert info["success"]
    assert oracle_steps(f"full:{game}#{goal}") == env.steps
    assert store.parse_task(f"full:{game}#{goal}").sentence == env.notes.task


def test_a_goal_of_another_room_is_no_task():
    game = store.games("paper", "train")[0]
    with pytest.raises(ReflectRLError, match="is no ALFWorld task"):
        store.parse_task(f"full:{game}#pick_and_place_simple-Egg-None-Fridge-14")


def test_what_is_within_reach_is_used_without_going_there():
    notes = Notes(
        "look at cup under the desklamp", ("desk 1", "shelf 1"), here="shelf 1", held="cup 1", near=("desk 1",)
    )
    notes.contents["desk 1"] = ("desklamp 1",)
    goal = Goal("cup", "", "", "", 1, True)
    assert explore(notes, goal, ["move cup 1 to shelf 1", "use desklamp 1"]).commands == ("use desklamp 1",)
    notes.held, notes.contents["desk 1"] = "", ("cup 2", "cup 3")
    takes = ["take cup 2 from desk 1", "take cup 3 from desk 1"]  # either is as good
    assert explore(notes, goal, takes).commands == tuple(takes)
