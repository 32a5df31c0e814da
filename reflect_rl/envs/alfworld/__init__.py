"""ALFWorld: household text games, played on TextWorld's own engine.

Observation: what the player knows from what it has read, in compact form (`experts.Notes`). Legal actions: the
engine's admissible commands but for `look`, `inventory`, `help` and `examine ...`, which change nothing; what they
tell, the observation says (where two receptacles share a place, once the player has gone to each). Success is the engine's `won`.
"""

import itertools
import os
import weakref
from functools import cache

import gymnasium as gym
from gymnasium import spaces

from reflect_rl.envs.alfworld import store
from reflect_rl.envs.alfworld.experts import Advice, Goal, Notes, explore, kind, natural
from reflect_rl.envs.alfworld.store import MODES, SETTINGS, parse_task, tasks
from reflect_rl.envs.alfworld.store import provenance as provenance
from reflect_rl.envs.alfworld.workers import Worker, worker
from reflect_rl.errors import ReflectRLError, unknown

GOAL = "A household task, done by going to places, opening them, and taking, treating and moving things."
LEGEND = (
    "Where the player stands and what is there, what is in hand, things of the kinds that the task names and where they "
    "were seen, and the receptacles that are still to be searched: all that the player knows, and nothing that it does not."
)
SILENT = ("look", "inventory", "help", "examine")  # verbs that are left out
STEP, MILESTONE, SUCCESS = -0.02, 0.3, 1.0  # rewards: ours, since the paper's are not known
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :,.\n'-"

_free: dict[int, list[int]] = {}
_next = itertools.count()


def legal(commands) -> tuple[str, ...]:
    """The commands that a player chooses from, in natural order."""
    return tuple(sorted((c for c in commands if c.split(" ")[0] not in SILENT), key=natural))


def heart(command: str) -> str:
    """What tells a command from most others of a state, wherever it is said: the place to go to, the thing to take, or
    else the verb alone, since one thing is in hand and, but for rooms where two share a place, one receptacle is near.
    """
    verb = command.split(" ")[0]
    return command.partition(" from ")[0] if verb in ("go", "take") else verb


