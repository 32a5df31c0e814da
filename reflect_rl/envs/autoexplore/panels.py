"""The panels of questions about generated companies, and the question of a task."""

from functools import cache, lru_cache
from operator import eq

import numpy as np

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.autoexplore import reading
from reflect_rl.envs.autoexplore.companies import LETTERS, QUESTIONS, company
from reflect_rl.envs.autoexplore.env import Question
from reflect_rl.envs.autoexplore.questions import leak
from reflect_rl.envs.autoexplore.words import HELD_OUT, TRADES

#: setting -> split -> numbers of its companies: known trades, and trades that training never sees
COMPANIES = {
    "companies": {"train": range(0, 1200), "validation": range(2000, 2040), "test": range(5000, 5040)},
    "trades": {"train": range(0), "validation": range(4000, 4040), "test": range(6000, 6040)},
}
SETTINGS = tuple(COMPANIES)
DEPTHS = ("depth0", "depth1")  # easier families of training: questions whose file lies at most so deep
VARIANTS = 4  # of a training question
#: words of the held-out trades' goods; of two that mean the same the second stands in questions alone
UNSEEN = {
    word: ("unseen", "unseen paraphrase")[i]
    for trade in HELD_OUT
    for topic in TRADES[trade]
    for i, word in reversed([*enumerate(topic.word)])
}


@cache
def tasks(setting: str, split: str) -> tuple[str, ...]:
    """Ids of a setting and split, such as `companies-5001-4`, in training with a variant: `companies-17-4-2`.

    The first ones of a panel are of one company each.
    """
    if setting not in (*SETTINGS, *DEPTHS):
        raise unknown("setting", setting, (*SETTINGS, *DEPTHS))
    of = "companies" if setting in DEPTHS else setting
    if split not in COMPANIES[of]:
        raise unknown("split", split, COMPANIES[of])
    found = [(number, i) for i in range(QUESTIONS) for number in COMPANIES[of][split]]
    if setting in DEPTHS:
        most = DEPTHS.index(setting)
        found = [(n, i) for n, i in found if company(n).questions[i][1].count("/") <= most]
    variants = [f"-{v}" for v in range(VARIANTS)] if split == "train" else [""]
    return tuple(f"{of}-{number}-{i}{variant}" for variant in variants for number, i in found)


@lru_cache(maxsize=4096)
def question(task: str) -> Question:
    """The question of a task; raises where the id names none."""
    of, *numbers = str(task).split("-")
    try:
        number, i, *variant = map(int, numbers)
        if [str(n) for n in (number, i, *variant)] != numbers:  # " 7", "07" and others that int() takes
            raise ValueError
        (split,) = (split for split, companies in COMPANIES[of].items() if number in companies)
        if not 0 <= i < QUESTIONS or [*map(lambda v: v in range(VARIANTS), variant)] != [True] * (split == "train"):
            raise ValueError
    except (KeyError, ValueError) as error:
        raise ReflectRLError(
            f"unknown task {task!r}; take one from reflect_rl.envs.autoexplore.panels.tasks(setting, split)"
        ) from error
    made = company(number, of == "trades")
    asked = Question(*made.questions[i], made.repository, LETTERS, reading)
    return asked.varied(variant[0], (number * QUESTIONS + i) * VARIANTS + variant[0]) if variant else asked


def draw(rng: np.random.Generator) -> str:
    """A task of training."""
    training = tasks("companies", "train")
    return training[rng.integers(len(training))]


def path(task: str) -> str:
    """The file that answers."""
    return question(task).target


def strata(task: str) -> dict[str, str]:
    """By how deep the file lies, by what the question's words give away of its path, by how many of the three things asked for
    (what, of what, where) another file of this kind has, and whether training has these words."""
    asked, (of, number, *_) = question(task), str(task).split("-")
    facts = company(int(number), of == "trades").facts
    fact = facts[asked.target]
    alike = [sum(map(eq, fact.key, other.key)) for other in facts.values() if other.kind == fact.kind and other != fact]
    return {
        "depth": str(asked.target.count("/")),
        "leak": leak(asked.text, asked.target),
        "rival": f"shares {max(alike, default=0)} of 3",
        "words": next((UNSEEN[word] for word in reading.words(asked.text) if word in UNSEEN), "seen"),
    }


def source(task: str) -> str:
    """Where a task comes from."""
    return "a generated company"
