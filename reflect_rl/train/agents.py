"""Agents that are not trained: random actions, an environment's own rules, and one that follows the reflector's advice."""

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


class Scripted:
    """What the environment itself offers by rule: its `expert`, its `oracle`, or one of its references.

    Raises:
        ReflectRLError: the environment has none of this name.
    """

    def __init__(self, spec: EnvSpec, name: str):
        offered = {"expert": spec.expert_action, "oracle": spec.oracle_action, **spec.references}
        if offered.get(name) is None:
            known = ", ".join(repr(of) for of, action in offered.items() if action)
            raise ReflectRLError(
                f"environment {spec.name!r} has no {name!r}, but {known}; leave out the variant, or give its EnvSpec "
                f"{'an `oracle_action`' if name == 'oracle' else 'one in `references`'}"
            )
        self.action = offered[name]

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
