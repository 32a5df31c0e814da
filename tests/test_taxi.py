import json
import pickle
import random
from collections import deque
from hashlib import sha256

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from reflect_rl.envs import domain, taxi
from reflect_rl.errors import ReflectRLError

SOUTH, NORTH, EAST, WEST, PICK_UP, DROP_OFF = range(6)
INVALID = 6
ORIGINAL = gym.make("Taxi-v4").unwrapped
FACTS = {state: tuple(ORIGINAL.decode(state)) for state in ORIGINAL.P}  # row, column, passenger, destination


def make(**options):
    return domain("taxi").make(**options)


def begin(task, **options):
    env = make(**options)
    observation, info = env.reset(options={"task": task})
    return env, observation, info


def all_starts():
    return [state for split in taxi.SPLITS for state in taxi.starts(split)]


def reachable(mode):
    """Every (state, was_aboard) of play in a mode, by breadth-first search from all starts of all splits."""
    env = make(mode=mode, horizon=10)
    found = set()
    for split in taxi.SPLITS:
        for task in taxi.tasks(mode, split):
            env.reset(options={"task": task})
            found.add((env.state, env.was_aboard))
    queue = deque(found)
    while queue:
        state, was_aboard = queue.popleft()
        for action in range(6):
            env.state, env.was_aboard, env.steps = state, was_aboard, 0
            env.step(action)
            after = (env.state, env.was_aboard)
            if after not in found:
                found.add(after)
                # nothing is played after the end: a delivered passenger, or in pickup mode one aboard
                passenger, goal = FACTS[env.state][2:]
                if passenger != goal and not (mode == "pickup" and passenger == taxi.ABOARD):
                    queue.append(after)
    return found


@pytest.fixture(scope="module")
def states_of_play():
    return {mode: reachable(mode) for mode in taxi.MODES}


def oracle(env):
    """Play the oracle to the end; the rewards, and the last step's (terminated, truncated, info)."""
    rewards = []
    while True:
        _, reward, terminated, truncated, info = env.step(env.best_action())
        rewards.append(reward)
        if terminated or truncated:
            return rewards, terminated, truncated, info


# --- the environment's contract ---


@pytest.mark.parametrize("mode", taxi.MODES)
@pytest.mark.filterwarnings("error")
def test_environment_passes_gymnasiums_checker_without_a_warning(mode):
    check_env(gym.make("reflect_rl/DangerousTaxi-v0", mode=mode, render_mode="ansi").unwrapped)


def test_registered_environment_starts_the_named_task():
    env = gym.make("reflect_rl/DangerousTaxi-v0")
    task = taxi.tasks("full", "test")[0]
    observation, info = env.reset(options={"task": task})
    assert info["task"] == task
    assert info["actions"] == taxi.ACTIONS and len(set(info["actions"])) == 6
    assert env.observation_space.contains(observation)


def test_every_state_of_play_has_a_text_of_its_own(states_of_play):
    states = set().union(*states_of_play.values())
    texts = {taxi.grid(*state) for state in states}
    assert len(texts) == len(states) > 500


def test_grid_tells_a_waiting_passenger_from_one_that_was_set_down(states_of_play):
    both = [s for s, aboard in states_of_play["full"] if not aboard and (s, True) in states_of_play["full"]]
    waiting = [s for s in both if FACTS[s][2] != FACTS[s][3]]
    assert waiting
    assert all(taxi.grid(s, False) != taxi.grid(s, True) for s in waiting)


@pytest.mark.parametrize("mode", taxi.MODES)
def test_describe_reads_every_fact_back_and_the_text_fits_its_space(states_of_play, mode):
    space = make().observation_space
    for state, was_aboard in states_of_play[mode]:
        row, col, passenger, goal = FACTS[state]
        text = taxi.grid(state, was_aboard)
        assert space.contains(text)
        facts = taxi.describe(text)
        aboard = passenger == taxi.ABOARD
        places = {(0, 0): "R", (0, 4): "G", (4, 0): "Y", (4, 3): "B"}
        assert facts == {
            "taxi": (row, col),
            "landmark": places.get((row, col)),
            "aboard": aboard,
            "passenger": None if aboard else "RGYB"[passenger],
            "destination": "RGYB"[goal],
            "set_down": not aboard and was_aboard and passenger != goal,
            "delivered": passenger == goal,
        }


