"""What a player knows from the texts that it has read: the observation, and all that the explorer goes by."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reflect_rl.envs.household.games import LAMP
from reflect_rl.envs.household.goal import ADJECTIVES, kind, natural


@dataclass
class Notes:
    """What a player knows."""

    task: str  # the sentence that sets the task
    receptacles: tuple[str, ...]  # all of the room, in natural order
    here: str = ""  # where the player stands, empty at the start
    held: str = ""  # what is in hand, empty where nothing is
    contents: dict[str, tuple[str, ...]] = field(default_factory=dict)  # receptacle -> what was seen in or on it
    closed: set[str] = field(default_factory=set)  # receptacles that are known to be closed
    treated: dict[str, str] = field(default_factory=dict)  # object -> what was done to it: `clean`, `hot`, `cold`
    light: str = ""  # the lamp that was turned on last
    near: tuple[str, ...] = ()  # other receptacles within reach: in some rooms two share a place

    @classmethod
    def start(cls, intro: str, task: str) -> "Notes":
        """The notes of one who has read the game's intro."""
        room = intro.partition("you see ")[2].partition(".")[0]
        return cls(task, tuple(sorted(_listed(room), key=natural)))

    def read(self, command: str, feedback: str) -> None:
        """Take note of the feedback on a command."""
        if feedback.startswith("Nothing happens"):
            return
        verb, _, rest = command.partition(" ")
        match verb:
            case "go" | "open":
                place = rest.removeprefix("to ")
                self.here = place if verb == "go" else self.here
                if f"The {place} is closed" in feedback:
                    self.closed.add(place)
                else:
                    self.closed.discard(place)
                    self._set(place, _listed(feedback.partition("you see ")[2]))
            case "close":
                self.closed.add(rest)
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

    def look(self, legal: Sequence[str]) -> None:
        """Take note of what is within reach: the receptacles that no legal command goes to, and what lies in them."""
        named = {verb: [c.removeprefix(f"{verb} ") for c in legal if c.startswith(verb)] for verb in ("go to", "open")}
        self.near = tuple(name for name in self.receptacles if name not in named["go to"] and name != self.here)
        for place in self.near:
            if place in named["open"]:
                self.closed.add(place)
            elif not self.held:  # all but a lamp can be taken
                takes = [c.removeprefix("take ").partition(" from ") for c in legal if c.startswith("take ")]
                lamps = [thing for thing in self.contents.get(place, ()) if kind(thing) == LAMP.lower()]
                self._set(place, [*lamps, *(thing for thing, _, source in takes if source == place)])

    def _set(self, receptacle: str, things: Iterable[str]) -> None:
        self.contents[receptacle] = tuple(sorted(things, key=natural))

    def known(self, *kinds: str) -> list[tuple[str, str]]:
        """(thing, receptacle) of every thing of these kinds that was seen and not taken since."""
        places = sorted(self.contents, key=natural)
        return [(thing, place) for place in places for thing in self.contents[place] if kind(thing) in kinds]

    def text(self) -> str:
        """The observation; of what was seen elsewhere only kinds that the task names, which are marked by a `!`.

        Every receptacle stands in one of the first four lines, or is where the player stands: no command goes from a
        place to itself. Names have commas between them but in the list of those to search, so that a small model sees
        next to a name which list it is in. Things at places that the task names stand in a line of their own. What
        decides stands last, next to where a player's answer begins.
        """
        kinds = re.findall(r"[a-z]+", self.task.lower())
        here, seen, in_place = [], [], []
        others = self.contents.get(self.here, ()) if self.here not in self.closed else ()
        for thing, place in self.known(*kinds):
            if kind(place) in kinds:
                in_place.append(f"{thing} in {marked(place, kinds)}")
            elif thing in others and place == self.here:
                here.append(thing)
            else:
                seen.append(f"{thing} in {place}")
        hand = " ".join(filter(None, (self.treated.get(self.held), self.held)))
        away = [name for name in self.receptacles if name != self.here and name not in self.near]
        shut = [name for name in self.near if name in self.closed and name not in self.contents]
        lines = {
            "Searched": ranges((name for name in away if name in self.contents), ", "),
            "Not searched": ranges(name for name in away if name not in self.contents) or "nothing",
            "Near": ranges((name for name in self.near if name not in shut), ", "),
            "Near, closed": ranges(shut, ", "),
            "In place": ", ".join(in_place),
            "Seen": ", ".join(seen),
            "There": ", ".join(thing for thing in others if kind(thing) not in kinds),
            "Here": ", ".join(here),
            "On": self.light,
            "Hand": marked(hand, kinds, self.held) or "nothing",
            "At": marked(self.here, kinds) + ", closed" * (self.here in self.closed) or "the middle of the room",
            "Task": self.task,
        }
        return "\n".join(f"{label}: {text}" for label, text in lines.items() if text)


def marked(text: str, kinds: Iterable[str], name: str = "") -> str:
    """A text, with a mark where the name in it (by default all of it) is of one of these kinds."""
    return f"{text} !" if kind(name or text) in kinds else text


def ranges(names: Iterable[str], between: str = " ") -> str:
    """`cabinet 1, cabinet 2, cabinet 3, fridge 1` -> `cabinet 1-3 fridge 1`; names in natural order."""
    runs: list[tuple[str, int, int]] = []
    for name in names:
        sort, _, number = name.rpartition(" ")
        last = runs[-1] if runs else None
        if last and (last[0], last[2]) == (sort, int(number) - 1):
            runs[-1] = (sort, last[1], int(number))
        else:
            runs.append((sort, int(number), int(number)))
    return between.join(f"{sort} {first}" if first == last else f"{sort} {first}-{last}" for sort, first, last in runs)


def _listed(text: str) -> list[str]:
    """The things of `a cup 1, a knife 2, and a tomato 2.`"""
    return re.findall(r"\ba ([a-z]+ \d+)", text)
