"""Household games: recipes, and a generator of games from the floor plans that the `alfworld` package carries.

Games have the names, `<task type>-<object>-None-<receptacle>-<scene>/trial_...`, and the form of ALFWorld's archives.

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
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from reflect_rl.core.errors import ReflectRLError, unknown

UNSEEN = (10, 219, 308, 424)  # the scenes of the real valid_unseen split: tested in, and used for nothing else
VALIDATED = (9, 11, 218, 220, 307, 309, 423, 425)  # their neighbours: for choices about unseen scenes
ROOMS = {
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
START = "loc|-100|-100|0|30"  # where the agent begins: no receptacle's pose, which would hide the room's listing
MOST_COPIES = 3  # alfworld.gen.constants.MAX_NUM_OF_OBJ_INSTANCES


@cache
def package(name: str):
    """A module of the `alfworld` package or its dependencies; ReflectRLError where it is missing or Python too new."""
    if sys.version_info >= (3, 13):
        raise ReflectRLError("ALFWorld's text engine does not work on Python 3.13; use Python 3.11 or 3.12")
    before = os.environ.get("ALFWORLD_DATA")
    # without a folder, the import makes one in the user's home; and it sets the variable
    os.environ["ALFWORLD_DATA"] = str(Path(__file__).parent)
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
    """Task and scene of a game; with the name of a trial it names one game."""

    task_type: str
    object: str
    target: str  # type of the receptacle that the object has to end up in; the lamp for `look_at_obj_in_light`
    scene: int

    @property
    def name(self) -> str:
        return f"{self.task_type}-{self.object}-None-{self.target}-{self.scene}"

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """The inverse of `name`; raises ReflectRLError where it is none."""
        parts = name.split("-")
        if len(parts) != 5 or parts[0] not in TASK_TYPES or not parts[4].isdecimal():
            raise ReflectRLError(f"{name!r} names no ALFWorld task; an example: {PAPER.name}")
        return cls(parts[0], parts[1], parts[3], int(parts[4]))

    def origin(self, trial: int) -> str:
        """Where a generated game comes from, in a few words."""
        return f"generated from floor plan {self.scene}, seed {trial}"

    def in_scene(self, scene: int) -> "Recipe":
        """The same task in another scene."""
        return replace(self, scene=scene)


PAPER = Recipe("pick_and_place_simple", "Tomato", "Microwave", 13)


@cache
def floor_plan(scene: int) -> tuple[list[str], dict[str, list[float]]]:
    """(object types, {receptacle id: pose}) of an AI2-THOR floor plan, as the package has them."""
    if not any(scene in scenes for scenes in ROOMS.values()):
        raise unknown("scene", scene, [f"{s[0]} to {s[-1]}" for s in ROOMS.values()])
    folder = importlib.resources.files(package("alfworld.gen")) / "layouts"
    objects = json.loads((folder / f"FloorPlan{scene}-objects.json").read_text())
    poses = json.loads((folder / f"FloorPlan{scene}-openable.json").read_text())
    return sorted(objects), dict(sorted(poses.items()))


def kind_of(receptacle: str) -> str:
    """Type of a receptacle id: `Cabinet|-00.64|+00.39|+04.30` -> `Cabinet`; basins are named at the end."""
    first, *_, last = receptacle.split("|")
    return last if last in ("SinkBasin", "BathtubBasin") else first


@cache
def fixed_kinds() -> frozenset[str]:
    """Types of the receptacles that cannot be moved."""
    return frozenset(constants().RECEPTACLES - constants().MOVABLE_RECEPTACLES_SET)


@cache
def receptacles(scene: int) -> dict[str, str]:
    """Receptacle id -> id of its location: x and z in quarters of a metre, rotation in quarter turns, camera angle."""
    objects, poses = floor_plan(scene)
    found = {
        name: f"loc|{round(x * 4)}|{round(z * 4)}|{round(turn / 90)}|{round(angle)}"
        for name, (x, z, turn, angle) in poses.items()
        if kind_of(name) in fixed_kinds()
    }
    absent = sorted(set(objects) & fixed_kinds() - {kind_of(name) for name in found})
    invented = [kind for kind in absent for _ in range(INVENTED.get(kind, 1))]
    for x, kind in enumerate(invented, 100):  # outside the room's grid, each at a place of its own
        suffix = f"|{kind}" if kind.endswith("Basin") else ""
        found[f"{kind.removesuffix('Basin')}|+{x / 4:05.2f}|+00.00|+00.00{suffix}"] = f"loc|{x}|0|0|0"
    return found


@cache
def holders(scene: int, kind: str) -> tuple[str, ...]:
    """The receptacles of a scene that may hold an object of this type, or the lamp."""
    fitting = {place for place, things in constants().VAL_RECEPTACLE_OBJECTS.items() if kind in things}
    if kind == LAMP:  # ALFWorld does not say
        fitting = {"Desk", "SideTable", "Dresser"}
    return tuple(name for name in receptacles(scene) if kind_of(name) in fitting)


@cache
def movables(scene: int) -> tuple[str, ...]:
    """Types of the objects of a scene that can be picked up and put somewhere."""
    possible = constants().OBJECTS_SET - fixed_kinds() - {LAMP}
    return tuple(kind for kind in floor_plan(scene)[0] if kind in possible and holders(scene, kind))


@cache
def recipes(scene: int) -> tuple[Recipe, ...]:
    """Every task that can be set in a scene, by name."""
    present, capable, found = set(map(kind_of, receptacles(scene))), constants().VAL_ACTION_OBJECTS, []
    for kind in movables(scene):
        targets = {kind_of(name) for name in holders(scene, kind)}
        types = [t for t, (_, able, place) in TREATMENTS.items() if kind in capable[able] and place in present]
        types += ["pick_and_place_simple", "pick_two_obj_and_place"]
        if len(targets) > 1:  # the object has to lie somewhere else at the start
            found += [Recipe(task_type, kind, target, scene) for target in targets for task_type in types]
        if LAMP in floor_plan(scene)[0] and holders(scene, LAMP):
            found.append(Recipe("look_at_obj_in_light", kind, LAMP, scene))
    return tuple(sorted(found, key=lambda r: r.name))


def _place(recipe: Recipe, rng: np.random.Generator) -> dict[str, str]:
    """Object id -> receptacle id: one to three copies of every movable type, where they may be and not at the target."""
    placed, lamp = {}, [LAMP] if recipe.target == LAMP else []
    for kind in (*movables(recipe.scene), *lamp):
        copies = 1 if kind == LAMP else int(rng.integers(1, MOST_COPIES + 1))
        choices = holders(recipe.scene, kind)
        if kind == recipe.object:
            choices = [name for name in choices if kind_of(name) != recipe.target]
            copies += recipe.task_type == "pick_two_obj_and_place"
        for _ in range(copies):
            x, y, z = rng.integers(-400, 400, size=3) / 100
            identity = f"{kind}|{x:+06.2f}|{y:+06.2f}|{z:+06.2f}"
            if identity in placed:
                raise ValueError("two objects at one point")
            placed[identity] = choices[rng.integers(len(choices))]
    return placed


def problem(recipe: Recipe, rng: np.random.Generator) -> str:
    """The PDDL problem of a game: everything that is true at the start, and the goal."""
    location, placed = receptacles(recipe.scene), _place(recipe, rng)
    things = {recipe.object, LAMP, *map(kind_of, placed)}
    types = dict.fromkeys(fixed_kinds(), "rtype") | dict.fromkeys(things, "otype")
    objects = {"agent1": "agent"} | dict.fromkeys([*location.values(), START], "location")
    objects |= dict.fromkeys(location, "receptacle") | dict.fromkeys(placed, "object")
    objects |= {f"{kind}Type": role for kind, role in sorted(types.items())}
    c, facts = constants(), [f"atLocation agent1 {START}"]
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
    goal = package("alfworld.gen.goal_library").gdict[recipe.task_type]["pddl"]
    goal = goal.format(obj=recipe.object, recep=recipe.target, toggle=recipe.target).replace("#", "-")
    lines = [f"(define (problem plan_{recipe.name.translate(SPELLING)})", "(:domain alfred)"]
    lines += ["(:objects", *(f"    {name.translate(SPELLING)} - {role}" for name, role in objects.items()), ")"]
    lines += ["(:init", "    (= (total-cost) 0)", *(f"    ({fact.translate(SPELLING)})" for fact in facts), ")"]
    return "\n".join(lines) + goal


def trial_name(number: int) -> str:
    """`trial_G00007`; the G tells a generated game from a real one wherever its name stands."""
    return f"trial_G{number:05d}"


def trial_number(name: str) -> int:
    """The inverse of `trial_name`; raises ReflectRLError where it is none."""
    number = name.removeprefix("trial_G")
    if not number.isdecimal():
        raise ReflectRLError(f"{name!r} names no trial of a generated game; an example: {trial_name(7)}")
    return int(number)


def _generators(recipe: Recipe, trial: int, attempt: int) -> tuple[random.Random, np.random.Generator]:
    """What a trial's words and its objects' places are drawn from; alfworld's helper wants the first kind."""
    rng = np.random.default_rng([trial, attempt, *sha256(recipe.name.encode()).digest()[:8]])
    return random.Random(int(rng.integers(2**63))), rng


