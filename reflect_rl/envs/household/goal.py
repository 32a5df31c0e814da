"""What a household task asks for, in the words of the game's texts."""

import re
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


@dataclass(frozen=True)
class Goal:
    """A recipe in the words of the texts.

    Attributes:
        object, target: kinds in lower case; target is empty where the object is to be looked at.
        treatment, place: `clean`, `heat` or `cool`, and the kind of receptacle where that is done; or both empty.
        count: how many objects. light: whether they are to be looked at under the lamp.
    """

    object: str
    target: str
    treatment: str
    place: str
    count: int
    light: bool

    @classmethod
    def of(cls, recipe: Recipe) -> "Goal":
        treatment, _, place = TREATMENTS.get(recipe.task_type, ("", "", ""))
        light = recipe.task_type == "look_at_obj_in_light"
        target = "" if light else recipe.target.lower()
        count = 2 if recipe.task_type == "pick_two_obj_and_place" else 1
        return cls(recipe.object.lower(), target, treatment, place.lower(), count, light)
