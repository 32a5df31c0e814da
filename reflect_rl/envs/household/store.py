"""Games on disk: which ones make up the panels, where they are, and making those that are missing."""

import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from reflect_rl.core import files, paths
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import (
    PAPER,
    ROOMS,
    TASK_TYPES,
    UNSEEN,
    VALIDATED,
    Recipe,
    generate,
    possible_goals,
    recipes,
    sentence,
    trial_name,
    trial_number,
)
from reflect_rl.envs.household.goal import Goal
from reflect_rl.envs.household.oracle import shortest_plan

LAYOUT = "json_2.1.1"
SPLITS = ("train", "valid_seen", "valid_unseen")  # ALFWorld's
SETTINGS = ("paper", "kitchens", "all_seen", "all_unseen")
IN_UNSEEN_ROOMS = ("kitchens", "all_unseen")  # those that are judged in rooms that training never sees
STAGES = ("pickup", "dropoff", "full")  # of a game, as a task id begins
FIRST_TRIAL = {"train": 0, "validation": 2000, "test": 8000}  # of generated games: no number is in two splits
DRAWS = {"train": 0, "validation": 1, "test": 3}  # of panels: a test panel that was looked at is drawn anew
SIZES = {  # setting -> games of each split; the paper played 4 games 25 times
    "paper": {"train": 60, "validation": 60, "test": 60},
    "kitchens": {"train": 135, "validation": 60, "test": 60},
    "all_seen": {"train": 300, "validation": 60, "test": 60},
    "all_unseen": {"train": 0, "validation": 60, "test": 60},
}
OTHER_GOALS = 6000  # tasks of training beside the games' own goals
PLAIN = re.compile(r"[A-Za-z0-9_-]{1,200}")  # of which the parts of a task's name are made


def real_root() -> Path | None:
    """`$ALFWORLD_DATA`, the folder of the real archives, or None; raises ReflectRLError where it holds no games."""
    named = os.environ.get("ALFWORLD_DATA")
    return _with_games(named) if named else None


@cache
def _with_games(named: str) -> Path:
    """The folder, checked once: every task and every row of results needs it."""
    if not any(Path(named).glob(f"{LAYOUT}/*/*/*/game.tw-pddl")):
        raise ReflectRLError(
            f"ALFWORLD_DATA={named} holds no {LAYOUT}/<split>/<task>/<trial>/game.tw-pddl; unset it to play generated games"
        )
    return Path(named)


@cache
def games(setting: str, split: str) -> tuple[str, ...]:
    """The games of a panel as `<ALFWorld's split>/<task>/<trial>`, fixed once and for all.

    `paper`: the paper's task in its scene. `kitchens`: the same task in all kitchens. `all_seen` and `all_unseen`: all six
    task types in every kind of room, in scenes that training sees and in others. Validation and test of `kitchens` and
    `all_unseen` are in scenes of their own, `VALIDATED` and `UNSEEN`, and no other panel is.
    """
    if setting not in SETTINGS:
        raise unknown("setting", setting, SETTINGS)
    if split not in FIRST_TRIAL:
        raise unknown("split", split, FIRST_TRIAL)
    tested_in = "valid_unseen" if setting in IN_UNSEEN_ROOMS else "valid_seen"
    folder = tested_in if split == "test" else "train"
    found = _generated(setting, split) if real_root() is None else _real(setting, split, folder)
    return tuple(f"{folder}/{recipe.name}/{trial}" for recipe, trial in found)


def _own_room(scene: int, setting: str, split: str) -> bool:
    """Whether a panel may hold games in this scene."""
    kept_for = "test" if scene in UNSEEN else "validation" if scene in VALIDATED else "train"
    return kept_for == (split if setting in IN_UNSEEN_ROOMS else "train")


