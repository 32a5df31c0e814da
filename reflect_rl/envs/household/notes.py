"""What a player knows from the texts that it has read: the observation, and all that the explorer goes by."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
        """Take note of what is within reach: the receptacles that no legal command goes to."""
        away = {command.removeprefix("go to ") for command in legal}
        self.near = tuple(name for name in self.receptacles if name not in away and name != self.here)

    def _set(self, receptacle: str, things: Iterable[str]) -> None:
        self.contents[receptacle] = tuple(sorted(things, key=natural))

    def known(self, *kinds: str) -> list[tuple[str, str]]:
        """(thing, receptacle) of every thing of these kinds that was seen and not taken since."""
        places = sorted(self.contents, key=natural)
        return [(thing, place) for place in places for thing in self.contents[place] if kind(thing) in kinds]

    def text(self) -> str:
        """The observation: of what was seen elsewhere, only things of the kinds that the task names."""
        named = self.known(*re.findall(r"[a-z]+", self.task.lower()))
        here = [thing for thing, place in named if place == self.here and place not in self.closed]
        lines = {
            "Task": self.task,
            "At": self._place(),
            "Here": ", ".join(here),
            "Hand": ", ".join(filter(None, (self.held, self.treated.get(self.held)))) or "nothing",
            "Near": ", ".join(self.near),
            "Seen": ", ".join(f"{thing} in {place}" for thing, place in named if thing not in here),
            "Not searched": " ".join(name for name in self.receptacles if name not in self.contents) or "nothing",
            "On": self.light,
        }
        return "\n".join(f"{label}: {text}" for label, text in lines.items() if text)

    def _place(self) -> str:
        if not self.here:
            return "the middle of the room"
        if self.here in self.closed:
            return f"{self.here}, closed"
        return f"{self.here}: {', '.join(self.contents[self.here]) or 'nothing'}"


def _listed(text: str) -> list[str]:
    """The things of `a cup 1, a knife 2, and a tomato 2.`"""
    return re.findall(r"\ba ([a-z]+ \d+)", text)