def test_grid_by_hand():
    state = ORIGINAL.encode(0, 1, 2, 1)  # row 0, column 1, passenger at Y, to G
    assert taxi.grid(int(state), False).splitlines() == [
        "|.R.: t..| ...: ...: .Gd|",
        "|...: ...| ...: ...: ...|",
        "|...: ...: ...: ...: ...|",
        "|...| ...: ...| ...: ...|",
        "|.Yw| ...: ...| .B.: ...|",
    ]


# --- facts of the task ---


def test_there_are_300_starts_split_140_60_100_disjoint_and_complete():
    sizes = {split: len(taxi.starts(split)) for split in taxi.SPLITS}
    assert sizes == {"train": 140, "validation": 60, "test": 100}
    initial = {s for s, p in enumerate(ORIGINAL.initial_state_distrib) if p > 0}
    assert len(initial) == 300
    assert sorted(all_starts()) == sorted(initial)  # each once


def test_split_never_changes():
    listed = {split: [int(s) for s in taxi.starts(split)] for split in taxi.SPLITS}
    assert (
        sha256(json.dumps(listed).encode()).hexdigest()
        == "7073596264608820bc2222c77bd71887af42ab4dffd70b0ddc4117077cd8730d"
    )


def test_optimal_episodes_take_6_to_18_steps_and_80_7_percent_fit_in_15():
    lengths = np.array([taxi.shortest(f"full-{state}") for state in all_starts()])
    assert (lengths.min(), lengths.max()) == (6, 18)
    assert round(lengths.mean(), 2) == 13.07
    assert round((lengths <= 15).mean(), 3) == 0.807
    assert (lengths <= 18).all()


def test_ceiling_is_the_share_of_a_panel_that_can_be_finished():
    lengths = np.array([taxi.shortest(task) for task in taxi.tasks("full", "test")])
    assert domain("taxi").ceiling("full", "test", 15) == (lengths <= 15).mean() < 1
    assert domain("taxi").ceiling("full", "test", 18) == 1
    assert domain("taxi").ceiling("full", "test", 5) == 0


def test_shortest_of_full_is_pickup_plus_ride():
    """The whole way is the way to the passenger, the pickup, the ride, the drop-off."""
    env = make(horizon=100)
    for task in taxi.tasks("full", "validation"):
        mode_task = task.replace("full", "pickup")
        env.reset(options={"task": mode_task})
        oracle(env)
        state = env.state
        row, col, _, goal = FACTS[state]
        assert taxi.shortest(task) == taxi.shortest(mode_task) + taxi._distances("dropoff")[state]
        assert (row, col) != [(0, 0), (0, 4), (4, 0), (4, 3)][goal]


def test_dropoff_tasks_put_the_passenger_aboard_and_name_each_start_once():
    panel = taxi.tasks("dropoff", "train")
    assert len(set(panel)) == len(panel) <= 140
    assert all(FACTS[taxi.parse_task(task)[1]][2] == taxi.ABOARD for task in panel)


@pytest.mark.parametrize("mode", taxi.MODES)
def test_oracle_takes_the_shortest_way_and_succeeds(mode):
    for split in taxi.SPLITS:
        for task in taxi.tasks(mode, split):
            env, _, _ = begin(task, horizon=50)
            rewards, terminated, truncated, info = oracle(env)
            assert len(rewards) == taxi.shortest(task)
            assert (terminated, truncated, info["success"], info["ended"]) == (True, False, True, "success")


# --- rewards and endings ---


def test_every_useless_action_is_fatal_and_costs_half_a_point(states_of_play):
    env, _, _ = begin(taxi.tasks("full", "train")[0])
    seen = 0
    for state, was_aboard in states_of_play["full"]:
        if FACTS[state][2] == FACTS[state][3]:
            continue  # delivered: the episode is over
        for action in range(6):
            env.state, env.was_aboard, env.steps = state, was_aboard, 0
            safe = action in env.safe_actions()
            _, reward, terminated, truncated, info = env.step(action)
            useless = ORIGINAL.P[state][action][0][1] == state
            assert safe != useless
            if useless:
                seen += 1
                assert (reward, terminated, truncated) == (-0.5, True, False)
                assert (info["success"], info["ended"]) == (False, "danger")
            else:
                assert info["ended"] != "danger" and reward in (-0.05, 1.0)
    assert seen > 500


