"""The explorer, an expert that knows what it has seen and what is kept where: it demonstrates, and is a ceiling."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from reflect_rl.envs.household.games import LAMP, constants
from reflect_rl.envs.household.goal import ADJECTIVES, Goal, kind, natural, of_kind
from reflect_rl.envs.household.notes import Notes


@dataclass(frozen=True)
class Advice:
    """What the explorer would do now."""

    phase: str  # the subgoal: `search`, `fetch`, `treat`, `place`, `seek light`, `light` or `put down`
    commands: tuple[str, ...]  # all that are equally good as far as is known; the first is its choice


@cache
def likely(wanted: str) -> frozenset[str]:
    """Kinds of receptacles that may hold a kind of object: common sense from ALFWorld's constants."""
    if wanted == LAMP.lower():
        return frozenset(("desk", "sidetable", "dresser"))
    allowed = constants().VAL_RECEPTACLE_OBJECTS
    return frozenset(place.lower() for place, things in allowed.items() if wanted in {t.lower() for t in things})


def explore(notes: Notes, goal: Goal, legal: Sequence[str]) -> Advice:
    """What to do next: fetch what was seen, or look where it may be; treat and place what is carried."""
    held, lamp = notes.held, LAMP.lower()
    begun = [place for _, place in notes.known(goal.object) if kind(place) == goal.target][:1]  # holds one already
    if not held:
        seen = [(f"take {t} from {p}", p) for t, p in notes.known(goal.object) if goal.treatment or p not in begun]
        return _at("fetch", seen, legal) if seen else _search("search", notes, goal.object, goal.target, legal)
    if kind(held) != goal.object:
        return _put_down(notes, legal)
    if goal.treatment and notes.treated.get(held) != ADJECTIVES[goal.treatment]:
        places = of_kind(goal.place, notes.receptacles)
        return _at("treat", [(f"{goal.treatment} {held} with {place}", place) for place in places], legal)
    if goal.light:
        lamps = [(f"use {name}", place) for name, place in notes.known(lamp)]
        return _at("light", lamps, legal) if lamps else _search("seek light", notes, lamp, "", legal)
    # two objects have to end up in the same receptacle
    targets = begun if goal.count > 1 and begun else of_kind(goal.target, notes.receptacles)
    return _at("place", [(f"move {held} to {place}", place) for place in targets], legal)


def _advise(phase: str, legal: Sequence[str], *options: Iterable[str]) -> Advice:
    """The first of the options that has legal commands; else whatever is legal."""
    for commands in options:
        possible = tuple(dict.fromkeys(command for command in commands if command in legal))
        if possible:
            return Advice(phase, possible)
    return Advice(phase, tuple(legal[:1]))


def _at(phase: str, ways: Sequence[tuple[str, str]], legal: Sequence[str]) -> Advice:
    """One of these (command, place) where it is legal; else a place is opened, or gone to."""
    acting = [command for command, _ in ways]
    opening, going = ([f"{verb} {place}" for _, place in ways] for verb in ("open", "go to"))
    return _advise(phase, legal, acting, opening, going)


def _put_down(notes: Notes, legal: Sequence[str]) -> Advice:
    fits = [name for name in notes.receptacles if kind(name) in likely(kind(notes.held))]
    here = [command for command in legal if command.startswith(f"move {notes.held} to ")]
    opening = [f"open {name}" for name in fits if name == notes.here and name in notes.closed]
    going = [f"go to {name}" for name in sorted(fits, key=_effort)]
    return _advise("put down", legal, here, opening, going)


def _search(phase: str, notes: Notes, wanted: str, target: str, legal: Sequence[str]) -> Advice:
    """Look where it may be, first where nothing has to be opened; what is within reach is opened before one leaves."""
    unsearched = [name for name in notes.receptacles if name not in notes.contents]
    promising = [name for name in unsearched if kind(name) in likely(wanted) and kind(name) != target]
    options = []
    for rank in (promising, unsearched, notes.receptacles):
        ordered = sorted(rank, key=_effort)
        options.append([f"open {notes.here}"] if notes.here in rank and notes.here in notes.closed else [])
        options.append([f"open {name}" for name in ordered if name in notes.near])
        options.append([f"go to {name}" for name in ordered])
    return _advise(phase, legal, *options)


@cache
def _effort(name: str) -> tuple:
    """Sort key: what needs no opening first."""
    return kind(name) in {openable.lower() for openable in constants().OPENABLE_CLASS_SET}, natural(name)
