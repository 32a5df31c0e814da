import json
import pickle
from collections import deque
from hashlib import sha256

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from matplotlib.figure import Figure

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.play import act, advised_action, begin, expert_steps
from reflect_rl.envs.taxi import env as taxi
from reflect_rl.envs.taxi.draw import GLYPHS
from reflect_rl.envs.taxi.spec import SPEC

SOUTH, NORTH, EAST, WEST, PICK_UP, DROP_OFF = range(6)
INVALID = 6
ORIGINAL = gym.make("Taxi-v4").unwrapped
FACTS = {state: tuple(ORIGINAL.decode(state)) for state in ORIGINAL.P}  # row, column, passenger, destination


def make(**options):
    return SPEC.make(**options)


def start(task, **options):
    env = make(**options)
    observation, info = env.reset(options={"task": task})
    return env, observation, info


def all_starts():
    return [state for split in taxi.SPLITS for name in ("full", "pairs") for state in taxi.starts(name, split)]


def reachable(mode):
    """Every (state, was_aboard) of play in a mode, by breadth-first search from all starts of all splits."""
    env = make(horizon=10)
    env.reset(options={"task": taxi.tasks(mode, "train")[0]})
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
        _, reward, terminated, truncated, info = env.step(env.expert_action())
        rewards.append(reward)
        if terminated or truncated:
            return rewards, terminated, truncated, info


# --- the environment's contract ---


