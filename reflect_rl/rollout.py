"""Many episodes side by side: one forward pass serves every environment that waits."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch

from reflect_rl.envs import Domain
from reflect_rl.players import Policy, Reflector
from reflect_rl.prompts import PLAIN, Format


@dataclass
class Seat:
    """One running episode as an agent sees it."""

    env: gym.Env
    rng: np.random.Generator
    observation: str
    actions: tuple[str, ...]
    last_action: str = ""


@dataclass(frozen=True)
class Decision:
    """What an agent chose, and what it takes to learn from it.

    `prompt` and `log_prob` are those of the policy; empty and 0 for agents that are not trained.
    """

    action: int
    prompt: str = ""
    log_prob: float = 0.0
    reflection: str = ""


@dataclass(frozen=True)
class Transition:
    """One step of an episode."""

    observation: str
    actions: tuple[str, ...]
    decision: Decision
    reward: float


@dataclass
class Episode:
    """A finished episode; `last_observation` is what the last action led to."""

    task: str
    transitions: list[Transition] = field(default_factory=list)
    last_observation: str = ""
    success: bool = False
    ended: str = ""

    @property
    def total_reward(self) -> float:
        return sum(t.reward for t in self.transitions)

    def __len__(self) -> int:
        return len(self.transitions)


class Agent(Protocol):
    """Chooses one action for each of the episodes that wait."""

    def decide(self, seats: Sequence[Seat]) -> list[Decision]: ...


class Players:
    """The two players as one agent; without a reflector the policy decides alone.

    Distributions are kept by prompt, so an agent must not outlive a change of the policy's weights.
    """

    def __init__(self, policy: Policy, reflector: Reflector | None, greedy: bool = False, prompts: Format = PLAIN):
        self.policy, self.reflector, self.greedy, self.prompts = policy, reflector, greedy, prompts
        self._log_probs: dict[str, np.ndarray] = {}

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        if self.reflector is None:
            reflections = [None] * len(seats)
        else:
            reflections = self.reflector.reflect([self.prompts.reflection(s.observation, s.last_action) for s in seats])
        labels = [self.policy.labels.of(s.actions) for s in seats]
        prompts = [
            self.prompts.policy(s.observation, s.last_action, s.actions, reflection, self.policy.labels.texts(numbers))
            for s, reflection, numbers in zip(seats, reflections, labels, strict=True)
        ]
        self._score(prompts, labels)
        decisions = []
        for seat, prompt, reflection in zip(seats, prompts, reflections, strict=True):
            log_probs = self._log_probs[prompt]
            if self.greedy:
                action = int(log_probs.argmax())
            else:
                thresholds = np.exp(log_probs).cumsum()
                action = int(np.searchsorted(thresholds, seat.rng.random() * thresholds[-1], side="right"))
            decisions.append(Decision(action, prompt, float(log_probs[action]), reflection or ""))
        return decisions

    def log_probs(self, prompt: str) -> np.ndarray:
        """`(A,)` log-probabilities of the legal actions at a prompt that has been decided on."""
        return self._log_probs[prompt]

    @torch.no_grad()
    def _score(self, prompts: Sequence[str], legal: Sequence[tuple[int, ...]]) -> None:
        new = {p: numbers for p, numbers in zip(prompts, legal, strict=True) if p not in self._log_probs}
        if new:
            rows = self.policy.log_probs(list(new), list(new.values())).double().cpu().numpy()
            self._log_probs.update(
                {p: row[: len(numbers)] for (p, numbers), row in zip(new.items(), rows, strict=True)}
            )


def play(
    domain: Domain,
    agent: Agent,
    tasks: Sequence[str],
    rngs: Sequence[np.random.Generator],
    horizon: int,
    **options,
) -> list[Episode]:
    """One episode for each task, in lockstep; the same episodes whatever the number of processes that they are played in.

    Args:
        rngs: one generator an episode, so that an episode does not depend on those beside it.
        options: passed on to the environment, such as `milestone=False`.
    """
    with contextlib.ExitStack() as stack:
        workers = domain.side_by_side()
        each = stack.enter_context(ThreadPoolExecutor(workers)).map if workers > 1 else map
        return _play(domain, agent, tasks, rngs, each, {"horizon": horizon, **options})


def _play(domain: Domain, agent: Agent, tasks, rngs, each: Callable, options: dict) -> list[Episode]:
    """`play`, with `each` as `map`: environments do not know of each other, so they may be stepped in any order."""

    def sit(place: tuple[str, np.random.Generator]) -> Seat:
        task, rng = place
        env = domain.make(**options)
        observation, info = env.reset(options={"task": task})
        return Seat(env, rng, observation, info["actions"])

    episodes = [Episode(task) for task in tasks]
    seats = list(each(sit, zip(tasks, rngs, strict=True)))
    waiting = list(range(len(tasks)))
    while waiting:
        decisions = agent.decide([seats[i] for i in waiting])
        outcomes = each(lambda i, decision: seats[i].env.step(decision.action), waiting, decisions)
        finished = set()
        for i, decision, outcome in zip(waiting, decisions, outcomes, strict=True):
            seat, episode = seats[i], episodes[i]
            observation, reward, terminated, truncated, info = outcome
            episode.transitions.append(Transition(seat.observation, seat.actions, decision, float(reward)))
            legal = decision.action < len(seat.actions)
            seat.last_action = seat.actions[decision.action] if legal else "an action that is not legal"
            seat.observation, seat.actions = observation, info["actions"]
            if terminated or truncated:
                episode.success, episode.ended = bool(info["success"]), info["ended"]
                episode.last_observation = observation
                finished.add(i)
        waiting = [i for i in waiting if i not in finished]
    return episodes
