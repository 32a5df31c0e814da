"""The environment of DangerousTaxi: its tasks, its states as text, and the oracle that searches them."""

from collections import deque
from functools import cache
from hashlib import sha256

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.toy_text.taxi import TaxiEnv

from reflect_rl.core.errors import ReflectRLError, unknown

ACTIONS = ("move south", "move north", "move east", "move west", "pick up", "drop off")
PICK_UP, DROP_OFF = 4, 5
ABOARD = 4
LANDMARKS = "RGYB"
MODES = ("pickup", "dropoff", "full")
SPLITS = {"train": 140, "validation": 60, "test": 100}
REWARD_SCALE = 20


@cache
def _gymnasium_taxi() -> TaxiEnv:
    """Gymnasium's own environment: the source of the map, the encoding and the transitions."""
    return gym.make("Taxi-v4").unwrapped


@cache
def starts(split: str) -> tuple[int, ...]:
    """Initial states of a split, as Gymnasium numbers them.

    The 300 initial states are ordered by the SHA-256 of their number, so the split never changes.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    initial = [s for s, p in enumerate(_gymnasium_taxi().initial_state_distrib) if p > 0]
    ordered = sorted(initial, key=lambda s: sha256(f"DangerousTaxi {s}".encode()).hexdigest())
    first = sum(size for name, size in SPLITS.items() if list(SPLITS).index(name) < list(SPLITS).index(split))
    return tuple(ordered[first : first + SPLITS[split]])


@cache
def tasks(mode: str, split: str) -> tuple[str, ...]:
    """Task ids of a mode and split, such as `full-231`.

    Drop-off tasks put the passenger of each start aboard; starts that then coincide are listed once.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    states = starts(split)
    if mode == "dropoff":
        taxi = _gymnasium_taxi()
        decoded = (tuple(taxi.decode(s)) for s in states)
        states = dict.fromkeys(int(taxi.encode(row, col, ABOARD, goal)) for row, col, _, goal in decoded)
    return tuple(f"{mode}-{state}" for state in states)


def parse_task(task: str) -> tuple[str, int]:
    """`full-231` -> (`full`, 231); raises where the id names no start of that mode."""
    mode, _, number = str(task).partition("-")
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if not (number.isdigit() and any(task in tasks(mode, split) for split in SPLITS)):
        raise ReflectRLError(f"unknown taxi task {task!r}; take one from reflect_rl.envs.taxi.env.tasks(mode, split)")
    return mode, int(number)


@cache
def grid(state: int, was_aboard: bool) -> str:
    """All of the state as five lines of text; see the legend in `spec`.

    `was_aboard` tells a passenger that was set down again from one that has not been picked up yet:
    only the first pickup is rewarded.
    """
    taxi = _gymnasium_taxi()
    row, col, passenger, goal = taxi.decode(state)
    lines = []
    for i in range(5):
        line = "|"
        for j in range(5):
            here = taxi.locs.index((i, j)) if (i, j) in taxi.locs else None
            occupant = "." if (i, j) != (row, col) else "T" if passenger == ABOARD else "t"
            place = "." if here is None else LANDMARKS[here]
            if here is None:
                tag = "."
            elif here == passenger:
                tag = "*" if here == goal else "s" if was_aboard else "w"
            else:
                tag = "d" if here == goal else "."
            line += occupant + place + tag + taxi.desc[1 + i, 2 * j + 2].decode() + " "
        lines.append(line.rstrip())
    return "\n".join(lines)


