"""The environment of DangerousTaxi: its tasks, its states as text, and the oracle that searches them."""

import itertools
import operator
from collections import deque
from collections.abc import Iterable
from functools import cache
from hashlib import sha256

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.toy_text.taxi import TaxiEnv

from reflect_rl.core.errors import ReflectRLError, unknown

ACTIONS = ("move south", "move north", "move east", "move west", "pick up", "drop off")
PICK_UP = 4
ABOARD = 4  # the passenger's place in Gymnasium's encoding of a state
LANDMARKS = "RGYB"
MODES = ("pickup", "dropoff", "full")
SETTINGS = (*MODES, "pairs")
SPLITS = {"train": slice(0, 90), "validation": slice(90, 140), "test": slice(140, 200)}
HELD_OUT = {"validation": slice(0, 2), "test": slice(2, 4)}
REWARD_SCALE = 20


@cache
def _gymnasium_taxi() -> TaxiEnv:
    """Gymnasium's own environment: the source of the map, the encoding and the transitions."""
    return gym.make("Taxi-v4").unwrapped


def _shuffled(items: Iterable) -> list:
    """The items in the order of the SHA-256 of their names."""
    return sorted(items, key=lambda item: sha256(f"DangerousTaxi 2 {item}".encode()).hexdigest())


@cache
def held_out_pairs(split: str) -> tuple[tuple[int, int], ...]:
    """(passenger's landmark, destination) of the episodes of `pairs`, which no other panel has; none for training.

    Both lie in different rows of the grid: of two in one row its text would be new, too.
    """
    rows = [row for row, _ in _gymnasium_taxi().locs]
    found = _shuffled((a, b) for a, b in itertools.permutations(range(ABOARD), 2) if rows[a] != rows[b])
    return tuple(found[HELD_OUT[split]]) if split in HELD_OUT else ()


