"""What a household task asks for, in the words of the game's texts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from reflect_rl.envs.household.games import TREATMENTS, Recipe

ADJECTIVES = {"clean": "clean", "heat": "hot", "cool": "cold"}


@cache
def natural(name: str) -> tuple:
    """Sort key: `cabinet 2` before `cabinet 10`."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def kind(name: str) -> str:
    """`tomato 1` -> `tomato`."""
    return name.split(" ")[0]


def of_kind(wanted: str, names: Iterable[str]) -> list[str]:
    """The names of a kind, in natural order."""
    return sorted((name for name in names if kind(name) == wanted), key=natural)


@dataclass(frozen=True)
class Goal:
    """A recipe in the words of the texts: kinds in lower case, empty where there is none."""

    object: str
    target: str  # empty where the object is to be looked at
    treatment: str  # `clean`, `heat` or `cool`
    place: str  # where that is done
    count: int  # how many objects
    light: bool  # whether they are to be looked at under the lamp

    @classmethod
    def of(cls, recipe: Recipe) -> "Goal":
        treatment, _, place = TREATMENTS.get(recipe.task_type, ("", "", ""))
        light = recipe.task_type == "look_at_obj_in_light"
        target = "" if light else recipe.target.lower()
        count = 2 if recipe.task_type == "pick_two_obj_and_place" else 1
        return cls(recipe.object.lower(), target, treatment, place.lower(), count, light)
