"""Agents that are not trained: random actions, oracle, expert, references, and one that follows the reflector's advice."""

from collections.abc import Sequence

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.play import advised_action
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train.rollout import ActiveEpisode, Agent, Decision


class Random:
    """A legal action, uniformly."""

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        return [Decision(int(episode.rng.integers(len(episode.actions)))) for episode in episodes]


class Oracle:
    """The first action of a shortest way: the ceiling.

    Raises:
        ReflectRLError: the environment has no oracle.
    """

    def __init__(self, spec: EnvSpec):
        if spec.oracle_action is None:
            raise ReflectRLError(
                f"environment {spec.name!r} has no oracle; give its EnvSpec an `oracle_action`, or leave out the "
                "variant 'oracle'"
            )
        self.oracle_action = spec.oracle_action

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        return [Decision(self.oracle_action(episode.env)) for episode in episodes]


class Expert:
    """The best that can be known from what has been observed so far."""

    def __init__(self, spec: EnvSpec):
        self.spec = spec

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        return [Decision(self.spec.expert_action(episode.env)) for episode in episodes]


class Reference:
    """One of the environment's searches and retrievers.

    Raises:
        ReflectRLError: the environment has none of this name.
    """

    def __init__(self, spec: EnvSpec, name: str):
        if name not in spec.references:
            known = ", ".join(spec.references) or "none"
            raise ReflectRLError(
                f"environment {spec.name!r} has no {name!r}, of references {known}; give its EnvSpec one in `references`, or "
                "leave out the variant"
            )
        self.action = spec.references[name]

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        return [Decision(self.action(episode.env)) for episode in episodes]


class Follow:
    """Does what the reflection advises, which measures the reflector alone. Without advice the step is wasted."""

    def __init__(self, reflector: Reflector):
        self.reflector = reflector

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        texts = self.reflector.reflect([reflection_prompt(e.observation, e.last_action) for e in episodes])
        decisions = []
        for episode, text in zip(episodes, texts, strict=True):
            advised = advised_action(text, episode.actions)
            decisions.append(Decision(len(episode.actions) if advised is None else advised, reflection=text))
        return decisions


class PerturbedAgent:
    """Another agent whose action is replaced, with `probability`, by a wrong one from which it can recover."""

    def __init__(self, spec: EnvSpec, agent: Agent, probability: float):
        self.spec, self.agent, self.probability = spec, agent, probability

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        decisions = self.agent.decide(episodes)
        for i, episode in enumerate(episodes):
            slips = self.spec.slips_of(episode.env, episode.actions)
            if slips and episode.rng.random() < self.probability:
                decisions[i] = Decision(int(episode.rng.choice(slips)), reflection=decisions[i].reflection)
        return decisions