class Household(gym.Env):
    """A household task in text.

    `reset(options={"task": "full:train/<task>/<trial>"})` starts that very episode; without it the task is drawn from
    `split` by the environment's own generator. A generated game is made at its first use.

    Args:
        mode: of the tasks that are drawn; `pickup` ends with the object in hand, `dropoff` begins there, `full` is
            the game.
        split: where tasks are drawn from when `reset` names none.
        horizon: steps after which the episode is truncated.
        milestone: whether it is rewarded to take the task's object and to treat it, each once.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, mode="full", split="train", horizon=15, milestone=True, render_mode=None):
        if mode not in (*MODES, *SETTINGS):
            raise unknown("mode", mode, (*MODES, *SETTINGS))
        if horizon < 1:
            raise ReflectRLError(f"horizon {horizon} leaves no step; give 1 or more")
        if render_mode not in (None, "ansi"):
            raise unknown("render mode", render_mode, ["ansi"])
        if split not in store.TRIALS:
            raise unknown("split", split, store.TRIALS)
        self.drawn_mode, self.split, self.horizon, self.milestone = mode, split, horizon, milestone
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(256)
        self.observation_space = spaces.Text(max_length=4096, charset=CHARACTERS)
        self._worker: Worker | None = None

    def _engine(self) -> Worker:
        """The engine process, and a slot in it that is this environment's until it is closed or forgotten."""
        if self._worker is None:
            self._slot, give_back = _slot()
            self._worker = worker(self._slot)
            self._finalizer = weakref.finalize(self, give_back)
        return self._worker

    def close(self):
        if self._worker is not None:
            self._finalizer()
            self._worker = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            choices = tasks(self.drawn_mode, self.split)
            task = choices[self.np_random.integers(len(choices))]
        self.task = task
        self.mode, game, self.recipe = parse_task(task)
        self.goal = Goal.of(self.recipe)
        engine, path = self._engine(), store.path_of(game)
        if not path.is_file():
            engine.ask("make", game)
        scene, sentence = engine.reset(self._slot, path)
        self.notes = Notes.start(scene.text, sentence)
        self.actions, self.steps, self.verdict, self._advice = legal(scene.commands), 0, "start", None
        self._rewarded, self._way = set(), []
        if self.mode == "dropoff":
            self._fetch()
        return self.notes.text(), self._info()

    def _fetch(self) -> None:
        """Play, before the episode begins, until the task's object is in hand."""
        for command in self.plan():
            if kind(self.notes.held) == self.goal.object:
                return
            self._say(command)

    def _say(self, command: str) -> bool:
        """Say a command; whether the game is won."""
        scene = self._engine().step(self._slot, command)
        self.notes.read(command, scene.text)
        self.actions, self._advice = legal(scene.commands), None
        self._way = self._way[1:] if self._way[:1] == [command] else []  # the oracle thinks again when left alone
        self.notes.look(self.actions)
        return scene.won

    def step(self, action):
        action = int(action)
        self.steps += 1
        truncated = self.steps >= self.horizon
        if not 0 <= action < len(self.actions):
            self.verdict = "wrong"
            info = self._info("horizon" if truncated else "", invalid_action=action)
            return self.notes.text(), STEP, False, truncated, info
        command = self.actions[action]
        self.verdict = "right" if command in self.advice().commands else "wrong"
        won = self._say(command)
        reached = self._milestones()
        success = won or (self.mode == "pickup" and "taken" in reached)
        new = reached - self._rewarded if self.milestone else set()
        self._rewarded |= reached
        reward = STEP + (SUCCESS if success else MILESTONE * len(new))
        truncated = truncated and not success
        ended = "success" if success else "horizon" if truncated else ""
        return self.notes.text(), reward, success, truncated, self._info(ended, success)

    def render(self):
        return self.notes.text() if self.render_mode == "ansi" else None

    def _milestones(self) -> set[str]:
        """What has been reached of the way: the object taken, the object treated."""
        if kind(self.notes.held) != self.goal.object:
            return set()
        return {"taken"} | ({"treated"} if self.goal.treatment and self.notes.held in self.notes.treated else set())

    def advice(self) -> Advice:
        """What one would do who knows what the player knows."""
        if self._advice is None:
            self._advice = explore(self.notes, self.goal, self.actions)
        return self._advice

    def best_action(self) -> int:
        """Index of the explorer's choice."""
        return self.actions.index(self.advice().commands[0])

    def good_actions(self) -> tuple[int, ...]:
        """Indices of all actions that serve as well as the explorer's choice, as far as the player can know."""
        return tuple(self.actions.index(command) for command in self.advice().commands)

    def oracle_action(self) -> int:
        """Index of the oracle's next command; it knows where everything is."""
        if not self._way:
            self._way = self.plan()
        return self.actions.index(self._way[0])

    def wrong_actions(self) -> tuple[int, ...]:
        """Indices of all other actions."""
        good = self.good_actions()
        return tuple(action for action in range(len(self.actions)) if action not in good)

    def steps_to_go(self) -> int:
        """Steps of the explorer's way from the start of this task."""
        return _explored(self.task)

    def safe_actions(self) -> tuple[int, ...]:
        """Indices of the actions that do not end the episode: all."""
        return tuple(range(len(self.actions)))

    def phase(self) -> str:
        """What the explorer is about: `search`, `fetch`, `carry`, `treat`, `place`, `seek light`, `light` or `put down`."""
        return self.advice().phase

    def plan(self) -> list[str]:
        """The oracle's commands from here; it reads the engine's facts."""
        return self._engine().ask("plan", self._slot, self.recipe.name)

    def _info(self, ended="", success=False, **more):
        return {"actions": self.actions, "success": bool(success), "ended": ended, "task": self.task, **more}


def _slot():
    """A free slot, and a function that frees it."""
    free = _free.setdefault(os.getpid(), [])
    try:  # threads may be at it together
        slot = free.pop()
    except IndexError:
        slot = next(_next)
    return slot, lambda: free.append(slot)


@cache
def shortest(task: str) -> int:
    """Length in steps of the oracle's way, which is a shortest one."""
    env = Household(horizon=10_000)
    env.reset(options={"task": task})
    mode, plan = env.mode, env.plan()
    if mode == "pickup":
        return 1 + next(i for i, command in enumerate(plan) if command.startswith(f"take {env.goal.object} "))
    return len(plan)


@cache
def _explored(task: str) -> int:
    env = Household(horizon=200)
    env.reset(options={"task": task})
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(env.best_action())
        done = terminated or truncated
    return env.steps
