"""A small text game to register, check and break: rooms in a row, a pit on the left, the exit on the right."""

import dataclasses

import gymnasium as gym
from gymnasium import spaces

from reflect_rl.envs.base import EnvSpec

ACTIONS = ("go left", "go right", "wait")
EXIT = 5
STARTS = {"train": (1, 2, 3), "validation": (1, 2), "test": (1, 2)}
TASKS = {
    (setting, split): tuple(f"{split}-{setting}-{room}" for room in rooms if setting == "full" or room > 1)
    for setting in ("full", "near")
    for split, rooms in STARTS.items()
}


def tasks(setting, split):
    return TASKS[setting, split]


class Corridor(gym.Env):
    """`reset` draws a room of the training tasks where no task is named. Going left from room 0 falls into a pit."""

    metadata = {"render_modes": []}

    def __init__(self, horizon=6, milestone=True):
        self.horizon, self.milestone = horizon, milestone
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Text(60, charset="abcdefghijklmnopqrstuvwxyzAY0123456789 .-")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task") or f"train-full-{self.np_random.choice(STARTS['train'])}"
        self.room, self.steps = int(task.split("-")[2]), 0
        return self.observation(), self.info()

    def step(self, action):
        self.steps += 1
        if not 0 <= action < len(ACTIONS):
            info = self.info() | {"invalid_action": int(action)}
            return self.observation(), -0.1, False, self.steps >= self.horizon, info
        self.room += (-1, 1, 0)[action]
        over = self.room in (-1, EXIT)
        return (
            self.observation(),
            float(self.room == EXIT) - 0.1,
            over,
            self.steps >= self.horizon and not over,
            self.info(),
        )

    def observation(self):
        return f"You are in room {self.room}. A pit is left of room 0."

    def info(self):
        return {"actions": ACTIONS, "success": self.room == EXIT}

    def expert_action(self):
        return 1

    def safe_actions(self):
        return (0, 1, 2) if self.room > 0 else (1, 2)


def teach(situation):
    return f"That was {situation.action_feedback}, the exit is on the right. Next: {situation.expert_action}."


SPEC = EnvSpec(
    name="corridor",
    make=Corridor,
    tasks=tasks,
    expert_action=Corridor.expert_action,
    teacher=teach,
    horizon=6,
    stages=("near",),
    milestones=True,
    safe_actions=Corridor.safe_actions,
    oracle_action=Corridor.expert_action,
    oracle_steps=lambda task: EXIT - int(task.split("-")[2]),
)


class Walled(Corridor):
    """Without a pit, and without the option of a milestone."""

    def __init__(self, horizon=20):
        super().__init__(horizon)

    def step(self, action):
        return super().step(2 if (self.room, action) == (0, 0) else action)


#: With nothing but what is required.
BARE = EnvSpec("walled_corridor", Walled, tasks, Corridor.expert_action, teach)


def changed(**fields):
    """The corridor with other fields in its spec."""
    return dataclasses.replace(SPEC, **fields)