def test_success_is_not_termination():
    env, _, info = begin(taxi.tasks("full", "train")[0])
    assert info["success"] is False
    fatal = next(a for a in range(6) if a not in env.safe_actions())
    _, _, terminated, _, info = env.step(fatal)
    assert terminated and info["success"] is False


def drive_to_passenger(env):
    while env.phase() != "at passenger":
        _, reward, terminated, _, _ = env.step(env.best_action())
        assert reward == -0.05 and not terminated


def test_first_pickup_and_delivery_are_rewarded_other_steps_cost():
    task = taxi.tasks("full", "train")[0]
    env, _, _ = begin(task)
    rewards, *_ = oracle(env)
    assert sorted(rewards) == [-0.05] * (len(rewards) - 2) + [1.0, 1.0]
    assert rewards[-1] == 1.0
    assert rewards[taxi.shortest(task.replace("full", "pickup")) - 1] == 1.0


def test_second_pickup_after_a_set_down_is_not_rewarded():
    env, _, _ = begin(taxi.tasks("full", "train")[0])
    drive_to_passenger(env)
    rewards = [env.step(action)[1] for action in (PICK_UP, DROP_OFF, PICK_UP)]
    assert rewards == [1.0, -0.05, -0.05]


def test_pickup_is_not_rewarded_without_milestone_but_delivery_is():
    env, _, _ = begin(taxi.tasks("full", "train")[0], milestone=False)
    rewards, _, _, info = oracle(env)
    assert rewards == [-0.05] * (len(rewards) - 1) + [1.0]
    assert info["success"] is True


def test_pickup_is_not_rewarded_in_dropoff_mode():
    for task in taxi.tasks("dropoff", "train"):
        env, _, _ = begin(task, mode="dropoff")
        row, col = FACTS[env.state][:2]
        if (row, col) in [(0, 0), (0, 4), (4, 0), (4, 3)] and env.phase() == "to destination":
            assert [env.step(action)[1] for action in (DROP_OFF, PICK_UP)] == [-0.05, -0.05]
            return
    pytest.fail("no drop-off task starts on a landmark")


def test_pickup_mode_ends_with_success_at_the_pickup():
    env, _, _ = begin(taxi.tasks("pickup", "train")[0], mode="pickup")
    drive_to_passenger(env)
    observation, reward, terminated, truncated, info = env.step(PICK_UP)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["success"], info["ended"]) == (True, "success")
    assert taxi.describe(observation)["aboard"]


def test_pickup_mode_without_milestone_succeeds_without_the_reward():
    env, _, _ = begin(taxi.tasks("pickup", "train")[0], mode="pickup", milestone=False)
    drive_to_passenger(env)
    _, reward, terminated, _, info = env.step(PICK_UP)
    assert (reward, terminated, info["success"]) == (-0.05, True, True)


@pytest.mark.parametrize("action", [INVALID, -1, np.int64(17)])
def test_invalid_action_costs_a_step_changes_nothing_and_is_named(action):
    env, before, _ = begin(taxi.tasks("full", "train")[0], horizon=2)
    after, reward, terminated, truncated, info = env.step(action)
    assert after == before
    assert (reward, terminated, truncated) == (-0.05, False, False)
    assert (info["invalid_action"], info["success"], info["ended"]) == (action, False, "")
    after, _, terminated, truncated, info = env.step(action)
    assert (after, terminated, truncated, info["ended"]) == (before, False, True, "horizon")


def test_valid_action_names_no_invalid_one():
    env, _, _ = begin(taxi.tasks("full", "train")[0])
    assert "invalid_action" not in env.step(env.best_action())[4]


def test_horizon_truncates_an_episode_that_goes_on():
    task = next(t for t in taxi.tasks("full", "train") if taxi.shortest(t) > 8)
    env, _, _ = begin(task, horizon=8)
    rewards, terminated, truncated, info = oracle(env)
    assert len(rewards) == 8
    assert (terminated, truncated, info["success"], info["ended"]) == (False, True, False, "horizon")


