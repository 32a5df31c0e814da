"""The explorer: an expert that knows what it has seen, and common sense about what is kept where.

It is the ceiling under partial observability, and the source of demonstrations and reflections.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from reflect_rl.envs.household.games import LAMP, constants
from reflect_rl.envs.household.goal import ADJECTIVES, Goal, kind, natural
from reflect_rl.envs.household.notes import Notes


@dataclass(frozen=True)
class Advice:
    """What the explorer would do now.

    Attributes:
        phase: `search`, `fetch`, `carry`, `treat`, `place`, `seek light`, `light` or `put down`.
        commands: all that are equally good as far as is known; the first is its choice.
    """

    phase: str
    commands: tuple[str, ...]


@cache
def likely(wanted: str) -> frozenset[str]:
    """Kinds of receptacles that may hold a kind of object: common sense from ALFWorld's constants."""
    allowed = constants().VAL_RECEPTACLE_OBJECTS
    names = {thing.lower(): thing for things in allowed.values() for thing in things}
    if wanted == LAMP.lower():
        return frozenset(("desk", "sidetable", "dresser"))
    return frozenset(place.lower() for place, things in allowed.items() if names.get(wanted) in things)


def explore(notes: Notes, goal: Goal, legal: Sequence[str]) -> Advice:
    """What to do next for one who knows `notes` and common sense.

    Looks first where such an object may be, in and on what needs no opening before what does; fetches what it has
    seen; treats and places what it carries.
    """
    if notes.held and kind(notes.held) == goal.object:
        if goal.treatment and notes.treated.get(notes.held) != ADJECTIVES[goal.treatment]:
            places = [place for k in goal.places for place in notes.of_kind(k)]
            return _at("treat", [(f"{goal.treatment} {notes.held} with {place}", place) for place in places], legal)
        if goal.light:
            return _light(notes, legal)
        return _place(notes, goal, legal)
    if notes.held:
        return _put_down(notes, legal)
    begun = () if goal.treatment else _begun(notes, goal)
    wanted = [(thing, place) for thing, place in notes.known(goal.object) if place not in begun]
    if wanted:
        return _at("fetch", [(f"take {thing} from {place}", place) for thing, place in wanted], legal)
    return _search(notes, goal.object, goal.target, legal)


def _advice(phase: str, commands: Iterable[str], legal: Sequence[str]) -> Advice:
    possible = tuple(dict.fromkeys(command for command in commands if command in legal))
    return Advice(phase, possible or tuple(legal[:1]))


def _at(phase: str, options: Sequence[tuple[str, str]], legal: Sequence[str]) -> Advice:
    """One of these (command, place) where it is legal; else a place is opened, or gone to."""
    for name, ways in (
        (phase, [command for command, _ in options]),
        (phase, [f"open {place}" for _, place in options]),
        ("fetch" if phase == "fetch" else "carry", [f"go to {place}" for _, place in options]),
    ):
        if not set(ways).isdisjoint(legal):
            return _advice(name, ways, legal)
    return _advice(phase, (), legal)


def _light(notes: Notes, legal: Sequence[str]) -> Advice:
    lamps = notes.known(LAMP.lower())
    if lamps:
        return _at("light", [(f"use {lamp}", place) for lamp, place in lamps], legal)
    return _search(notes, LAMP.lower(), "", legal, "seek light")


def _begun(notes: Notes, goal: Goal) -> list[str]:
    """The target that holds a first object already: where both are wanted, both have to end up in it."""
    return [place for _, place in notes.known(goal.object) if kind(place) == goal.target][:1]


def _place(notes: Notes, goal: Goal, legal: Sequence[str]) -> Advice:
    targets = (goal.count > 1 and _begun(notes, goal)) or notes.of_kind(goal.target)
    return _at("place", [(f"move {notes.held} to {place}", place) for place in targets], legal)


def _put_down(notes: Notes, legal: Sequence[str]) -> Advice:
    here = [command for command in legal if command.startswith(f"move {notes.held} to ")]
    if here:
        return _advice("put down", here, legal)
    if notes.here in notes.closed and kind(notes.here) in likely(kind(notes.held)):
        return _advice("put down", [f"open {notes.here}"], legal)
    fits = [name for name in notes.receptacles if kind(name) in likely(kind(notes.held))]
    return _advice("put down", [f"go to {name}" for name in sorted(fits, key=_effort)], legal)


def _effort(name: str) -> tuple:
    """Sort key: what needs no opening first."""
    return kind(name) in _openable(), natural(name)


@cache
def _openable() -> frozenset[str]:
    return frozenset(name.lower() for name in constants().OPENABLE_CLASS_SET)


def _search(notes: Notes, wanted: str, target: str, legal: Sequence[str], phase: str = "search") -> Advice:
    unsearched = [name for name in notes.receptacles if name not in notes.contents]
    for rank in (
        [name for name in unsearched if kind(name) in likely(wanted) and kind(name) != target],
        unsearched,
        list(notes.receptacles),
    ):
        if notes.here in rank and notes.here in notes.closed:
            return _advice(phase, [f"open {notes.here}"], legal)
        ways = [way for name in sorted(rank, key=_effort) for way in (f"go to {name}", f"open {name}") if way in legal]
        if ways:
            return _advice(phase, ways, legal)
    return _advice(phase, (), legal)
