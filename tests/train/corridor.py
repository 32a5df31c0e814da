"""A game with nothing but what is required of an environment: five rooms in a row, the exit behind the last one."""

import gymnasium as gym

from reflect_rl.envs.base import EnvSpec

ACTIONS = ("go left", "go right")


class Corridor(gym.Env):
    def __init__(self, horizon=8):
        self.horizon = horizon
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self.observation_space = gym.spaces.Text(20)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room, self.steps = int((options or {}).get("task", "start-1").split("-")[1]), 0
        return self._observation(), self._info()

    def step(self, action):
        self.steps += 1
        if action < len(ACTIONS):
            self.room = max(0, self.room + (1 if action else -1))
        out = self.room == 5
        return self._observation(), float(out), out, self.steps >= self.horizon and not out, self._info()

    def _observation(self):
        return f"room {self.room} of 5"

    def _info(self):
        return {"actions": ACTIONS, "success": self.room == 5}


def tasks(setting, split):
    return {"train": ("start-0", "start-1", "start-4"), "validation": ("start-2",), "test": ("start-3",)}[split]


def teach(situation):
    return f"That was {situation.action_feedback}. Next: {situation.expert_action}."


SPEC = EnvSpec("corridor", Corridor, tasks, expert_action=lambda env: 1, teacher=teach, horizon=8)
