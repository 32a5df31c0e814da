"""Who knows what to do in a household: an oracle that reads the engine's facts, and an explorer that knows only what
it has seen.

The oracle gives the ceiling. The explorer is the honest ceiling under partial observability, and the source of
demonstrations and reflections: all that it goes by is in `Notes`, which hold texts that the player has read.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from reflect_rl.envs.alfworld.engine import Engine
from reflect_rl.envs.alfworld.games import LAMP, TREATMENTS, Recipe, constants

VERBS = {"Cleanable": "clean", "Heatable": "heat", "Coolable": "cool"}
ADJECTIVES = {"clean": "clean", "heat": "hot", "cool": "cold"}
DONE = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}


@cache
def natural(name: str) -> tuple:
    """Sort key: `cabinet 2` before `cabinet 10`."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def kind(name: str) -> str:
    """`tomato 1` -> `tomato`."""
    return name.split(" ")[0]


@dataclass(frozen=True)
class Goal:
    """A recipe in the words of the texts.

    Attributes:
        object, target: kinds in lower case; target is empty where the object is to be looked at.
        treatment: `clean`, `heat`, `cool` or empty; places: kinds of receptacles where that is done.
        count: how many objects. light: whether they are to be looked at under the lamp.
    """

    object: str
    target: str
    treatment: str
    places: tuple[str, ...]
    count: int
    light: bool

    @classmethod
    def of(cls, recipe: Recipe) -> "Goal":
        ability, places = TREATMENTS.get(recipe.task_type, ("", ()))
        light = recipe.task_type == "look_at_obj_in_light"
        return cls(
            recipe.object.lower(),
            "" if light else recipe.target.lower(),
            VERBS.get(ability, ""),
            tuple(place.lower() for place in places),
            2 if recipe.task_type == "pick_two_obj_and_place" else 1,
            light,
        )


# The oracle


class _World:
    """The engine's facts by name: who is where, what is open, what may hold what."""

    def __init__(self, engine: Engine):
        names, self.where, self.inside, self.kinds = engine.game.names, {}, {}, {}
        self.openable, self.open, self.done, self.toggled = set(), set(), {}, set()
        self.here, self.held, allowed = "", "", {}
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
                    allowed.setdefault(arguments[0], set()).add(arguments[1])
        self.allowed = allowed

    def may_hold(self, receptacle: str, thing: str) -> bool:
        return self.kinds[thing] in self.allowed.get(self.kinds[receptacle], ())

    def of_kind(self, wanted: str, names: Iterable[str]) -> list[str]:
        return sorted((name for name in names if kind(name) == wanted), key=natural)


class _Walk:
    """Commands one after the other, with what they change for those that follow."""

    def __init__(self, world: _World):
        self.world, self.place, self.opened, self.commands = world, world.here, set(world.open), []

    def go(self, receptacle: str) -> None:
        if self.place != self.world.where[receptacle]:
            self.commands.append(f"go to {receptacle}")
            self.place = self.world.where[receptacle]

    def reach(self, receptacle: str) -> None:
        self.go(receptacle)
        if receptacle in self.world.openable and receptacle not in self.opened:
            self.commands.append(f"open {receptacle}")
            self.opened.add(receptacle)

    def take(self, thing: str) -> None:
        receptacle = self.world.inside[thing]
        self.reach(receptacle)
        self.commands.append(f"take {thing} from {receptacle}")

    def put(self, thing: str, receptacle: str) -> None:
        self.reach(receptacle)
        self.commands.append(f"move {thing} to {receptacle}")


