"""Household games: recipes, and a generator of games from the floor plans that the `alfworld` package carries.

A game is named as ALFWorld names it, `<task type>-<object>-None-<receptacle>-<scene>/trial_...`, and has the form of those
in ALFWorld's archives.

What is invented in a generated game: number and pose of the receptacles that the package knows no pose of (stove
burners, toaster, coffee machine, most bins), and the placement of objects: uniform over the receptacles that may hold
them, instead of simulated physics. Chairs, windows, taps and floor lamps are left out.
"""

import importlib
import importlib.resources
import json
import os
import random
import sys
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from reflect_rl.core.errors import ReflectRLError, unknown

UNSEEN = (10, 219, 308, 424)  # the scenes of the real valid_unseen split
SPLITS = ("train", "valid_seen", "valid_unseen")
ROOMS = {  # kind of room -> its scenes
    "kitchen": range(1, 31),
    "living room": range(201, 231),
    "bedroom": range(301, 331),
    "bathroom": range(401, 431),
}
TREATMENTS = {  # task type -> (what is done, the list of objects that it applies to, where it is done)
    "pick_clean_then_place_in_recep": ("clean", "Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("heat", "Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("cool", "Coolable", "Fridge"),
}
TASK_TYPES = ("pick_and_place_simple", "look_at_obj_in_light", *TREATMENTS, "pick_two_obj_and_place")
SPELLING = str.maketrans({"-": "_minus_", "|": "_bar_", "+": "_plus_", ".": "_dot_", ",": "_comma_"})  # of ids in PDDL
ABILITIES = ("Cleanable", "Heatable", "Coolable", "Sliceable")
INVENTED = {"StoveBurner": 4}  # how many, where the package has no pose; one of any other kind
LAMP = "DeskLamp"
START = (-100, -100, 0, 30)  # where the agent begins: no receptacle's pose, which would hide the room's listing
MOST_COPIES = 3  # alfworld.gen.constants.MAX_NUM_OF_OBJ_INSTANCES


@cache
def package(name: str):
    """A module of the `alfworld` package, or of its dependencies.

    Raises:
        ReflectRLError: it is not installed, or this Python cannot play.
    """
    if sys.version_info >= (3, 13):
        raise ReflectRLError("ALFWorld's text engine does not work on Python 3.13; use Python 3.11 or 3.12")
    before = os.environ.get("ALFWORLD_DATA")
    # without a folder, the import makes one in the user's home; and it sets the variable
    os.environ["ALFWORLD_DATA"] = str(importlib.resources.files("reflect_rl"))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ReflectRLError(
            f"the environment 'alfworld' needs the package {error.name or name!r}; install it by: pip install 'reflect-rl[alfworld]'"
        ) from error
    finally:
        del os.environ["ALFWORLD_DATA"]
        if before is not None:
            os.environ["ALFWORLD_DATA"] = before


def constants():
    """ALFWorld's own constants: which receptacle may hold which object, what can be heated, ..."""
    return package("alfworld.gen.constants")


@dataclass(frozen=True)
class Recipe:
    """Task and scene of a game; with the name of a trial it names one game.

    Attributes:
        target: receptacle type that the object has to end up in; the lamp for `look_at_obj_in_light`.
    """

    task_type: str
    object: str
    target: str
    scene: int

    @property
    def name(self) -> str:
        return f"{self.task_type}-{self.object}-None-{self.target}-{self.scene}"

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """The inverse of `name`; raises ReflectRLError where it is none."""
        parts = name.split("-")
        if len(parts) != 5 or parts[0] not in TASK_TYPES or not parts[4].isdigit():
            raise ReflectRLError(f"{name!r} names no ALFWorld task; an example: {PAPER.name}")
        return cls(parts[0], parts[1], parts[3], int(parts[4]))

    def in_scene(self, scene: int) -> "Recipe":
        """The same task in another scene."""
        return replace(self, scene=scene)


PAPER = Recipe("pick_and_place_simple", "Tomato", "Microwave", 13)


@cache
def floor_plan(scene: int) -> tuple[tuple[str, ...], dict[str, tuple]]:
    """(object types, {receptacle id: pose}) of an AI2-THOR floor plan, as the package has them."""
    if not any(scene in scenes for scenes in ROOMS.values()):
        raise unknown("scene", scene, [f"{s[0]} to {s[-1]}" for s in ROOMS.values()])
    folder = importlib.resources.files(package("alfworld.gen")) / "layouts"
    objects = json.loads((folder / f"FloorPlan{scene}-objects.json").read_text())
    poses = json.loads((folder / f"FloorPlan{scene}-openable.json").read_text())
    return tuple(sorted(objects)), {name: tuple(pose) for name, pose in sorted(poses.items())}


def kind_of(receptacle: str) -> str:
    """Type of a receptacle id: `Cabinet|-00.64|+00.39|+04.30` -> `Cabinet`; basins are named at the end."""
    first, *_, last = receptacle.split("|")
    return last if last in ("SinkBasin", "BathtubBasin") else first


@cache
def fixed_kinds() -> frozenset[str]:
    """Types of the receptacles that cannot be moved."""
    return frozenset(constants().RECEPTACLES - constants().MOVABLE_RECEPTACLES_SET)


@cache
def receptacles(scene: int) -> dict[str, tuple[int, int, int, int]]:
    """Receptacle id -> location (x and z in quarters of a metre, rotation in quarter turns, camera angle).

    Receptacles without a known pose stand outside the room's grid, each at a place of its own.
    """
    objects, poses = floor_plan(scene)
    found = {
        name: (round(x * 4), round(z * 4), round(turn / 90), round(angle))
        for name, (x, z, turn, angle) in poses.items()
        if kind_of(name) in fixed_kinds()
    }
    absent = sorted(set(objects) & fixed_kinds() - {kind_of(name) for name in found})
    invented = [kind for kind in absent for _ in range(INVENTED.get(kind, 1))]
    for x, kind in enumerate(invented, 100):
        suffix = f"|{kind}" if kind.endswith("Basin") else ""
        found[f"{kind.removesuffix('Basin')}|+{x / 4:05.2f}|+00.00|+00.00{suffix}"] = (x, 0, 0, 0)
    return found


@cache
def holders(scene: int, kind: str) -> tuple[str, ...]:
    """The receptacles of a scene that may hold an object of this type."""
    allowed = constants().VAL_RECEPTACLE_OBJECTS
    return tuple(name for name in receptacles(scene) if kind in allowed.get(kind_of(name), ()))


@cache
def movables(scene: int) -> tuple[str, ...]:
    """Types of the objects of a scene that can be picked up and put somewhere."""
    possible = constants().OBJECTS_SET - fixed_kinds()
    return tuple(kind for kind in floor_plan(scene)[0] if kind in possible and holders(scene, kind))


def lamp_places(scene: int) -> tuple[str, ...]:
    """Where a desk lamp may stand, empty where the scene has none."""
    present = LAMP in floor_plan(scene)[0]
    return tuple(r for r in receptacles(scene) if present and kind_of(r) in ("Desk", "SideTable", "Dresser"))


@cache
def recipes(scene: int) -> tuple[Recipe, ...]:
    """Every task that can be set in a scene, by name."""
    present, found = set(map(kind_of, receptacles(scene))), []
    for kind in movables(scene):
        targets = {kind_of(name) for name in holders(scene, kind)}
        types = ["pick_and_place_simple", "pick_two_obj_and_place"]
        for task_type, (_, ability, place) in TREATMENTS.items():
            if kind in constants().VAL_ACTION_OBJECTS[ability] and place in present:
                types.append(task_type)
        if len(targets) > 1:  # the object has to lie somewhere else at the start
            found += [Recipe(task_type, kind, target, scene) for target in targets for task_type in types]
        if lamp_places(scene):
            found.append(Recipe("look_at_obj_in_light", kind, LAMP, scene))
    return tuple(sorted(found, key=lambda r: r.name))


def _place(recipe: Recipe, rng: np.random.Generator) -> dict[str, str]:
    """Object id -> receptacle id: one to three copies of every movable type, each somewhere it may be.

    The object of the task starts nowhere that would already be its target.
    """
    scene, placed = recipe.scene, {}

    def add(kind: str, choices) -> None:
        x, y, z = rng.integers(-400, 400, size=3) / 100
        identity = f"{kind}|{x:+06.2f}|{y:+06.2f}|{z:+06.2f}"
        where = choices[rng.integers(len(choices))]
        if identity in placed:
            raise ValueError("two objects at one point")
        placed[identity] = where

    for kind in movables(scene):
        copies, choices = int(rng.integers(1, MOST_COPIES + 1)), holders(scene, kind)
        if kind == recipe.object:
            choices = [name for name in choices if kind_of(name) != recipe.target]
            copies += recipe.task_type == "pick_two_obj_and_place"
        for _ in range(copies):
            add(kind, choices)
    if recipe.task_type == "look_at_obj_in_light":
        add(LAMP, lamp_places(scene))
    return placed


def _location(pose: tuple[int, ...]) -> str:
    return f"loc|{'|'.join(map(str, pose))}"


def _facts(location: dict[str, str], placed: dict[str, str], types: dict[str, str]) -> list[str]:
    """All that is true at the start; `location` of receptacles, `placed` as of `_place`, `types` as declared."""
    c, facts = constants(), [f"atLocation agent1 {_location(START)}"]
    for name, place in location.items():
        facts += [f"receptacleType {name} {kind_of(name)}Type", f"receptacleAtLocation {name} {place}"]
        facts += [f"openable {name}"] if kind_of(name) in c.OPENABLE_CLASS_SET else []
    for name, where in placed.items():
        kind = kind_of(name)
        facts += [f"objectType {name} {kind}Type", f"inReceptacle {name} {where}", f"wasInReceptacle {name} {where}"]
        facts += [f"objectAtLocation {name} {location[where]}"]
        facts += [f"toggleable {name}" if kind == LAMP else f"pickupable {name}"]
        facts += [f"{ability.lower()} {name}" for ability in ABILITIES if kind in c.VAL_ACTION_OBJECTS[ability]]
        facts += [f"isReceptacleObject {name}"] if kind in c.MOVABLE_RECEPTACLES_SET else []
    for holder, held in sorted(c.VAL_RECEPTACLE_OBJECTS.items()):
        if types.get(holder) == "rtype":
            facts += [f"canContain {holder}Type {kind}Type" for kind in sorted(held) if types.get(kind) == "otype"]
    return facts


def problem(recipe: Recipe, rng: np.random.Generator) -> str:
    """The PDDL problem of a game: everything that is true at the start, and the goal."""
    location = {name: _location(pose) for name, pose in receptacles(recipe.scene).items()}
    placed = _place(recipe, rng)
    things = {recipe.object, LAMP, *map(kind_of, placed)}
    types = dict.fromkeys(fixed_kinds(), "rtype") | dict.fromkeys(things, "otype")
    objects = {"agent1": "agent"} | dict.fromkeys([*location.values(), _location(START)], "location")
    objects |= dict.fromkeys(location, "receptacle") | dict.fromkeys(placed, "object")
    objects |= {f"{kind}Type": role for kind, role in sorted(types.items())}
    facts = _facts(location, placed, types)
    goal = package("alfworld.gen.goal_library").gdict[recipe.task_type]["pddl"]
    goal = goal.format(obj=recipe.object, recep=recipe.target, toggle=recipe.target).replace("#", "-")
    lines = [f"(define (problem plan_{recipe.name.translate(SPELLING)})", "(:domain alfred)"]
    lines += ["(:objects", *(f"    {name.translate(SPELLING)} - {role}" for name, role in objects.items()), ")"]
    lines += ["(:init", "    (= (total-cost) 0)", *(f"    ({fact.translate(SPELLING)})" for fact in facts), ")"]
    return "\n".join(lines) + goal


def sentence(recipe: Recipe, rng: random.Random) -> str:
    """The task in words, from ALFWorld's own templates; the paper's task always in the paper's words."""
    templates = package("alfworld.gen.goal_library").gdict[recipe.task_type]["templates"]
    template = templates[1] if recipe.in_scene(PAPER.scene) == PAPER else rng.choice(templates)
    return template.format(obj=recipe.object.lower(), recep=recipe.target.lower(), toggle=recipe.target.lower())


def trial_name(number: int) -> str:
    """`trial_G00007`; the G tells a generated game from a real one wherever its name stands."""
    return f"trial_G{number:05d}"


def origin(recipe: Recipe, trial: int) -> str:
    """Where a generated game comes from, in a few words."""
    return f"generated from floor plan {recipe.scene}, seed {trial}"


def generate(recipe: Recipe, trial: int, attempt: int = 0) -> tuple[dict, dict]:
    """(game, traj_data) of one trial, not yet proven solvable; equal arguments give equal games.

    `attempt` counts the draws of a trial, should an earlier one have turned out unsolvable.
    """
    if recipe not in recipes(recipe.scene):
        raise unknown("task of this scene", recipe.name, [r.name for r in recipes(recipe.scene)])
    rng = np.random.default_rng([trial, attempt, *sha256(recipe.name.encode()).digest()[:8]])
    own = random.Random(int(rng.integers(2**63)))  # alfworld's helper wants one of these
    light = recipe.target == LAMP
    trajectory = {
        "task_id": trial_name(trial),
        "task_type": recipe.task_type,
        "pddl_params": {
            "object_target": recipe.object,
            "parent_target": "" if light else recipe.target,
            "toggle_target": LAMP if light else "",
            "mrecep_target": "",
            "object_sliced": False,
        },
        "scene": {"floor_plan": f"FloorPlan{recipe.scene}", "scene_num": recipe.scene},
        "turk_annotations": {"anns": [{"task_desc": sentence(recipe, own)}]},
        "provenance": origin(recipe, trial),
    }
    info, misc = package("alfworld.info"), package("alfworld.agents.utils.misc")
    grammar = Path(info.ALFRED_TWL2_PATH).read_text()
    game = {
        "pddl_domain": Path(info.ALFRED_PDDL_PATH).read_text(),
        "grammar": misc.add_task_to_grammar(grammar, trajectory, goal_desc_human_anns_prob=1.0, rng=own),
        "pddl_problem": problem(recipe, rng),
        "solvable": None,
        "walkthrough": None,
    }
    return game, trajectory
