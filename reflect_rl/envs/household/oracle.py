"""The oracle: a shortest plan, read off the engine's facts. It knows where everything is and gives the ceiling."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import LAMP
from reflect_rl.envs.household.goal import Goal, kind, natural, of_kind

DONE = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}  # treatment -> the predicate that it makes true


class _World:
    """The engine's facts by the names in texts; locations and types by their ids."""

    def __init__(self, engine: Engine):
        names, facts = engine.game.names, defaultdict(list)
        for predicate, *arguments in engine.facts:
            facts[predicate].append(arguments)
        self.where = {names[receptacle]: place for receptacle, place in facts["receptacleatlocation"]}
        self.inside = {names[thing]: names[receptacle] for thing, receptacle in facts["inreceptacle"]}
        self.kinds = {names[name]: kind for name, kind in facts["receptacletype"] + facts["objecttype"]}
        self.allowed = set(map(tuple, facts["cancontain"]))
        self.here = facts["atlocation"][0][1]
        self.held = names[facts["holds"][0][1]] if facts["holds"] else ""
        self.true = {(predicate, names[a[0]]) for predicate in facts for a in facts[predicate] if len(a) == 1}

    def ready(self, goal: Goal, thing: str) -> bool:
        """Whether a thing is treated as the goal asks."""
        return not goal.treatment or (DONE[goal.treatment], thing) in self.true


def reached(engine: Engine, goal: Goal) -> bool:
    """Whether a goal holds now: for the goal of the game itself the engine says the same."""
    names, inside, lights = engine.game.names, Counter(), set()
    held = here = ""
    homes, lamps = {}, {}
    for predicate, *arguments in engine.facts:
        match predicate:
            case "inreceptacle":
                thing, place = arguments
                done = not goal.treatment or (DONE[goal.treatment], thing) in engine.facts
                if kind(names[thing]) == goal.object and kind(names[place]) == goal.target and done:
                    inside[place] += 1
                lamps[thing] = place
            case "istoggled":
                lights.add(arguments[0])
            case "receptacleatlocation":
                homes[arguments[0]] = arguments[1]
            case "atlocation":
                here = arguments[1]
            case "holds":
                held = kind(names[arguments[1]])
    if goal.light:
        return held == goal.object and any(homes[lamps[light]] == here for light in lights)
    return max(inside.values(), default=0) >= goal.count


def shortest_plan(engine: Engine, goal: Goal) -> list[str]:
    """The commands of a shortest way to the goal from here, empty where there is none or it is reached.

    Shortest over the choice of objects and receptacles; where something else is in hand, it is put down on the way.
    """
    if reached(engine, goal):
        return []
    world = _World(engine)
    ends = of_kind(LAMP.lower(), world.inside) if goal.light else of_kind(goal.target, world.where)
    plans = (
        _plan(world, goal, chosen, end, place, first)
        for end in ends
        for chosen in _choices(world, goal, end)
        for place in of_kind(goal.place, world.where) or [""]
        for first in _put_downs(world, chosen)
    )
    return min(plans, key=len, default=[])


def _choices(world: _World, goal: Goal, end: str) -> Iterator[tuple[str, ...]]:
    """The things that may be brought to an end, in every order; what is in hand cannot wait for another."""
    things = of_kind(goal.object, {*world.inside, world.held})
    there = [t for t in things if not goal.light and world.inside.get(t) == end and world.ready(goal, t)]
    for chosen in itertools.permutations([t for t in things if t not in there], goal.count - len(there)):
        if world.held not in chosen[1:]:
            yield chosen


def _put_downs(world: _World, chosen: Sequence[str]) -> list[str]:
    """Where to put down what is in hand and not wanted; [""] where there is no need."""
    if not world.held or world.held in chosen:
        return [""]
    fits = [r for r in world.where if (world.kinds[r], world.kinds[world.held]) in world.allowed]
    sources = {world.inside.get(thing) for thing in chosen}
    near = [r for r in fits if world.where[r] == world.here or r in sources]
    return sorted(near, key=natural) or sorted(fits, key=natural)[:1]


def _plan(world: _World, goal: Goal, chosen: Sequence[str], end: str, place: str, first: str) -> list[str]:
    """Bring the chosen to the end, treated at `place`, after putting what is in hand down at `first`, if given."""
    plan, here, opened = [], world.here, set()

    def at(receptacle: str, *commands: str, opening: bool = True) -> None:
        nonlocal here
        if here != world.where[receptacle]:
            plan.append(f"go to {receptacle}")
            here = world.where[receptacle]
        closed = ("openable", receptacle) in world.true and ("opened", receptacle) not in world.true
        if opening and closed and receptacle not in opened:
            plan.append(f"open {receptacle}")
            opened.add(receptacle)
        plan.extend(commands)

    if first:
        at(first, f"move {world.held} to {first}")
    for thing in chosen:
        if thing != world.held:
            at(world.inside[thing], f"take {thing} from {world.inside[thing]}")
        if not world.ready(goal, thing):
            at(place, f"{goal.treatment} {thing} with {place}", opening=False)
        if goal.light:
            use = [] if ("istoggled", end) in world.true else [f"use {end}"]
            at(world.inside[end], *use, opening=False)
        else:
            at(end, f"move {thing} to {end}")
    return plan