def oracle(engine: Engine, goal: Goal) -> list[str]:
    """The commands of a shortest way to the goal from here, empty where there is none or it is reached.

    Shortest over the choice of objects and receptacles; where something else is in hand, it is put down on the way.
    """
    world = _World(engine)
    if engine.won:
        return []
    things = world.of_kind(goal.object, {*world.inside, world.held} - {""})
    if goal.light:
        ends = [lamp for lamp in world.inside if kind(lamp) == LAMP.lower()]
    else:
        ends = world.of_kind(goal.target, world.where)
    places = [place for k in goal.places for place in world.of_kind(k, world.where)]
    best: list[str] | None = None
    for end in ends:
        there = [] if goal.light else [t for t in things if world.inside.get(t) == end and _ready(world, goal, t)]
        missing = goal.count - len(there)
        for chosen in itertools.permutations([t for t in things if t not in there], missing):
            if world.held in chosen and chosen[0] != world.held:
                continue
            for place in places or [""]:
                for first in _put_downs(world, chosen):
                    commands = _way(world, goal, chosen, end, place, first)
                    if best is None or len(commands) < len(best):
                        best = commands
    return best or []


def _ready(world: _World, goal: Goal, thing: str) -> bool:
    return not goal.treatment or DONE[goal.treatment] in world.done.get(thing, ())


def _put_downs(world: _World, chosen: Sequence[str]) -> list[str]:
    """Where to put down what is in hand and not wanted; [""] where there is no need."""
    if not world.held or world.held in chosen:
        return [""]
    fits = [r for r in world.where if world.may_hold(r, world.held)]
    near = [r for r in fits if world.where[r] == world.here]
    on_the_way = [r for r in fits if r in {world.inside.get(t) for t in chosen}]
    return sorted({*near, *on_the_way}, key=natural) or sorted(fits, key=natural)[:1]


def _way(world: _World, goal: Goal, chosen: Sequence[str], end: str, place: str, first: str) -> list[str]:
    walk = _Walk(world)
    if first:
        walk.put(world.held, first)
    for thing in chosen:
        if thing != world.held:
            walk.take(thing)
        if goal.treatment and not _ready(world, goal, thing):
            walk.go(place)
            walk.commands.append(f"{goal.treatment} {thing} with {place}")
        if goal.light:
            walk.go(world.inside[end])
            if end not in world.toggled:
                walk.commands.append(f"use {end}")
        else:
            walk.put(thing, end)
    return walk.commands


# The explorer


