"""What `check` needs to try an environment: playing it step by step, and gathering complaints."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from reflect_rl.envs.base import EnvSpec


@dataclass(frozen=True)
class Step:
    """What `reset` (action None) or `step` returned."""

    action: int | None
    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict

    @property
    def over(self) -> bool:
        return bool(self.terminated or self.truncated)

    @property
    def seen(self) -> tuple:
        """What must be the same whenever a task is played with the same actions."""
        return self.observation, self.over, self.info.get("actions"), self.info.get("success")


Player = Callable[[gym.Env, Step], int]


class Trial:
    """An environment under trial; of several breaches of one rule the first is kept in `complaints`."""

    def __init__(self, spec: EnvSpec, episodes: int):
        self.spec = spec
        self.rng = np.random.default_rng(0)
        self.complaints: dict[str, str] = {}
        self._episodes = episodes

    def require(self, fine: Any, rule: str, complaint: str) -> bool:
        """Whether all is fine; where not, the complaint is kept."""
        if not fine:
            self.complaints.setdefault(rule, complaint)
        return bool(fine)

    def run(self, rules: Iterable[Callable[["Trial"], None]]) -> bool:
        """Apply rules, of which one that raises complains too; whether there is no complaint so far."""
        for rule in rules:
            name = rule.__name__.replace("_", " ")
            try:
                rule(self)
            except Exception as error:  # an environment may raise anything
                self.complaints[name] = f"its {name} could not be checked: {type(error).__name__}: {error}"
        return not self.complaints

    @property
    def tasks(self) -> list[str]:
        """Training tasks to be played, spread over the panel."""
        panel = self.spec.tasks(self.spec.training_setting, "train")
        return [panel[i] for i in sorted({len(panel) * k // self._episodes for k in range(self._episodes)})]

    def make(self, horizon: int = 0) -> gym.Env:
        return self.spec.make(horizon=horizon or self.spec.horizon)

    def begin(self, env: gym.Env, task: str) -> Step:
        observation, info = env.reset(options={"task": task})
        return Step(None, observation, 0.0, False, False, info)

    def episode(self, task: str, player: Player, horizon: int = 0) -> list[Step]:
        """The steps of an episode, the first of them its beginning; cut where it goes on beyond its horizon."""
        env = self.make(horizon)
        steps = [self.begin(env, task)]
        while not steps[-1].over and len(steps) <= (horizon or self.spec.horizon):
            action = player(env, steps[-1])
            steps.append(Step(action, *env.step(action)))
        env.close()
        return steps

    def steps_to_success(self, task: str, player: Player) -> int:
        """0 where there is no success within ten times the horizon."""
        steps = self.episode(task, player, 10 * self.spec.horizon)
        return len(steps) - 1 if steps[-1].info.get("success") else 0

    def expert(self, env: gym.Env, step: Step) -> int:
        return self.spec.expert_action(env)

    def oracle(self, env: gym.Env, step: Step) -> int:
        return self.spec.oracle_action(env)

    def at_random(self, env: gym.Env, step: Step) -> int:
        return int(self.rng.integers(len(step.info["actions"])))

    def illegal_first(self, env: gym.Env, step: Step) -> int:
        """An index beyond the legal actions, and then the expert's way."""
        return len(step.info["actions"]) if step.action is None else self.spec.expert_action(env)