def _generated(setting: str, split: str) -> Iterator[tuple[Recipe, str]]:
    size, first = SIZES[setting][split], FIRST_TRIAL[split]
    if setting in ("paper", "kitchens"):
        scenes, start = [PAPER.scene], first
        if setting == "kitchens":  # among them the paper's; other numbers keep the two panels apart
            scenes, start = [s for s in ROOMS["kitchen"] if _own_room(s, setting, split)], first + 500
        for i in range(size):
            yield PAPER.in_scene(scenes[i % len(scenes)]), trial_name(start + i // len(scenes))
        return
    rng = np.random.default_rng([SETTINGS.index(setting), DRAWS[split]])
    scenes = [s for rooms in ROOMS.values() for s in rooms if _own_room(s, setting, split)]
    of_type = {t: [[r for r in recipes(s) if r.task_type == t] for s in scenes] for t in TASK_TYPES}
    for i in range(size):  # types in turn, so that the first ones of a panel are of all types
        possible = [found for found in of_type[TASK_TYPES[i % len(TASK_TYPES)]] if found]  # of each scene
        in_scene = possible[rng.integers(len(possible))]
        yield in_scene[rng.integers(len(in_scene))], trial_name(first + 700 + i // len(TASK_TYPES))


def _real(setting: str, split: str, folder: str) -> Iterator[tuple[Recipe, str]]:
    """From the real archives; training and validation share a folder and are told apart by scene or checksum."""
    for path in sorted(real_root().glob(f"{LAYOUT}/{folder}/*/*/game.tw-pddl")):
        name, trial = path.parts[-3:-1]
        try:
            recipe = Recipe.parse(name)
        except ReflectRLError:
            continue  # sliced and movable tasks, which ALFWorld leaves out too
        task = recipe.in_scene(PAPER.scene) if setting == "kitchens" else recipe
        of_setting = SIZES[setting][split] and (setting.startswith("all") or task == PAPER)
        held_out = sha256(f"{name}/{trial}".encode()).digest()[0] < 32  # one in eight
        of_split = setting in IN_UNSEEN_ROOMS or held_out == (split == "validation")
        if of_setting and (split == "test" or (of_split and _own_room(recipe.scene, setting, split))):
            yield recipe, trial


@cache
def other_goals() -> tuple[str, ...]:
    """Training games with other goals than their own, as `<game>#<task>`: drawn like the panels of all task types.

    Types in turn, then a scene, one of its games, and a goal. Only for generated games, whose rooms are known before
    they are made.
    """
    if real_root() is not None:
        return ()
    rng, panel = np.random.default_rng(len(SETTINGS)), [g for s in SETTINGS for g in games(s, "train")]
    by_type = {task_type: defaultdict(list) for task_type in TASK_TYPES}  # -> scene -> for each game its goals
    for game in panel:
        _, name, trial = game.split("/")
        goals = defaultdict(list)
        for goal in possible_goals(Recipe.parse(name), trial_number(trial)):
            goals[goal.task_type].append(f"{game}#{goal.name}")
        for task_type, found in goals.items():
            by_type[task_type][Recipe.parse(name).scene].append(found)
    drawn: dict[str, None] = {}
    for i in range(OTHER_GOALS):
        in_scenes = list(by_type[TASK_TYPES[i % len(TASK_TYPES)]].values())
        in_scene = in_scenes[rng.integers(len(in_scenes))]
        of_game = in_scene[rng.integers(len(in_scene))]
        drawn[of_game[rng.integers(len(of_game))]] = None
    return tuple(drawn)


def tasks(name: str, split: str, most: int = 0) -> tuple[str, ...]:
    """Task ids of a setting, or for a stage of all settings; the first `most` of each setting.

    A stage of training has also the games' other goals, unless `most` is given.
    """
    if name not in (*SETTINGS, *STAGES):
        raise unknown("setting", name, (*SETTINGS, *STAGES))
    stage, settings = ("full", [name]) if name in SETTINGS else (name, SETTINGS)
    found = [game for setting in settings for game in games(setting, split)[: most or None]]
    if name in STAGES and split == "train" and not most:
        found += other_goals()
    return tuple(f"{stage}:{game}" for game in dict.fromkeys(found))


@dataclass(frozen=True)
class Task:
    """What a task id names."""

    stage: str  # one of `STAGES`
    game: str  # `<ALFWorld's split>/<task>/<trial>`
    recipe: Recipe  # the goal: the game's own, or another one in its room
    sentence: str = ""  # that sets the other goal; empty for the game's own


@cache
def parse_task(task: str) -> Task:
    """`full:train/<task>/<trial>`, or the same with `#<another task>`; raises ReflectRLError where it is no task."""
    stage, _, rest = str(task).partition(":")
    game, _, goal = rest.partition("#")
    parts = game.split("/")
    known = (
        stage in STAGES
        and len(parts) == 3
        and parts[0] in SPLITS
        and all(map(PLAIN.fullmatch, [*parts, goal or "none"]))
    )
    if known and real_root() is None:  # a name that only looks like one would make a game of its own
        known = parts[1:] == [Recipe.parse(parts[1]).name, trial_name(trial_number(parts[2]))]
    if not known:
        raise ReflectRLError(f"{str(task)[:200]!r} is no ALFWorld task; an example: {tasks('paper', 'train')[0]!r}")
    if not goal:
        return Task(stage, game, Recipe.parse(parts[1]))
    recipe = Recipe.parse(goal)
    if recipe.scene != Recipe.parse(parts[1]).scene:
        raise ReflectRLError(f"{task!r} is no ALFWorld task: its goal is of another room; take one of the same")
    return Task(stage, game, recipe, sentence(recipe, random.Random(rest)))


def task_source(task: str) -> str:
    """Where a game comes from, in a few words."""
    if real_root() is not None:
        return "ALFWorld 2.1.1 archive"
    _, name, trial = parse_task(task).game.split("/")
    return Recipe.parse(name).origin(trial_number(trial))


def path_of(game: str) -> Path:
    """The game's file, which may not exist yet."""
    return (real_root() or paths.cache("household")) / LAYOUT / game / "game.tw-pddl"


_verifier = cache(Engine)  # one for all games that a process makes


def make(game: str) -> str:
    """Generate a game unless it is there; returns its path. To be called in an engine process.

    The first draw of the trial is kept that the oracle wins and that is not won at the start.
    """
    path = path_of(game)
    if path.is_file():
        return str(path)
    if real_root() is not None:
        raise ReflectRLError(f"no game at {path}; check ALFWORLD_DATA, or unset it to play generated games")
    recipe, trial, engine = Recipe.parse(game.split("/")[1]), trial_number(path.parent.name), _verifier()
    for attempt in range(20):
        made, trajectory = generate(recipe, trial, attempt)
        draft = path.with_name(f"draft{attempt}-{os.getpid()}.tw-pddl")  # other processes may be making the same game
        files.write_bytes(draft, json.dumps(made).encode())
        try:
            engine.reset(draft)
        finally:
            draft.unlink()
        walkthrough = shortest_plan(engine, Goal.of(recipe))
        for command in walkthrough:
            engine.step(command)
        if walkthrough and engine.won:
            made |= {"solvable": True, "walkthrough": walkthrough}
            files.write_bytes(path.with_name("initial_state.pddl"), made["pddl_problem"].encode())
            files.write_bytes(path.with_name("traj_data.json"), json.dumps(trajectory, indent=1).encode())
            files.write_bytes(path, json.dumps(made).encode())
            return str(path)
    raise ReflectRLError(f"no solvable game found for {game} in 20 draws; name another trial")


def manifest(panel: Iterable[str]) -> dict:
    """Origin, checksums and length of the walkthrough of the games that have been made; no two may be the same."""
    listed, games_of = {}, defaultdict(list)
    for game in sorted({parse_task(task).game for task in panel}):
        if not path_of(game).is_file():
            continue
        text = path_of(game).read_text()
        content = json.loads(text)
        problem = sha256(content["pddl_problem"].encode()).hexdigest()
        games_of[problem].append(game)
        listed[game] = {
            "provenance": task_source(f"full:{game}"),
            "problem_sha256": problem,
            "sha256": sha256(text.encode()).hexdigest(),
            "steps": len(content.get("walkthrough") or ()),
        }
    for same in games_of.values():
        if len(same) > 1:
            raise ReflectRLError(f"equal games: {', '.join(same)}; leave all but one out")
    return listed