def describe(observation: str) -> dict:
    """Read a grid back: taxi (row, column), aboard, passenger's landmark, destination, set_down, delivered."""
    facts = {"aboard": False, "passenger": None, "destination": None, "set_down": False, "delivered": False}
    for i, line in enumerate(observation.splitlines()):
        for j in range(5):
            occupant, place, tag = line[1 + 5 * j : 4 + 5 * j]
            if occupant != ".":
                facts["taxi"] = (i, j)
                facts["landmark"] = None if place == "." else place
                facts["aboard"] = occupant == "T"
            if tag in "ws*":
                facts["passenger"] = place
                facts["set_down"] = tag == "s"
            if tag in "d*":
                facts["destination"] = place
                facts["delivered"] = tag == "*"
    return facts


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
    for state in taxi.P:
        if not _delivered(state):
            for action in range(len(ACTIONS)):
                after = _transition(state, action)
                if after != state:
                    before.setdefault(after, []).append(state)
    aboard = [s for s in taxi.P if taxi.decode(s)[2] == ABOARD]
    goals = aboard if mode == "pickup" else [s for s in taxi.P if _delivered(s)]
    distance = dict.fromkeys(goals, 0)
    queue = deque(goals)
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

    Observation: the grid (`spaces.Text`). Action: an index into `info["actions"]`; all six are legal in
    every state, and knowing which of them are fatal is the task. `reset(options={"task": "full-231"})`
    starts that very episode; without it the task is drawn from `split` by the environment's own generator.

    Args:
        mode: of the tasks that are drawn; `pickup` ends with the pickup, `dropoff` begins with the passenger aboard,
            `full` is both.
        split: where tasks are drawn from when `reset` names none.
        horizon: steps after which the episode is truncated.
        milestone: whether the first pickup is rewarded.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, mode="full", split="train", horizon=20, milestone=True, render_mode=None):
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if horizon < 1:
            raise ReflectRLError(f"horizon {horizon} leaves no step; give 1 or more")
        if render_mode not in (None, "ansi"):
            raise unknown("render mode", render_mode, ["ansi"])
        self.drawn_mode, self.split, self.horizon, self.milestone = mode, split, horizon, milestone
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Text(max_length=129, min_length=129, charset="|:. \ntTwsd*" + LANDMARKS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            choices = tasks(self.drawn_mode, self.split)
            task = choices[self.np_random.integers(len(choices))]
        self.mode, self.state = parse_task(task)
        self.task = task
        self.was_aboard = self.mode == "dropoff"
        self.steps = 0
        return self._observation(), self._info()

    def step(self, action):
        action = int(action)
        self.steps += 1
        out_of_time = self.steps >= self.horizon
        if not 0 <= action < len(ACTIONS):
            info = self._info(invalid_action=action)
            return self._observation(), -1 / REWARD_SCALE, False, out_of_time, info
        after = _transition(self.state, action)
        fatal = after == self.state
        picked_up = not fatal and action == PICK_UP
        delivered = _delivered(after)
        success = picked_up if self.mode == "pickup" else delivered
        rewarded = delivered or (picked_up and self.milestone and not self.was_aboard)
        reward = -10 if fatal else 20 if rewarded else -1
        self.state = after
        self.was_aboard = self.was_aboard or picked_up
        terminated = fatal or success
        info = self._info(success, ended="danger") if fatal else self._info(success)
        return self._observation(), reward / REWARD_SCALE, terminated, out_of_time and not terminated, info

    def render(self):
        return self._observation() if self.render_mode == "ansi" else None

    def expert_action(self) -> int:
        """Index of the first action on a shortest way to success: the grid shows all, so the oracle's is the same."""
        return min(range(len(ACTIONS)), key=self._distance_after)

    def good_actions(self) -> tuple[int, ...]:
        """Indices of the actions that shorten the way to success."""
        distance = _distances(self.mode)[self.state]
        return tuple(action for action in range(len(ACTIONS)) if self._distance_after(action) < distance)

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

    def _distance_after(self, action):
        after = _transition(self.state, action)
        return float("inf") if after == self.state else _distances(self.mode)[after]

    def _observation(self):
        return grid(self.state, self.was_aboard)

    def _info(self, success=False, **more):
        return {"actions": ACTIONS, "success": success, "task": self.task, **more}