def test_success_at_the_very_horizon_counts_and_does_not_truncate():
    task = taxi.tasks("full", "train")[0]
    env, _, _ = begin(task, horizon=taxi.shortest(task))
    _, terminated, truncated, info = oracle(env)
    assert (terminated, truncated, info["ended"]) == (True, False, "success")


# --- seeds ---


def wander(env, seed, actions):
    observation, info = env.reset(seed=seed)
    seen = [(observation, info["task"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, reward, info["ended"]))
        if terminated or truncated:
            observation, info = env.reset()
            seen.append((observation, info["task"]))
    return seen


ACTIONS = np.random.default_rng(0).integers(6, size=60).tolist()


def test_equal_seeds_give_equal_episodes_and_different_seeds_differ():
    assert wander(make(), 3, ACTIONS) == wander(make(), 3, ACTIONS)
    assert wander(make(), 3, ACTIONS) != wander(make(), 4, ACTIONS)


def test_two_environments_do_not_disturb_each_other():
    alone = wander(make(), 3, ACTIONS)
    env, other = make(), make()
    other.reset(seed=9)
    together = [env.reset(seed=3)]
    together = [(together[0][0], together[0][1]["task"])]
    for action in ACTIONS:
        other.reset()
        other.step(SOUTH)
        observation, reward, terminated, truncated, info = env.step(action)
        together.append((observation, reward, info["ended"]))
        if terminated or truncated:
            observation, info = env.reset()
            together.append((observation, info["task"]))
    assert together == alone


def test_global_generators_are_untouched():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    wander(make(), 3, ACTIONS)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_tasks_are_drawn_from_the_asked_split_and_mode():
    env = make(mode="pickup", split="validation")
    drawn = {env.reset(seed=seed)[1]["task"] for seed in range(40)}
    assert drawn <= set(taxi.tasks("pickup", "validation"))
    assert len(drawn) > 20


def test_a_named_task_does_not_change_what_later_resets_draw():
    env = make(mode="full")
    env.reset(seed=0, options={"task": taxi.tasks("pickup", "train")[0]})
    assert env.reset()[1]["task"].startswith("full-")


def test_task_id_rebuilds_the_episode_exactly_and_survives_json():
    env = make()
    first, info = env.reset(seed=5)
    again, other = begin(json.loads(json.dumps(info["task"])))[1:]
    assert (again, other) == (first, info)


def test_pickled_environment_goes_on_alike():
    env, _, _ = begin(taxi.tasks("full", "train")[0])
    env.reset(seed=1)
    env.step(env.best_action())
    copy = pickle.loads(pickle.dumps(env))
    assert [copy.step(copy.best_action())[:4] for _ in range(4)] == [env.step(env.best_action())[:4] for _ in range(4)]
    assert copy.reset()[1]["task"] == env.reset()[1]["task"]  # the generator travels too


# --- messages ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "picup"}, "unknown mode 'picup'; choose one of: pickup, dropoff, full"),
        ({"split": "dev"}, "unknown split 'dev'; choose one of: train, validation, test"),
        ({"horizon": 0}, "horizon 0 leaves no step; give 1 or more"),
        ({"render_mode": "human"}, "unknown render mode 'human'; choose one of: ansi"),
    ],
)
def test_bad_option_is_named_with_the_way_out(options, message):
    with pytest.raises(ReflectRLError) as error:
        taxi.DangerousTaxi(**options)
    assert str(error.value) == message


@pytest.mark.parametrize("task", ["full-0", "full-", "full-x", "full", "full-99999", "dropoff-1", "full-²"])
def test_unknown_task_is_named(task):
    with pytest.raises(ReflectRLError, match=rf"unknown taxi task '{task}'; take one from"):
        make().reset(options={"task": task})


def test_unknown_mode_in_a_task_lists_the_modes():
    with pytest.raises(ReflectRLError, match="unknown mode 'half'; choose one of: pickup, dropoff, full"):
        make().reset(options={"task": "half-3"})
    with pytest.raises(ReflectRLError, match="unknown split 'dev'"):
        taxi.tasks("full", "dev")
    with pytest.raises(ReflectRLError, match="unknown mode 'half'"):
        taxi.tasks("half", "train")


def test_unknown_environment_lists_the_choices():
    with pytest.raises(ReflectRLError, match="unknown environment 'taxy'; choose one of: taxi"):
        domain("taxy")