@pytest.mark.filterwarnings("error")
def test_environment_passes_gymnasiums_checker_without_a_warning():
    check_env(gym.make("reflect_rl/DangerousTaxi-v0").unwrapped)


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
        target = ORIGINAL.locs[goal if aboard else passenger]
        sides = {"south": target[0] > row, "north": target[0] < row, "east": target[1] > col, "west": target[1] < col}
        stuck = [ORIGINAL.P[state][action][0][1] == state for action in range(4)]  # south, north, east, west
        assert facts == {
            "taxi": (row, col),
            "aboard": aboard,
            "passenger": None if aboard else "RGYB"[passenger],
            "destination": "RGYB"[goal],
            "towards": [side for side, is_there in sides.items() if is_there] or ["here"],
            "walls": [side for side, is_stuck in zip(sides, stuck, strict=True) if is_stuck],
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


def test_panels_are_disjoint_and_hold_all_300_starts():
    sizes = {name: [len(taxi.starts(name, split)) for split in taxi.SPLITS] for name in ("full", "pairs")}
    assert sizes == {"full": [90, 50, 60], "pairs": [0, 50, 50]}
    initial = {s for s, p in enumerate(ORIGINAL.initial_state_distrib) if p > 0}
    assert len(initial) == 300
    assert sorted(all_starts()) == sorted(initial)  # each once


def test_no_other_panel_runs_between_the_landmarks_of_a_held_out_pair():
    pairs = {
        (name, split): {FACTS[state][2:] for state in taxi.starts(name, split)}
        for name in ("full", "pairs")
        for split in taxi.SPLITS
    }
    for split in ("validation", "test"):
        own = pairs.pop(("pairs", split))
        assert own == set(taxi.held_out_pairs(split)) and len(own) == 2
        assert not any(own & others for others in pairs.values())
    rows = [row for row, _ in ORIGINAL.locs]
    assert all(rows[a] != rows[b] for split in taxi.HELD_OUT for a, b in taxi.held_out_pairs(split))


def test_panels_never_change():
    listed = {f"{name} {split}": taxi.tasks(name, split) for name in taxi.SETTINGS for split in taxi.SPLITS}
    assert (
        sha256(json.dumps(listed).encode()).hexdigest()
        == "9b5c69d60e81775540591cfb3e6d1f3e220977aad29833aeaeff1a1a32bb977c"
    )


def test_optimal_episodes_take_6_to_18_steps_and_80_7_percent_fit_in_15():
    lengths = np.array([taxi.shortest(f"full-{state}") for state in all_starts()])
    assert (lengths.min(), lengths.max()) == (6, 18)
    assert round(lengths.mean(), 2) == 13.07
    assert round((lengths <= 15).mean(), 3) == 0.807
    assert (lengths <= 18).all()


def test_ceiling_is_the_share_of_a_panel_that_can_be_finished():
    lengths = np.array([taxi.shortest(task) for task in taxi.tasks("full", "test")])
    assert SPEC.ceiling("full", "test", 15) == (lengths <= 15).mean() < 1
    assert SPEC.ceiling("full", "test", 18) == 1
    assert SPEC.ceiling("full", "test", 5) == 0


def test_expert_is_the_oracle_and_its_steps_are_counted():
    for task in taxi.tasks("full", "validation")[:20]:
        assert expert_steps(SPEC, task) == SPEC.oracle_steps(task) == taxi.shortest(task)


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
            env, _, _ = start(task, horizon=50)
            rewards, terminated, truncated, info = oracle(env)
            assert len(rewards) == taxi.shortest(task)
            assert (terminated, truncated, info["success"]) == (True, False, True)


# --- rewards and endings ---


def test_every_useless_action_is_fatal_and_costs_half_a_point(states_of_play):
    env, _, _ = start(taxi.tasks("full", "train")[0])
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
                assert "ended" not in info and reward in (-0.05, 1.0)
    assert seen > 500


def test_success_is_not_termination():
    env, _, info = start(taxi.tasks("full", "train")[0])
    assert info["success"] is False
    fatal = next(a for a in range(6) if a not in env.safe_actions())
    _, _, terminated, _, info = env.step(fatal)
    assert terminated and info["success"] is False


def drive_to_passenger(env):
    while env.phase() != "at passenger":
        _, reward, terminated, _, _ = env.step(env.expert_action())
        assert reward == -0.05 and not terminated


def test_first_pickup_and_delivery_are_rewarded_other_steps_cost():
    task = taxi.tasks("full", "train")[0]
    env, _, _ = start(task)
    rewards, *_ = oracle(env)
    assert sorted(rewards) == [-0.05] * (len(rewards) - 2) + [1.0, 1.0]
    assert rewards[-1] == 1.0
    assert rewards[taxi.shortest(task.replace("full", "pickup")) - 1] == 1.0


def test_second_pickup_after_a_set_down_is_not_rewarded():
    env, _, _ = start(taxi.tasks("full", "train")[0])
    drive_to_passenger(env)
    rewards = [env.step(action)[1] for action in (PICK_UP, DROP_OFF, PICK_UP)]
    assert rewards == [1.0, -0.05, -0.05]


def test_pickup_is_not_rewarded_without_milestone_but_delivery_is():
    env, _, _ = start(taxi.tasks("full", "train")[0], milestone=False)
    rewards, _, _, info = oracle(env)
    assert rewards == [-0.05] * (len(rewards) - 1) + [1.0]
    assert info["success"] is True


def test_pickup_is_not_rewarded_in_dropoff_mode():
    for task in taxi.tasks("dropoff", "train"):
        env, _, _ = start(task)
        row, col = FACTS[env.state][:2]
        if (row, col) in [(0, 0), (0, 4), (4, 0), (4, 3)] and env.phase() == "to destination":
            assert [env.step(action)[1] for action in (DROP_OFF, PICK_UP)] == [-0.05, -0.05]
            return
    pytest.fail("no drop-off task starts on a landmark")


def test_pickup_mode_ends_with_success_at_the_pickup():
    env, _, _ = start(taxi.tasks("pickup", "train")[0])
    drive_to_passenger(env)
    observation, reward, terminated, truncated, info = env.step(PICK_UP)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"] is True
    assert taxi.describe(observation)["aboard"]


def test_pickup_mode_without_milestone_succeeds_without_the_reward():
    env, _, _ = start(taxi.tasks("pickup", "train")[0], milestone=False)
    drive_to_passenger(env)
    _, reward, terminated, _, info = env.step(PICK_UP)
    assert (reward, terminated, info["success"]) == (-0.05, True, True)


@pytest.mark.parametrize("action", [INVALID, -1, np.int64(17)])
def test_invalid_action_costs_a_step_changes_nothing_and_is_named(action):
    env, before, _ = start(taxi.tasks("full", "train")[0], horizon=2)
    after, reward, terminated, truncated, info = env.step(action)
    assert after == before
    assert (reward, terminated, truncated) == (-0.05, False, False)
    assert (info["invalid_action"], info["success"]) == (action, False)
    after, _, terminated, truncated, info = env.step(action)
    assert (after, terminated, truncated) == (before, False, True)


def test_valid_action_names_no_invalid_one():
    env, _, _ = start(taxi.tasks("full", "train")[0])
    assert "invalid_action" not in env.step(env.expert_action())[4]


def test_horizon_truncates_an_episode_that_goes_on():
    task = next(t for t in taxi.tasks("full", "train") if taxi.shortest(t) > 8)
    env, _, _ = start(task, horizon=8)
    rewards, terminated, truncated, info = oracle(env)
    assert len(rewards) == 8
    assert (terminated, truncated, info["success"]) == (False, True, False)


def test_success_at_the_very_horizon_counts_and_does_not_truncate():
    task = taxi.tasks("full", "train")[0]
    env, _, _ = start(task, horizon=taxi.shortest(task))
    _, terminated, truncated, info = oracle(env)
    assert (terminated, truncated, info["success"]) == (True, False, True)


# --- seeds ---


def wander(env, seed, actions):
    observation, info = env.reset(seed=seed)
    seen = [(observation, info["task"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, reward, info.get("ended")))
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
        together.append((observation, reward, info.get("ended")))
        if terminated or truncated:
            observation, info = env.reset()
            together.append((observation, info["task"]))
    assert together == alone


def test_tasks_are_drawn_from_the_full_training_tasks():
    env = make()
    drawn = {env.reset(seed=seed)[1]["task"] for seed in range(40)}
    assert drawn <= set(taxi.tasks("full", "train"))
    assert len(drawn) > 20


def test_a_named_task_does_not_change_what_later_resets_draw():
    env = make()
    env.reset(seed=0, options={"task": taxi.tasks("pickup", "train")[0]})
    assert env.reset()[1]["task"].startswith("full-")


def test_task_id_rebuilds_the_episode_exactly_and_survives_json():
    env = make()
    first, info = env.reset(seed=5)
    again, other = start(json.loads(json.dumps(info["task"])))[1:]
    assert (again, other) == (first, info)


def test_pickled_environment_goes_on_alike():
    env, _, _ = start(taxi.tasks("full", "train")[0])
    env.reset(seed=1)
    env.step(env.expert_action())
    copy = pickle.loads(pickle.dumps(env))
    assert [copy.step(copy.expert_action())[:4] for _ in range(4)] == [
        env.step(env.expert_action())[:4] for _ in range(4)
    ]
    assert copy.reset()[1]["task"] == env.reset()[1]["task"]  # the generator travels too


# --- messages ---


def test_a_horizon_without_a_step_is_refused():
    with pytest.raises(ReflectRLError, match="horizon 0 leaves no step; give 1 or more"):
        make(horizon=0)


@pytest.mark.parametrize("task", ["full-0", "full-", "full-x", "full", "full-99999", "dropoff-1", "full-²"])
def test_unknown_task_is_named(task):
    with pytest.raises(ReflectRLError, match=rf"unknown taxi task '{task}'; take one from"):
        make().reset(options={"task": task})


def test_unknown_setting_in_a_task_lists_the_settings():
    with pytest.raises(ReflectRLError, match="unknown setting 'half'; choose one of: pickup, dropoff, full, pairs"):
        make().reset(options={"task": "half-3"})
    with pytest.raises(ReflectRLError, match="unknown split 'dev'"):
        taxi.tasks("full", "dev")
    with pytest.raises(ReflectRLError, match="unknown setting 'half'"):
        taxi.tasks("half", "train")


# --- the registration ---


def test_numbers_of_the_paper_stand_beside_horizon_20_alone():
    assert SPEC.reported_rate("full", "reflect_rl", 20) == 0.58 and SPEC.reported_rate("full", "sft_rl", 20) == 0.0
    assert SPEC.reported_rate("full", "reflect_rl", 15) is None
    assert SPEC.reported_rate("full", "sft_only") is SPEC.reported_rate("pickup", "reflect_rl") is None


def test_slips_are_all_other_actions_that_survive(states_of_play):
    """A slip may be another way that is as short: such a one is no wrong action, and gives no negative example."""
    env, _, _ = start(taxi.tasks("full", "train")[0])
    also_good = 0
    for env.state, env.was_aboard in states_of_play["full"]:
        if FACTS[env.state][2] != FACTS[env.state][3]:
            assert set(env.slips()) == set(env.safe_actions()) - {env.expert_action()}
            assert env.expert_action() in env.good_actions()
            also_good += bool(set(env.slips()) & set(env.good_actions()))
    assert also_good > 50


# --- the teacher ---


def situations(task):
    """Every situation one or no wrong step away from the oracle's way, each with the state that it is in."""
    env = make(horizon=1000)
    for length in range(taxi.shortest(task)):
        for action in (None, *range(6)):
            now = begin(SPEC, env, task)
            for _ in range(length):
                now = act(SPEC, env, now, env.expert_action())
            if action is not None:
                now = act(SPEC, env, now, action) if action in env.safe_actions() else None
            if now is not None and (action is not None or length == 0):
                yield now, env.state


@pytest.mark.parametrize("task", sorted(taxi.tasks("full", "train"), key=taxi.shortest)[-4:])
def test_teacher_names_the_experts_action_the_feedback_and_the_passenger(task):
    seen = set()
    for now, state in situations(task):
        text = SPEC.teacher(now)
        assert text.endswith(f"Next: {now.expert_action}.") and "\n" not in text
        words = {"start": "Starting:", "right": "was right:", "wrong": "was wrong:"}
        assert [word in text for word in words.values()] == [now.action_feedback == key for key in words]
        passenger, goal = FACTS[state][2:]
        aboard = passenger == taxi.ABOARD
        assert (f"aboard for {'RGYB'[goal]}" if aboard else f"waits at {'RGYB'[passenger]}") in text
        seen.add((now.action_feedback, aboard))
    assert seen >= {("start", False), ("right", False), ("right", True), ("wrong", False), ("wrong", True)}


def test_teacher_by_hand():
    env = make()
    now = begin(SPEC, env, "full-64")
    assert SPEC.teacher(now) == f"Starting: the passenger waits at G. Next: {now.expert_action}."
    wrong = next(a for a in env.safe_actions() if a not in env.good_actions())
    now = act(SPEC, env, now, wrong)
    gerund = {"move south": "Moving south", "move north": "Moving north", "move east": "Moving east"}
    gerund |= {"move west": "Moving west", "pick up": "Picking up", "drop off": "Dropping off"}
    expected = f"{gerund[now.last_action]} was wrong: the passenger waits at G. Next: {now.expert_action}."
    assert SPEC.teacher(now) == expected


@pytest.mark.parametrize("task", sorted(taxi.tasks("full", "train"), key=taxi.shortest)[-4:])
def test_hint_tells_goal_direction_and_walls_and_verdict_less_and_neither_an_action(task):
    for now, _ in situations(task):
        facts, hint, verdict = (
            taxi.describe(now.observation),
            SPEC.teacher_of("hint")(now),
            SPEC.teacher_of("verdict")(now),
        )
        assert advised_action(hint, now.actions) is advised_action(verdict, now.actions) is None
        stated = SPEC.facts_of(hint)
        assert stated["where"] == " and ".join(facts["towards"])
        assert stated["walls"] == (" ".join(facts["walls"]) or "none")
        assert stated["goal"].endswith(facts["destination"] if facts["aboard"] else facts["passenger"])
        assert hint.startswith(verdict) and SPEC.facts_of(verdict) == {"verdict": stated["verdict"]}
        assert SPEC.facts_of(SPEC.teacher(now)) | {"where": "", "walls": ""} == {
            "verdict": stated["verdict"],
            "goal": stated["goal"].replace("passenger to", "aboard for").replace("passenger at", "waits at"),
            "action": now.expert_action,
            "where": "",
            "walls": "",
        }


def test_hint_by_hand():
    now = begin(SPEC, make(), "full-64")
    assert SPEC.teacher_of("hint")(now) == "Starting. Goal: fetch the passenger at G, east. Walls: north."


# --- its texts and the small models from scratch ---


@pytest.fixture(scope="module")
def tokenizer():
    from reflect_rl.lm.prompts import policy_prompt
    from reflect_rl.lm.tokenizers import train_tokenizer

    texts = []
    for task in taxi.tasks("full", "train")[:12]:
        for now, _ in situations(task):
            reflection = SPEC.teacher(now)
            texts.append(policy_prompt(now.observation, now.last_action, now.actions, reflection) + " [1]")
    return train_tokenizer(texts, SPEC.labels.names, ModelConfig(), SPEC.tokenizer_pattern)


def test_texts_fit_the_context_and_the_reflections_their_limit(tokenizer):
    from reflect_rl.lm.prompts import policy_prompt, reflection_prompt

    def tokens(text):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        return len(ids)

    config = ModelConfig()
    for task in taxi.tasks("full", "train")[:4]:
        for now, _ in situations(task):
            reflection = SPEC.teacher(now)
            assert tokens(reflection_prompt(now.observation, now.last_action)) <= config.context - config.max_new_tokens
            assert tokens(f" {reflection}") + 1 <= config.max_new_tokens  # and the end of text
            assert tokens(policy_prompt(now.observation, now.last_action, now.actions, reflection)) < config.context


def test_a_row_of_the_grid_is_never_split_by_the_pattern():
    import re

    grid = taxi.grid(taxi.starts("full", "test")[0], False)
    assert re.findall(SPEC.tokenizer_pattern, grid) == grid.splitlines(keepends=True)


# --- the drawing ---


def test_a_scene_shows_walls_landmarks_and_symbols():
    grid = taxi.grid(int(ORIGINAL.encode(0, 1, 2, 1)), False)
    axis = Figure().add_subplot()
    SPEC.load_draw().draw(axis, grid)
    assert len(axis.get_lines()) == grid.count("| ") > 3
    assert [text.get_text() for text in axis.texts] == ["R", "G", "Y", "B"]
    cells, frame = 25 + 4, 1  # the landmarks' cells are coloured
    assert len(axis.patches) == cells + frame + sum(len(GLYPHS[symbol][1]()) for symbol in "twd")


def test_legend_explains_every_symbol():
    axis = Figure().add_subplot()
    SPEC.load_draw().draw_legend(axis)
    assert [text.get_text() for text in axis.texts] == [
        *(meaning for meaning, _ in GLYPHS.values()),
        "→ action (reward)",
    ]


def test_another_text_than_a_grid_is_refused():
    grid = taxi.grid(int(ORIGINAL.encode(0, 1, 2, 1)), False)
    with pytest.raises(ReflectRLError, match="not a taxi grid"):
        SPEC.load_draw().draw(Figure().add_subplot(), grid[:-3])
