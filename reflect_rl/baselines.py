"""Agents that are not trained: random actions, the oracle, and obedience to the reflection."""

from collections.abc import Sequence

from reflect_rl.players import Reflector
from reflect_rl.prompts import advised_action, reflection_prompt
from reflect_rl.rollout import Agent, Decision, Seat


class Random:
    """A legal action, uniformly."""

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        return [Decision(int(seat.rng.integers(len(seat.actions)))) for seat in seats]


class Oracle:
    """The first action of a shortest way: the ceiling."""

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        return [Decision(seat.env.oracle_action()) for seat in seats]


class Expert:
    """The best that can be known from what has been seen: the oracle where all is seen, the explorer where not."""

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        return [Decision(seat.env.best_action()) for seat in seats]


class Follow:
    """Does what the reflection says: the reflector's own worth. A reflection without advice wastes the step."""

    def __init__(self, reflector: Reflector):
        self.reflector = reflector

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        texts = self.reflector.reflect([reflection_prompt(s.observation, s.last_action) for s in seats])
        decisions = []
        for seat, text in zip(seats, texts, strict=True):
            advised = advised_action(text, seat.actions)
            decisions.append(Decision(len(seat.actions) if advised is None else advised, reflection=text))
        return decisions


class Stumble:
    """Another agent that now and then slips: with `probability` it takes a wrong action that survives instead."""

    def __init__(self, agent: Agent, probability: float):
        self.agent, self.probability = agent, probability

    def decide(self, seats: Sequence[Seat]) -> list[Decision]:
        decisions = self.agent.decide(seats)
        for i, seat in enumerate(seats):
            wrong = seat.env.wrong_actions()
            if wrong and seat.rng.random() < self.probability:
                decisions[i] = Decision(int(seat.rng.choice(wrong)), reflection=decisions[i].reflection)
        return decisions
