"""The environment: a household task in text.

Observation: what the player knows from what it has read (`notes.Notes`), or the game's own text with all that was read
before. Legal actions: the engine's admissible commands but for those that change nothing (`NO_EFFECT`) and whose answer
the observation holds. Success is the engine's `won`, or of another goal than the game's own the oracle's `reached`.
"""

import itertools
import operator
import os
import sys
import weakref
from collections.abc import Iterable
from functools import cache

import gymnasium as gym
from gymnasium import spaces

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine.workers import Worker, worker
from reflect_rl.envs.household.explorer import Advice, explore
from reflect_rl.envs.household.goal import Goal, kind, natural
from reflect_rl.envs.household.notes import Notes

NO_EFFECT = ("look", "inventory", "help", "examine")  # verbs that are left out of the legal actions
STEP, MILESTONE, SUCCESS = -0.02, 0.3, 1.0  # rewards: ours, since the paper's are not known
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :,.\n'-!=>"
OBSERVATIONS = ("notes", "text")

_free: dict[int, list[int]] = {}
_next = itertools.count()


def legal_actions(commands: Iterable[str]) -> tuple[str, ...]:
    """The commands that a player chooses from, in natural order."""
    possible = (sys.intern(c) for c in commands if c.split(" ")[0] not in NO_EFFECT)  # data hold the same ones for long
    return tuple(sorted(possible, key=natural))


def label_key(command: str) -> str:
    """What tells a command from most others, in every room: the place to go to, the kind of thing to take, or the verb.

    Where two things of a kind lie at one place, either will do.
    """
    verb, _, rest = command.partition(" ")
    return command if verb == "go" else f"take {kind(rest)}" if verb == "take" else verb


class Household(gym.Env):
    """A household task in text.

    `reset(options={"task": "full:train/<task>/<trial>"})` starts that very episode; without it the environment's own
    generator draws a task of `setting` and `split`. `setting` is one of `store.SETTINGS`, or a stage: `pickup` ends with
    the object in hand, `dropoff` begins there, `full` is the game. A generated game is made at its first use.
    With `milestone`, it is rewarded to take the task's object and to treat it, each once. `observation` is `notes`, or
    `text`: the game's own, from the beginning of the episode. An argument without such a value, or a game that cannot
    be played, is a ReflectRLError.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(
        self, setting="full", split="train", horizon=15, milestone=True, observation="notes", render_mode=None
    ):
        known = {
            "setting": (setting, (*store.STAGES, *store.SETTINGS)),
            "split": (split, store.FIRST_TRIAL),
            "observation": (observation, OBSERVATIONS),
            "render mode": (render_mode or "ansi", ["ansi"]),
        }
        for name, (value, choices) in known.items():
            if value not in choices:
                raise unknown(name, value, choices)
        if horizon < 1:
            raise ReflectRLError(f"horizon {horizon} leaves no step; give 1 or more")
        self.setting, self.split, self.horizon = setting, split, horizon
        self.milestone, self.observation, self.render_mode = milestone, observation, render_mode
        self.action_space = spaces.Discrete(256)
        self.observation_space = spaces.Text(max_length=2**15, charset=CHARACTERS)
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
        self.task = (options or {}).get("task")
        if self.task is None:
            choices = store.tasks(self.setting, self.split)
            self.task = choices[self.np_random.integers(len(choices))]
        task = store.parse_task(self.task)
        self.stage, self.recipe, self.goal = task.stage, task.recipe, Goal.of(task.recipe)
        engine, path = self._engine(), store.path_of(task.game)
        if not path.is_file():
            engine.request("make", task.game)
        scene, own = engine.reset(self._slot, path, task.recipe.name if task.sentence else "")
        sentence = task.sentence or own
        self._texts = [scene.text.replace(own, sentence)]
        self.notes = Notes.start(scene.text, sentence)
        self.actions, self.steps, self._advice = legal_actions(scene.commands), 0, None
        self._rewarded, self._plan = set(), []
        for command in self.plan() if self.stage == "dropoff" else ():  # the episode begins with the object in hand
            if self._milestones():
                break
            self._execute(command)
        return self._observe(), self._info()

    def _observe(self) -> str:
        return self.notes.text() if self.observation == "notes" else "\n".join(self._texts)

    def _execute(self, command: str) -> bool:
        """Play a command; whether the game is won."""
        scene = self._engine().step(self._slot, command)
        self.notes.read(command, scene.text)
        self._texts.append(f"> {command}\n{scene.text}")
        self.actions, self._advice = legal_actions(scene.commands), None
        self._plan = self._plan[1:] if self._plan[:1] == [command] else []  # after another command, it is made anew
        self.notes.look(self.actions)
        return scene.won

    def step(self, action):
        action = operator.index(action)
        self.steps += 1
        truncated = self.steps >= self.horizon
        if not 0 <= action < len(self.actions):
            return self._observe(), STEP, False, truncated, self._info(invalid_action=action)
        won = self._execute(self.actions[action])
        reached = self._milestones()
        success = won or (self.stage == "pickup" and "taken" in reached)
        new = reached - self._rewarded if self.milestone else set()
        self._rewarded |= reached
        reward = STEP + (SUCCESS if success else MILESTONE * len(new))
        return self._observe(), reward, success, truncated and not success, self._info(success)

    def render(self):
        return self._observe() if self.render_mode == "ansi" else None

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

    def expert_action(self) -> int:
        """Index of the explorer's choice."""
        return self.good_actions()[0]

    def good_actions(self) -> tuple[int, ...]:
        """Indices of the explorer's choice and all that is as good, as far as the player can know."""
        return tuple(self.actions.index(command) for command in self.advice().commands)

    def phase(self) -> str:
        """The explorer's subgoal, a phase of `Advice`."""
        return self.advice().phase

    def oracle_action(self) -> int:
        """Index of the oracle's next command; it knows where everything is."""
        self._plan = self._plan or self.plan()
        return self.actions.index(self._plan[0])

    def plan(self) -> list[str]:
        """The oracle's commands from here; it reads the engine's facts."""
        return self._engine().request("plan", self._slot, self.recipe.name)

    def _info(self, success=False, **more):
        return {"actions": self.actions, "success": bool(success), "task": self.task, **more}


def _slot():
    """A free slot, and a function that frees it."""
    free = _free.setdefault(os.getpid(), [])
    try:  # threads may be at it together
        slot = free.pop()
    except IndexError:
        slot = next(_next)
    return slot, lambda: free.append(slot)


@cache
def oracle_steps(task: str) -> int:
    """Length in steps of the oracle's plan, which is a shortest one."""
    env = Household()
    env.reset(options={"task": task})
    plan = env.plan()
    if env.stage == "pickup":
        return 1 + next(i for i, command in enumerate(plan) if command.startswith(f"take {env.goal.object} "))
    return len(plan)