def sentence(recipe: Recipe, own: random.Random) -> str:
    """The task in one of ALFWorld's wordings; the paper's task in the paper's."""
    templates = package("alfworld.gen.goal_library").gdict[recipe.task_type]["templates"]
    template = templates[1] if recipe.in_scene(PAPER.scene) == PAPER else own.choice(templates)
    target = recipe.target.lower()
    return template.format(obj=recipe.object.lower(), recep=target, toggle=target)


def possible_goals(recipe: Recipe, trial: int) -> tuple[Recipe, ...]:
    """The tasks that could as well be set in a generated game: its room as it is, with another goal.

    The objects that they are about lie elsewhere than at the target, as in games of their own.
    """
    places, present = defaultdict(list), _place(recipe, _generators(recipe, trial, 0)[1])
    for thing, where in present.items():
        places[kind_of(thing)].append(kind_of(where))
    return tuple(
        other
        for other in recipes(recipe.scene)
        if other != recipe
        and len(places[other.object]) > (other.task_type == "pick_two_obj_and_place")
        and (LAMP in places if other.target == LAMP else other.target not in places[other.object])
    )


def generate(recipe: Recipe, trial: int, attempt: int = 0) -> tuple[dict, dict]:
    """(game, traj_data) of a draw of one trial, not yet proven solvable; equal arguments give equal games."""
    if recipe not in recipes(recipe.scene):
        raise unknown("task of this scene", recipe.name, [r.name for r in recipes(recipe.scene)])
    own, rng = _generators(recipe, trial, attempt)
    task = sentence(recipe, own)
    params = dict.fromkeys(("object_target", "parent_target", "toggle_target", "mrecep_target"), "")
    params["object_target"] = recipe.object
    params["toggle_target" if recipe.target == LAMP else "parent_target"] = recipe.target
    trajectory = {
        "task_id": trial_name(trial),
        "task_type": recipe.task_type,
        "pddl_params": params | {"object_sliced": False},
        "scene": {"floor_plan": f"FloorPlan{recipe.scene}", "scene_num": recipe.scene},
        "turk_annotations": {"anns": [{"task_desc": task}]},
        "provenance": recipe.origin(trial),
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