@dataclass
class Notes:
    """What a player knows from the texts it has read, and nothing else.

    Attributes:
        task: the sentence that sets the task.
        receptacles: all of the room, in natural order.
        here: where the player stands, empty at the start.
        held: what is in hand, empty where nothing is.
        contents: receptacle -> what was seen in or on it; closed ones that were never open are missing.
        closed: receptacles that are known to be closed.
        treated: object -> what was done to it (`clean`, `hot`, `cold`).
        light: the lamp that was turned on last.
        near: other receptacles within reach: in some rooms two share a place, and one cannot go from one to the other.
    """

    task: str
    receptacles: tuple[str, ...]
    here: str = ""
    held: str = ""
    contents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    treated: dict[str, str] = field(default_factory=dict)
    light: str = ""
    near: tuple[str, ...] = ()

    @classmethod
    def start(cls, intro: str, task: str) -> "Notes":
        room = intro.partition("you see ")[2].partition(".")[0]
        return cls(task, tuple(sorted(_listed(room), key=natural)))

    def read(self, command: str, feedback: str) -> None:
        """Take note of what a command led to."""
        if feedback.startswith("Nothing happens"):
            return
        verb, _, rest = command.partition(" ")
        match verb:
            case "go":
                self.here = rest.removeprefix("to ")
            case "take":
                self.held, _, source = rest.partition(" from ")
                self._set(source, [thing for thing in self.contents.get(source, ()) if thing != self.held])
            case "move" | "put":
                thing, target = re.split(r" (?:to|in/on|in|on) ", rest, maxsplit=1)
                self._set(target, [*self.contents.get(target, ()), thing])
                self.held = ""
            case "clean" | "heat" | "cool":
                self.treated[rest.partition(" with ")[0]] = ADJECTIVES[verb]
            case "use":
                self.light = rest
            case "close":
                self.closed.add(rest)
        if verb in ("go", "open"):
            seen = self.here if verb == "go" else rest
            if f"The {seen} is closed" in feedback:
                self.closed.add(seen)
            else:
                self.closed.discard(seen)
                self._set(seen, _listed(feedback.partition("you see ")[2]))

    def look(self, legal: Sequence[str]) -> None:
        """Take note of what is within reach: what one cannot go to."""
        away = {command.removeprefix("go to ") for command in legal}
        self.near = tuple(name for name in self.receptacles if name not in away and name != self.here)

    def _set(self, receptacle: str, things: Iterable[str]) -> None:
        self.contents[receptacle] = tuple(sorted(things, key=natural))

    def known(self, wanted: str) -> list[tuple[str, str]]:
        """(thing, receptacle) of every thing of a kind that was seen and not taken since."""
        return [
            (thing, place)
            for place, things in sorted(self.contents.items(), key=lambda item: natural(item[0]))
            for thing in things
            if kind(thing) == wanted
        ]

    def of_kind(self, wanted: str) -> list[str]:
        return [name for name in self.receptacles if kind(name) == wanted]

    def text(self) -> str:
        """All of it that the players need, in compact form.

        Things of the kinds that the task names are listed once more, those here and those elsewhere; what else stood in
        a searched receptacle is left out, and of the receptacles those are named that are still to be searched.
        """
        if not self.here:
            at = "the middle of the room"
        elif self.here in self.closed:
            at = f"{self.here}, closed"
        else:
            at = f"{self.here}: {', '.join(self.contents[self.here]) or 'nothing'}"
        words = set(re.findall(r"[a-z]+", self.task.lower()))
        named = [
            (thing, place)
            for place, things in sorted(self.contents.items(), key=lambda item: natural(item[0]))
            for thing in things
            if kind(thing) in words
        ]
        here = [thing for thing, place in named if place == self.here and place not in self.closed]
        elsewhere = [f"{thing} in {place}" for thing, place in named if thing not in here]
        held = (
            f"{self.held}{f', {self.treated[self.held]}' if self.held in self.treated else ''}"
            if self.held
            else "nothing"
        )
        lines = [f"Task: {self.task}", f"At: {at}"]
        if here:
            lines.append(f"Here: {', '.join(here)}")
        lines.append(f"Hand: {held}")
        if self.near:
            lines.append(f"Near: {', '.join(self.near)}")
        if elsewhere:
            lines.append(f"Seen: {', '.join(elsewhere)}")
        lines.append(
            f"Not searched: {' '.join(name for name in self.receptacles if name not in self.contents) or 'nothing'}"
        )
        if self.light:
            lines.append(f"On: {self.light}")
        return "\n".join(lines)


def _listed(text: str) -> list[str]:
    """The things of `a cup 1, a knife 2, and a tomato 2.`"""
    return re.findall(r"\ba ([a-z]+ \d+)", text)


@dataclass(frozen=True)
class Advice:
    """What the explorer would do now.

    Attributes:
        phase: `search`, `fetch`, `carry`, `treat`, `place`, `seek light`, `light` or `put down`.
        commands: all that serve it equally well as far as is known; the first is its choice.
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
    """One of these (command, place) where it can be said; else a place is opened, or gone to."""
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
    unknown = [name for name in notes.receptacles if name not in notes.contents]
    for rank in (
        [name for name in unknown if kind(name) in likely(wanted) and kind(name) != target],
        unknown,
        list(notes.receptacles),
    ):
        if notes.here in rank and notes.here in notes.closed:
            return _advice(phase, [f"open {notes.here}"], legal)
        ways = [way for name in sorted(rank, key=_effort) for way in (f"go to {name}", f"open {name}") if way in legal]
        if ways:
            return _advice(phase, ways, legal)
    return _advice(phase, (), legal)
