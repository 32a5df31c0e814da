"""The panels of questions about real repositories, and the question of a task.

`known` is split by question, as in the paper: its test is on repositories that training sees. `new` is split by repository.
"""

from functools import cache, lru_cache
from itertools import product
from zlib import crc32

import numpy as np

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.autoexplore import covering
from reflect_rl.envs.autoexplore.cards import LETTERS
from reflect_rl.envs.autoexplore.corpus import packages
from reflect_rl.envs.autoexplore.env import Question
from reflect_rl.envs.autoexplore.questions import Asked

SETTINGS = ("known", "new")
DEPTHS = ("depth1", "depth2")  # easier families of training: questions whose file lies at most so deep
VARIANTS = 4  # of a training question
SHARES = {"train": range(6), "validation": (7, 8), "test": (6, 9)}  # which of ten parts of the questions of `known`


@cache
def _ids(setting: str, split: str) -> dict[str, tuple[str, int]]:
    """(package, number of its question) by the id of a task of a panel; the first ones are of one package each."""
    found = []
    for name, package in packages().items():
        is_known = package.source.split == "train"
        for i, asked in enumerate(package.questions):
            split_of = package.source.split
            if is_known:
                share = crc32(f"{name} {asked.text}".encode()) % 10
                split_of = next(of for of, shares in SHARES.items() if share in shares)
            if split_of == split and is_known == (setting == "known"):
                found.append((name, i))
    found.sort(key=lambda place: place[1])
    variants = [f"-{v}" for v in range(VARIANTS)] if split == "train" else [""]
    return {f"{setting}-{name}-{i}{variant}": (name, i) for variant in variants for name, i in found}


@cache
def tasks(setting: str, split: str) -> tuple[str, ...]:
    """Ids of a setting and split, such as `new-flask-3`, in training with a variant: `known-petl-4-2`."""
    if setting not in (*SETTINGS, *DEPTHS):
        raise unknown("setting", setting, (*SETTINGS, *DEPTHS))
    if split not in SHARES:
        raise unknown("split", split, SHARES)
    if setting in DEPTHS:
        most = DEPTHS.index(setting) + 1
        return tuple(task for task in _ids("known", split) if path(task).count("/") <= most)
    return tuple(_ids(setting, split))


@cache
def _places() -> dict[str, tuple[str, int]]:
    return {task: place for panel in product(SETTINGS, SHARES) for task, place in _ids(*panel).items()}


def asked(task: str) -> Asked:
    """What a task asks; raises ReflectRLError where the id names none."""
    if str(task) not in _places():
        raise ReflectRLError(
            f"unknown task {task!r}; take one from reflect_rl.envs.autoexplore.real.tasks(setting, split)"
        )
    name, i = _places()[str(task)]
    return packages()[name].questions[i]


@lru_cache(maxsize=4096)
def question(task: str) -> Question:
    """The question of a task; raises ReflectRLError where the id names none."""
    text, path = asked(task).text, asked(task).path
    name, _, *variant = str(task).split("-")[1:]
    made = Question(text, path, packages()[name].repository, LETTERS, covering)
    return made.varied(int(variant[0]), crc32(str(task).encode())) if variant else made


def draw(rng: np.random.Generator) -> str:
    """A task of training."""
    training = tasks("known", "train")
    return training[rng.integers(len(training))]


def path(task: str) -> str:
    """The file that answers."""
    return asked(task).path


def strata(task: str) -> dict[str, str]:
    """By depth and leak as in `panels.strata`, by whether training asks for this file as well, and by repository."""
    found, name = asked(task), str(task).split("-")[1]
    target = "asked in training" if (name, found.path) in _targets() else "not asked"
    return {"depth": str(found.path.count("/")), "leak": found.leak, "target": target, "repository": name}


@cache
def _targets() -> frozenset[tuple[str, str]]:
    """(package, file) of every question of training."""
    return frozenset((name, packages()[name].questions[i].path) for name, i in _ids("known", "train").values())


def source(task: str) -> str:
    """Where a task comes from."""
    found = packages()[str(task).split("-")[1]].source
    return f"{found.name} {found.version}"
