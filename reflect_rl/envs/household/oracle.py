"""The oracle: a shortest plan, read off the engine's facts. It knows where everything is and gives the ceiling."""

import itertools
from collections.abc import Iterable, Sequence

from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import LAMP
from reflect_rl.envs.household.goal import Goal, kind, natural

DONE = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}  # treatment -> the predicate that it makes true


class _State:
    """The engine's facts by name: what is where, what is open, what may hold what."""

    def __init__(self, engine: Engine):
        names, self.where, self.inside, self.kinds = engine.game.names, {}, {}, {}
        self.openable, self.open, self.done, self.toggled = set(), set(), {}, set()
        self.here, self.held, self.allowed = "", "", {}
        for predicate, *arguments in engine.facts:
            texts = [names.get(a, a) for a in arguments]
            match predicate:
                case "atlocation":
                    self.here = arguments[1]
                case "receptacleatlocation":
                    self.where[texts[0]] = arguments[1]
                case "inreceptacle":
                    self.inside[texts[0]] = texts[1]
                case "holds":
                    self.held = texts[1]
                case "openable":
                    self.openable.add(texts[0])
                case "opened":
                    self.open.add(texts[0])
                case "istoggled":
                    self.toggled.add(texts[0])
                case "isclean" | "ishot" | "iscool":
                    self.done.setdefault(texts[0], set()).add(predicate)
                case "receptacletype" | "objecttype":
                    self.kinds[texts[0]] = arguments[1]
                case "cancontain":
                    self.allowed.setdefault(arguments[0], set()).add(arguments[1])

    def may_hold(self, receptacle: str, thing: str) -> bool:
        return self.kinds[thing] in self.allowed.get(self.kinds[receptacle], ())

    def of_kind(self, wanted: str, names: Iterable[str]) -> list[str]:
        return sorted((name for name in names if kind(name) == wanted), key=natural)

    def ready(self, goal: Goal, thing: str) -> bool:
        """Whether a thing is treated as the goal asks."""
        return not goal.treatment or DONE[goal.treatment] in self.done.get(thing, ())


class _Plan:
    """Commands one after the other, with what they change for those that follow."""

    def __init__(self, state: _State):
        self.state, self.place, self.opened, self.commands = state, state.here, set(state.open), []

    def go(self, receptacle: str) -> None:
        if self.place != self.state.where[receptacle]:
            self.commands.append(f"go to {receptacle}")
            self.place = self.state.where[receptacle]

    def reach(self, receptacle: str) -> None:
        self.go(receptacle)
        if receptacle in self.state.openable and receptacle not in self.opened:
            self.commands.append(f"open {receptacle}")
            self.opened.add(receptacle)

    def take(self, thing: str) -> None:
        receptacle = self.state.inside[thing]
        self.reach(receptacle)
        self.commands.append(f"take {thing} from {receptacle}")

    def put(self, thing: str, receptacle: str) -> None:
        self.reach(receptacle)
        self.commands.append(f"move {thing} to {receptacle}")


def shortest_plan(engine: Engine, goal: Goal) -> list[str]:
    """The commands of a shortest way to the goal from here, empty where there is none or it is reached.

    Shortest over the choice of objects and receptacles; where something else is in hand, it is put down on the way.
    """
    state = _State(engine)
    if engine.won:
        return []
    things = state.of_kind(goal.object, {*state.inside, state.held} - {""})
    if goal.light:
        ends = [lamp for lamp in state.inside if kind(lamp) == LAMP.lower()]
    else:
        ends = state.of_kind(goal.target, state.where)
    places = [place for k in goal.places for place in state.of_kind(k, state.where)]
    best: list[str] | None = None
    for end in ends:
        there = [] if goal.light else [t for t in things if state.inside.get(t) == end and state.ready(goal, t)]
        missing = goal.count - len(there)
        for chosen in itertools.permutations([t for t in things if t not in there], missing):
            if state.held in chosen and chosen[0] != state.held:
                continue
            for place in places or [""]:
                for first in _put_downs(state, chosen):
                    commands = _commands(state, goal, chosen, end, place, first)
                    if best is None or len(commands) < len(best):
                        best = commands
    return best or []


def _put_downs(state: _State, chosen: Sequence[str]) -> list[str]:
    """Where to put down what is in hand and not wanted; [""] where there is no need."""
    if not state.held or state.held in chosen:
        return [""]
    fits = [r for r in state.where if state.may_hold(r, state.held)]
    near = [r for r in fits if state.where[r] == state.here]
    on_the_way = [r for r in fits if r in {state.inside.get(t) for t in chosen}]
    return sorted({*near, *on_the_way}, key=natural) or sorted(fits, key=natural)[:1]


def _commands(state: _State, goal: Goal, chosen: Sequence[str], end: str, place: str, first: str) -> list[str]:
    plan = _Plan(state)
    if first:
        plan.put(state.held, first)
    for thing in chosen:
        if thing != state.held:
            plan.take(thing)
        if goal.treatment and not state.ready(goal, thing):
            plan.go(place)
            plan.commands.append(f"{goal.treatment} {thing} with {place}")
        if goal.light:
            plan.go(state.inside[end])
            if end not in state.toggled:
                plan.commands.append(f"use {end}")
        else:
            plan.put(thing, end)
    return plan.commands