@cache
def starts(setting: str, split: str) -> tuple[int, ...]:
    """Initial states of a split, as Gymnasium numbers them: of the pairs held out for it, or of all that are not."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    taxi = _gymnasium_taxi()
    initial = [s for s, p in enumerate(taxi.initial_state_distrib) if p > 0]
    pair = {state: tuple(taxi.decode(state))[2:] for state in initial}
    if setting == "pairs":
        return tuple(_shuffled(state for state in initial if pair[state] in held_out_pairs(split)))
    held_out = {each for name in HELD_OUT for each in held_out_pairs(name)}
    return tuple(_shuffled(state for state in initial if pair[state] not in held_out)[SPLITS[split]])


@cache
def tasks(setting: str, split: str) -> tuple[str, ...]:
    """Task ids of a setting and split, such as `full-231`.

    `pickup` ends with the pickup, `dropoff` begins with the passenger aboard (equal ones listed once), `full` is both;
    `pairs` are full ones from a landmark to a destination between which no training episode runs.
    """
    if setting not in SETTINGS:
        raise unknown("setting", setting, SETTINGS)
    states, taxi = starts(setting, split), _gymnasium_taxi()
    if setting == "dropoff":
        decoded = (tuple(taxi.decode(s)) for s in states)
        states = dict.fromkeys(int(taxi.encode(row, col, ABOARD, goal)) for row, col, _, goal in decoded)
    return tuple(f"{'full' if setting == 'pairs' else setting}-{state}" for state in states)


def parse_task(task: str) -> tuple[str, int]:
    """`full-231` -> (`full`, 231); raises where the id names no start of that mode."""
    mode, _, number = str(task).partition("-")
    settings = ("full", "pairs") if mode == "full" else (mode,)
    if not any(task in tasks(setting, split) for setting in settings for split in SPLITS):
        raise ReflectRLError(f"unknown taxi task {task!r}; take one from reflect_rl.envs.taxi.env.tasks(mode, split)")
    return mode, int(number)


@cache
def grid(state: int, was_aboard: bool) -> str:
    """All of the state as five lines of text; see the legend in `spec`.

    `was_aboard` tells a passenger that was set down again, whom to pick up is not rewarded, from one that still waits.
    """
    taxi = _gymnasium_taxi()
    row, col, passenger, goal = taxi.decode(state)
    occupants = {(row, col): "T" if passenger == ABOARD else "t"}
    places = dict(zip(taxi.locs, LANDMARKS, strict=True))
    tags = {taxi.locs[goal]: "d"}
    if passenger != ABOARD:
        tags[taxi.locs[passenger]] = "*" if passenger == goal else "s" if was_aboard else "w"
    lines = []
    for i in range(5):
        cells = ["".join(layer.get((i, j), ".") for layer in (occupants, places, tags)) for j in range(5)]
        walls = [taxi.desc[1 + i, 2 * j + 2].decode() for j in range(5)]
        lines.append("|" + " ".join(cell + wall for cell, wall in zip(cells, walls, strict=True)))
    return "\n".join(lines)


def describe(observation: str) -> dict:
    """Read a grid back.

    Keys: the taxi's (row, column), aboard, the passenger's landmark (None if aboard), destination; `towards`, the sides on
    which the landmark lies that is to be reached now (`here` on it), and `walls`, those on which the taxi cannot drive.
    """
    lines = observation.splitlines()
    cells = {(i, j): row[1 + 5 * j : 4 + 5 * j] for i, row in enumerate(lines) for j in range(5)}
    taxi = next(at for at, (occupant, _, _) in cells.items() if occupant in "tT")
    tagged = {tag: place for _, place, tag in cells.values()}
    passenger = tagged.get("w") or tagged.get("s") or tagged.get("*")
    destination, aboard = tagged.get("d") or tagged.get("*"), cells[taxi][0] == "T"
    goal = next(at for at, (_, place, _) in cells.items() if place == (destination if aboard else passenger))
    (row, column), away = taxi, (goal[0] - taxi[0], goal[1] - taxi[1])
    sides = zip(("south", "north", "east", "west"), (away[0] > 0, away[0] < 0, away[1] > 0, away[1] < 0), strict=True)
    east, west = lines[row][4 + 5 * column], lines[row][max(5 * column - 1, 0)]
    closed = {"south": row == 4, "north": row == 0, "east": east == "|", "west": west == "|"}
    return {
        "taxi": taxi,
        "aboard": aboard,
        "passenger": passenger,
        "destination": destination,
        "towards": [side for side, is_there in sides if is_there] or ["here"],
        "walls": [side for side, is_closed in closed.items() if is_closed],
    }


def _transition(state: int, action: int) -> int:
    return int(_gymnasium_taxi().P[state][action][0][1])


def _delivered(state: int) -> bool:
    _, _, passenger, goal = _gymnasium_taxi().decode(state)
    return passenger == goal


@cache
def _distances(mode: str) -> dict[int, int]:
    """Least number of steps to success from every state, by breadth-first search backwards from the goals."""
    taxi = _gymnasium_taxi()
    before: dict[int, list[int]] = {}
    for state in (s for s in taxi.P if not _delivered(s)):
        for after in {_transition(state, action) for action in range(len(ACTIONS))} - {state}:
            before.setdefault(after, []).append(state)
    goals = [s for s in taxi.P if (taxi.decode(s)[2] == ABOARD if mode == "pickup" else _delivered(s))]
    distance, queue = dict.fromkeys(goals, 0), deque(goals)
    while queue:
        state = queue.popleft()
        for previous in before.get(state, ()):
            if previous not in distance:
                distance[previous] = distance[state] + 1
                queue.append(previous)
    return distance


def shortest(task: str) -> int:
    """Length in steps of the shortest successful episode of a task."""
    mode, state = parse_task(task)
    return _distances(mode)[state]


class DangerousTaxi(gym.Env):
    """The taxi environment of the paper, in text.

    Observation: the grid. Action: an index into `info["actions"]`; all six are legal in every state, and knowing which
    of them are fatal is the task. `reset(options={"task": "full-231"})` starts that very episode; without it, a full
    one is drawn from the training tasks. Episodes are truncated after `horizon` steps; `milestone` says whether the
    first pickup is rewarded.
    """

    metadata = {"render_modes": []}

    def __init__(self, horizon: int = 20, milestone: bool = True):
        if horizon < 1:
            raise ReflectRLError(f"horizon {horizon} leaves no step; give 1 or more")
        self.horizon, self.milestone = horizon, milestone
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Text(max_length=129, min_length=129, charset="|:. \ntTwsd*" + LANDMARKS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        given = (options or {}).get("task")
        self.task = str(self.np_random.choice(tasks("full", "train"))) if given is None else given
        self.mode, self.state = parse_task(self.task)
        self.was_aboard, self.steps = self.mode == "dropoff", 0
        return self._observation(), self._info()

    def step(self, action):
        action = operator.index(action)
        self.steps += 1
        out_of_time = self.steps >= self.horizon
        if not 0 <= action < len(ACTIONS):
            return self._observation(), -1 / REWARD_SCALE, False, out_of_time, self._info(invalid_action=action)
        after = _transition(self.state, action)
        fatal, delivered = after == self.state, _delivered(after)
        picked_up = action == PICK_UP and not fatal
        success = picked_up if self.mode == "pickup" else delivered
        rewarded = delivered or (picked_up and self.milestone and not self.was_aboard)
        reward = -10 if fatal else 20 if rewarded else -1
        self.state, self.was_aboard = after, self.was_aboard or picked_up
        terminated = fatal or success
        info = self._info(success, ended="danger") if fatal else self._info(success)
        return self._observation(), reward / REWARD_SCALE, terminated, out_of_time and not terminated, info

    def expert_action(self) -> int:
        """Index of the first action on a shortest way to success: the grid shows all, so the oracle's is the same."""
        return self.good_actions()[0]

    def good_actions(self) -> tuple[int, ...]:
        """Indices of the actions that shorten the way to success."""
        distances = _distances(self.mode)
        after = {action: _transition(self.state, action) for action in self.safe_actions()}
        return tuple(action for action, state in after.items() if distances[state] < distances[self.state])

    def safe_actions(self) -> tuple[int, ...]:
        """Indices of the actions that are not fatal."""
        return tuple(action for action in range(len(ACTIONS)) if _transition(self.state, action) != self.state)

    def slips(self) -> tuple[int, ...]:
        """Indices of the actions that are neither fatal nor the expert's."""
        expert = self.expert_action()
        return tuple(action for action in self.safe_actions() if action != expert)

    def phase(self) -> str:
        """What the episode is about now: `to passenger`, `at passenger`, `to destination` or `at destination`."""
        row, col, passenger, goal = _gymnasium_taxi().decode(self.state)
        target, name = (goal, "destination") if passenger == ABOARD else (passenger, "passenger")
        return f"{'at' if (row, col) == _gymnasium_taxi().locs[target] else 'to'} {name}"

    def _observation(self):
        return grid(self.state, self.was_aboard)

    def _info(self, success=False, **more):
        return {"actions": ACTIONS, "success": success, "task": self.task, **more}
