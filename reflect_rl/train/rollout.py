"""Many episodes in lockstep: one forward pass serves every environment that waits for an action."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch

from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.play import ILLEGAL
from reflect_rl.lm.players import Policy, Reflector
from reflect_rl.lm.prompts import Format, format_of


@dataclass
class ActiveEpisode:
    """A running episode as an agent sees it, with the generator that its choices are drawn from."""

    env: gym.Env
    rng: np.random.Generator
    observation: str
    actions: tuple[str, ...]
    last_action: str = ""


@dataclass(frozen=True)
class Decision:
    """What an agent chose, and what it takes to learn from it.

    Attributes:
        action: index into the legal actions.
        prompt, log_prob: those of the policy; empty and 0 for agents that are not trained.
        reflection: what the reflector wrote, empty without one.
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
        """Undiscounted return of the whole episode."""
        return sum(t.reward for t in self.transitions)

    def __len__(self) -> int:
        return len(self.transitions)


class Agent(Protocol):
    """Chooses one action for each of the episodes that wait."""

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]: ...


class PlayersAgent:
    """The two players as one agent; without a reflector the policy decides alone.

    Distributions are kept by prompt and legal actions, so an agent must not outlive a change of the policy's weights.
    """

    def __init__(
        self, policy: Policy, reflector: Reflector | None, greedy: bool = False, prompts: Format | None = None
    ):
        self.policy, self.reflector, self.greedy = policy, reflector, greedy
        self.prompts = prompts or format_of(policy.labels)
        # a prompt without a list does not say what is legal
        self._log_probs: dict[tuple[str, tuple[str, ...]], np.ndarray] = {}

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        if self.reflector is None:
            reflections = [None] * len(episodes)
        else:
            asked = [self.prompts.reflection(e.observation, e.last_action) for e in episodes]
            reflections = self.reflector.reflect(asked)
        labels, keys = self.policy.labels, []
        for e, reflection in zip(episodes, reflections, strict=True):
            names = labels.texts(labels.of(e.actions))
            prompt = self.prompts.policy(e.observation, e.last_action, e.actions, reflection, names)
            keys.append((prompt, e.actions))
        self._score(keys)
        decisions = []
        for episode, key, reflection in zip(episodes, keys, reflections, strict=True):
            log_probs, (prompt, _) = self._log_probs[key], key
            if self.greedy:
                action = int(log_probs.argmax())
            else:
                thresholds = np.exp(log_probs).cumsum()
                action = int(np.searchsorted(thresholds, episode.rng.random() * thresholds[-1], side="right"))
            decisions.append(Decision(action, prompt, float(log_probs[action]), reflection or ""))
        return decisions

    def log_probs(self, prompt: str, actions: Sequence[str]) -> np.ndarray:
        """`(A,)` log-probabilities of the legal actions at a prompt that has been decided on."""
        return self._log_probs[prompt, tuple(actions)]

    @torch.no_grad()
    def _score(self, keys: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        new = [key for key in dict.fromkeys(keys) if key not in self._log_probs]
        if new:
            legal = [self.policy.labels.of(actions) for _, actions in new]
            rows = self.policy.log_probs([prompt for prompt, _ in new], legal).double().cpu().numpy()
            self._log_probs.update({key: row[: len(key[1])] for key, row in zip(new, rows, strict=True)})


def play(
    spec: EnvSpec,
    agent: Agent,
    tasks: Sequence[str],
    rngs: Sequence[np.random.Generator],
    horizon: int,
    milestone: bool | None = None,
) -> list[Episode]:
    """One episode for each task, in lockstep; the same ones whatever the number of processes that they are played in.

    Args:
        rngs: one generator an episode, so that an episode does not depend on those beside it.
        horizon: steps after which an episode is truncated.
        milestone: whether milestones are rewarded, in an environment that has them; None leaves its default.
    """
    options = {"horizon": horizon}
    if milestone is not None and spec.milestones:
        options["milestone"] = milestone
    with contextlib.ExitStack() as stack:
        workers = spec.parallel()
        each = stack.enter_context(ThreadPoolExecutor(workers)).map if workers > 1 else map
        return _play(spec, agent, tasks, rngs, each, options)


def _play(spec: EnvSpec, agent: Agent, tasks, rngs, each: Callable, options: dict) -> list[Episode]:
    """`play`, with `each` as `map`: environments do not know of each other, so they may be stepped in any order."""

    def begin(task: str, rng: np.random.Generator) -> ActiveEpisode:
        env = spec.make(**options)
        observation, info = env.reset(options={"task": task})
        return ActiveEpisode(env, rng, observation, info["actions"])

    finished = [Episode(task) for task in tasks]
    active = list(each(begin, tasks, rngs))
    waiting = list(range(len(tasks)))
    while waiting:
        decisions = agent.decide([active[i] for i in waiting])
        outcomes = each(lambda i, decision: active[i].env.step(decision.action), waiting, decisions)
        ended = {
            i
            for i, decision, outcome in zip(waiting, decisions, outcomes, strict=True)
            if _record(finished[i], active[i], decision, outcome)
        }
        waiting = [i for i in waiting if i not in ended]
    return finished


def _record(episode: Episode, now: ActiveEpisode, decision: Decision, outcome: tuple) -> bool:
    """Add a step to an episode and move on to its next state; whether the episode is over."""
    observation, reward, terminated, truncated, info = outcome
    episode.transitions.append(Transition(now.observation, now.actions, decision, float(reward)))
    now.last_action = now.actions[decision.action] if decision.action < len(now.actions) else ILLEGAL
    now.observation, now.actions = observation, info["actions"]
    if terminated or truncated:
        episode.success, episode.last_observation = bool(info["success"]), observation
        if episode.success:
            episode.ended = "success"
        else:
            episode.ended = "horizon" if truncated else info.get("ended", "terminated")
    return terminated or truncated
