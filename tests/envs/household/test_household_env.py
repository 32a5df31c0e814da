"""The environment keeps Gymnasium's contract and the library's."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from small_games import example, reset, task_of

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import games, store
from reflect_rl.envs.household.env import Household, legal_actions, oracle_steps
from reflect_rl.envs.household.goal import kind
from reflect_rl.envs.household.spec import SPEC, TEXT


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
    monkeypatch.setattr(store, "tasks", lambda *_: (task_of(example("pick_and_place_simple")),))


def test_check_env_is_clean(few_tasks, recwarn):
    check_env(Household(horizon=5), skip_render_check=True)
    assert not [str(w.message) for w in recwarn if "household" in str(w.filename)]


def test_equal_choices_give_equal_episodes():
    task = task_of(example("pick_clean_then_place_in_recep"))

    def episode(seed):
        env, rng = reset(task, horizon=15), np.random.default_rng(seed)
        return [env.step(int(rng.integers(len(env.actions))))[:4] for _ in range(15)]

    assert episode(1) == episode(1)
    assert episode(1) != episode(2)


def test_labels_keep_their_commands_from_room_to_room():
    of = SPEC.labels.of
    there = of(("go to cabinet 1", "go to cabinet 2", "take tomato 1 from fridge 1", "open fridge 1"))
    here = of(("go to cabinet 2", "open drawer 3", "take tomato 1 from shelf 2"))
    assert (there[1], there[3], there[2]) == here and len(set(there)) == 4


def test_every_action_is_good_or_a_slip():
    env = reset(task_of(example("pick_and_place_simple")))
    for _ in range(3):
        good, slips = SPEC.good(env), SPEC.slips_of(env, env.actions)
        assert sorted((*good, *slips)) == list(range(len(env.actions))) and SPEC.expert_action(env) == good[0] and slips
        env.step(slips[0])


def test_commands_without_effect_are_not_legal_and_the_order_is_natural():
    actions = legal_actions(["look", "inventory", "help", "examine egg 1", "go to cabinet 10", "go to cabinet 2"])
    assert actions == ("go to cabinet 2", "go to cabinet 10")


def test_an_invalid_action_costs_a_step_and_changes_nothing():
    env = reset(task_of(example("pick_and_place_simple")), horizon=2)
    before = env.notes.text()
    observation, reward, terminated, truncated, info = env.step(len(env.actions))
    assert (observation, terminated, truncated) == (before, False, False) and reward < 0
    assert info["invalid_action"] == len(env.actions)
    *_, truncated, info = env.step(-1)
    assert truncated and not info["success"]


def test_stages_and_milestones():
    recipe = example("pick_clean_then_place_in_recep")
    env = reset(task_of(recipe))
    rewards = []
    info = {"success": False}
    while not info["success"]:
        _, reward, _, _, info = env.step(env.expert_action())
        rewards.append(round(reward, 6))
    assert sorted(rewards)[-3:] == [0.28, 0.28, 0.98]
    plain = reset(task_of(recipe), milestone=False)
    rewards = []
    while not plain.notes.held:
        rewards.append(plain.step(plain.expert_action())[1])
    assert set(rewards) == {-0.02}
    carried = reset(task_of(recipe, "dropoff"))
    assert kind(carried.notes.held) == recipe.object.lower() and carried.steps == 0
    picked = reset(task_of(recipe, "pickup"))
    done = False
    while not done:
        _, _, done, _, info = picked.step(picked.expert_action())
    assert info["success"] and kind(picked.notes.held) == recipe.object.lower()
    assert oracle_steps(task_of(recipe, "pickup")) < oracle_steps(task_of(recipe))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "fly"}, "unknown setting 'fly'"),
        ({"split": "tset"}, "unknown split 'tset'; .*test"),
        ({"horizon": 0}, "leaves no step"),
        ({"render_mode": "human"}, "unknown render mode"),
        ({"observation": "pixels"}, "unknown observation 'pixels'; .*text"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ReflectRLError, match=message):
        Household(**options)


def test_the_games_own_text_with_its_history():
    task = task_of(example("pick_and_place_simple"))
    env = gym.make("reflect_rl/HouseholdText-v0", disable_env_checker=True, horizon=3).unwrapped
    first, info = env.reset(options={"task": task})
    assert first.startswith("-= Welcome to TextWorld, ALFRED! =-") and "Your task is to: " in first
    command = info["actions"][0]
    second, *_ = env.step(0)
    assert second.startswith(f"{first}\n> {command}\n") and env.observation_space.contains(second)
    assert env.step(len(env.actions))[0] == second, "an invalid action is no command"
    assert TEXT.name == "alfworld_text" and TEXT.teacher is SPEC.teacher


def test_another_goal_stands_in_the_games_text():
    game, goal = store.other_goals()[0].split("#")
    env = reset(f"full:{game}#{goal}", observation="text")
    assert f"Your task is to: {env.notes.task}." in env._texts[0] and env._texts[0].count("Your task is to") == 1


@pytest.mark.parametrize(
    "task",
    [
        "full-231",
        "full:train/pick_and_place_simple-Tomato-None-Microwave-13/../trial_G00001",
        "full:train/pick_and_place_simple-Tomato-N/../one-Microwave-13/trial_G00001",
        "full:train/pick_and_place_simple-Tomato-Any-Microwave-13/trial_G00001",  # would be a game of its own
        "full:train/pick_and_place_simple-Tomato-None-Microwave-13/trial_G1",
        "full:train/pick_and_place_simple-Tomato-None-Microwave-13/trial_G00001#a b",
    ],
)
def test_a_bad_task(task):
    with pytest.raises(
        ReflectRLError, match="is no ALFWorld task; an example: 'full:train/pick_and_place_simple-Tomato"
    ):
        Household().reset(options={"task": task})


def test_a_trial_without_a_number():
    with pytest.raises(
        ReflectRLError, match="'trial_G00 1' names no trial of a generated game; an example: trial_G00007"
    ):
        games.trial_number("trial_G00 1")


def test_slots_are_used_again():
    task = task_of(example("pick_and_place_simple"))
    slots = set()
    for _ in range(5):
        env = reset(task)
        slots.add(env._slot)
        del env
    assert len(slots) == 1
