"""Games on disk: which ones make up the panels, where they are, and making those that are missing."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from reflect_rl.core import files, paths
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import PAPER, ROOMS, TASK_TYPES, UNSEEN, Recipe, generate, recipes, trial_name
from reflect_rl.envs.household.goal import Goal
from reflect_rl.envs.household.oracle import shortest_plan

LAYOUT = "json_2.1.1"
SPLITS = ("train", "valid_seen", "valid_unseen")  # ALFWorld's
SETTINGS = ("paper", "kitchens", "all_seen", "all_unseen")
STAGES = ("pickup", "dropoff", "full")  # of a game, as a task id begins
FIRST_TRIAL = {"train": 0, "validation": 1000, "test": 4000}  # of generated games: no number is in two splits
SIZES = {  # setting -> games of each split
    "paper": {"train": 60, "validation": 12, "test": 25},
    "kitchens": {"train": 144, "validation": 12, "test": 25},
    "all_seen": {"train": 540, "validation": 24, "test": 30},
    "all_unseen": {"train": 0, "validation": 0, "test": 30},
}


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

    `paper`: the paper's task in its scene. `kitchens`: the same task in all kitchens, tested in one that training never
    saw. `all_seen` and `all_unseen`: all six task types in every kind of room, tested in scenes that training saw and in
    scenes that it did not.
    """
    if setting not in SETTINGS:
        raise unknown("setting", setting, SETTINGS)
    if split not in FIRST_TRIAL:
        raise unknown("split", split, FIRST_TRIAL)
    tested_in = "valid_unseen" if setting in ("kitchens", "all_unseen") else "valid_seen"
    folder = tested_in if split == "test" else "train"
    found = _generated(setting, split) if real_root() is None else _real(setting, split, folder)
    return tuple(f"{folder}/{recipe.name}/{trial}" for recipe, trial in found)


def _generated(setting: str, split: str) -> Iterator[tuple[Recipe, str]]:
    size, first = SIZES[setting][split], FIRST_TRIAL[split]
    if setting in ("paper", "kitchens"):
        scenes, start = [PAPER.scene], first
        if setting == "kitchens":  # among them the paper's; other numbers keep the two panels apart
            scenes, start = [s for s in ROOMS["kitchen"] if (s in UNSEEN) == (split == "test")], first + 500
        for i in range(size):
            yield PAPER.in_scene(scenes[i % len(scenes)]), trial_name(start + i // len(scenes))
        return
    rng = np.random.default_rng([SETTINGS.index(setting), list(FIRST_TRIAL).index(split)])
    scenes = [s for rooms in ROOMS.values() for s in rooms if (s in UNSEEN) == (setting == "all_unseen")]
    of_type = {t: [[r for r in recipes(s) if r.task_type == t] for s in scenes] for t in TASK_TYPES}
    for i in range(size):  # types in turn, so that the first ones of a panel are of all types
        possible = [found for found in of_type[TASK_TYPES[i % len(TASK_TYPES)]] if found]  # of each scene
        in_scene = possible[rng.integers(len(possible))]
        yield in_scene[rng.integers(len(in_scene))], trial_name(first + 700 + i // len(TASK_TYPES))


def _real(setting: str, split: str, folder: str) -> Iterator[tuple[Recipe, str]]:
    """From the real archives; training and validation share a folder and are told apart by checksum."""
    for path in sorted(real_root().glob(f"{LAYOUT}/{folder}/*/*/game.tw-pddl")):
        name, trial = path.parts[-3:-1]
        try:
            recipe = Recipe.parse(name)
        except ReflectRLError:
            continue  # sliced and movable tasks, which ALFWorld leaves out too
        task = recipe.in_scene(PAPER.scene) if setting == "kitchens" else recipe
        held_out = sha256(f"{name}/{trial}".encode()).digest()[0] < 32  # one in eight
        of_setting = setting.startswith("all") or task == PAPER
        if of_setting and (split == "test" or held_out == (split == "validation")):
            yield recipe, trial


def tasks(name: str, split: str, most: int = 0) -> tuple[str, ...]:
    """Task ids of a setting, or for a stage of `paper`, `kitchens` and `all_seen`; the first `most` of each setting."""
    if name not in (*SETTINGS, *STAGES):
        raise unknown("setting", name, (*SETTINGS, *STAGES))
    stage, settings = ("full", [name]) if name in SETTINGS else (name, SETTINGS[:3])
    return tuple(f"{stage}:{game}" for setting in settings for game in games(setting, split)[: most or None])


def parse_task(task: str) -> tuple[str, str, Recipe]:
    """`full:train/<task>/<trial>` -> (stage, game, recipe); raises ReflectRLError where it is no task."""
    stage, _, game = str(task).partition(":")
    parts = game.split("/")
    if stage not in STAGES or len(parts) != 3 or parts[0] not in SPLITS:
        raise ReflectRLError(f"{task!r} is no ALFWorld task; an example: {tasks('paper', 'train')[0]!r}")
    return stage, game, Recipe.parse(parts[1])


def task_source(task: str) -> str:
    """Where a game comes from, in a few words."""
    if real_root() is not None:
        return "ALFWorld 2.1.1 archive"
    _, game, recipe = parse_task(task)
    return recipe.origin(int(game.rpartition("trial_G")[2]))


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
    recipe, trial, engine = Recipe.parse(game.split("/")[1]), int(game.rpartition("trial_G")[2]), _verifier()
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
    for game in sorted({task.partition(":")[2] for task in panel}):
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
