"""Generated companies: a repository of a company's files, and questions about it that one file answers.

A company is drawn from its number alone. Behind it is a fact sheet: each file states one fact (what, of which topic, at
which site), and no two files the same; many share two of the three.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, zip_longest

import numpy as np

from reflect_rl.envs.autoexplore.repository import Repository, joined
from reflect_rl.envs.autoexplore.words import DEPARTMENTS, GOODS, HELD_OUT, KINDS, SITES, TRADES, Topic, Word

QUESTIONS = 8  # about a company
FILES = (15, 41)  # of a company, at least and below
LETTERS = 100  # of a file that `cat` shows: its first line and some of what follows
TELLS, MISLEADS = 0.45, 0.05  # shares of file names that tell what is in the file, and that name another file's topic
ROOT, DEPARTMENT = (
    0.12,
    0.38,
)  # shares of files at the top and in a department's folder; the others lie in its subfolders
PARAPHRASED = 0.5  # share of the words of a question that are other words than the file's, where there are any

EXTRAS = {
    "rules": (
        "Ask the head of {department} first.",
        "Write down who did it and when.",
        "Two people must be there.",
        "Not after six in the evening.",
        "This holds since last spring.",
    ),
    "tables": (
        "month,amount\nMay,12\nJune,30",
        "year,value\n2024,7\n2025,9",
        "name,number\nA,4\nB,15",
        "week,sum\n1,88\n2,61",
    ),
    "tools": (
        "import csv\nimport sys\n\nprint(len(list(csv.reader(sys.stdin))))",
        "from pathlib import Path\n\nfor path in Path('.').iterdir():\n    print(path)",
        "import json\n\nwith open('input.json') as file:\n    print(json.load(file))",
    ),
    "settings": ('  "value": 20', '  "value": "blue"', '  "value": 3,\n  "unit": "days"', '  "value": true'),
    "archive": (
        "Nobody knows how it came about.",
        "The {department} team wrote to the customer.",
        "We talked about it on Monday.",
        "It will not happen again, says the manager.",
    ),
}


@dataclass(frozen=True)
class Fact:
    """What one file states."""

    kind: str
    aspect: Word
    topic: Topic
    site: str
    department: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.aspect[0], self.topic.word[0], self.site


@dataclass(frozen=True, eq=False)
class Company:
    """A company's files, and its questions with the path of the file that answers each."""

    repository: Repository
    questions: tuple[tuple[str, str], ...]
    facts: dict[str, Fact]  #: path -> what the file states


def _some(rng: np.random.Generator, words, number: int) -> list:
    return [words[i] for i in rng.permutation(len(words))[:number]]


def _facts(rng: np.random.Generator, trade: str) -> list[Fact]:
    """The facts of a company: few topics, aspects and sites, so that many facts share two of the three."""
    number, sites = int(rng.integers(*FILES)), _some(rng, SITES, 3)
    topics = [(word, "") for word in _some(rng, TRADES[trade], 5)]
    topics += [(word, name) for name in _some(rng, [*DEPARTMENTS], 5) for word in _some(rng, DEPARTMENTS[name], 2)]
    aspects = {(name, sort): _some(rng, of, 4) for name, kind in KINDS.items() for sort, of in kind.aspects.items()}
    found: dict[tuple, Fact] = {}
    while len(found) < number:
        (kind,), (site,), ((topic, department),) = (_some(rng, of, 1) for of in ([*KINDS], sites, topics))
        department = department or str(rng.choice([*GOODS], p=[*GOODS.values()]))
        (aspect,) = _some(rng, aspects[kind, topic.sort], 1)
        fact = Fact(kind, aspect, topic, site, department)
        found.setdefault(fact.key, fact)
    return [*found.values()]


def _stems(rng: np.random.Generator, fact: Fact, other: Fact) -> Iterator[str]:
    """A file's name without its extension, of one word: it tells the file's fact, or that of another, or nothing.

    Further ones follow for where it is taken, at last with numbers.
    """
    share, vague = rng.random(), _some(rng, KINDS[fact.kind].vague, len(KINDS[fact.kind].vague))
    aspect, topic, site = (fact if share < TELLS else other).key
    telling = dict.fromkeys((*_some(rng, (topic, topic, topic, aspect), 4), site))
    yield from telling if share < TELLS + MISLEADS else ()
    yield from vague
    yield from (f"{vague[0]} {i}" for i in count(2))


def _place(rng: np.random.Generator, fact: Fact) -> str:
    share = rng.random()
    if share < ROOT:
        return ""
    return fact.department if share < ROOT + DEPARTMENT else f"{fact.department}/{KINDS[fact.kind].folder}"


def _written(rng: np.random.Generator, fact: Fact) -> str:
    kind, (aspect, topic, site) = KINDS[fact.kind], fact.key
    (extra,) = _some(rng, EXTRAS[fact.kind], 1)
    return kind.text.format(
        aspect=aspect, topic=topic, site=site,
        extra=extra.format(department=fact.department),
    )  # fmt: skip


def _asked(rng: np.random.Generator, fact: Fact) -> str:
    """A question that the file of a fact answers, partly in other words."""
    (template,) = _some(rng, KINDS[fact.kind].questions, 1)
    aspect, topic = (word[int(rng.random() < PARAPHRASED)] for word in (fact.aspect, fact.topic.word))
    return template.format(aspect=aspect, topic=topic, site=fact.site)


@lru_cache(maxsize=4096)
def company(number: int, is_held_out: bool = False) -> Company:
    """A company by its number, of a known trade or of one of `HELD_OUT`."""
    rng = np.random.default_rng([25, number, is_held_out])
    trades = [trade for trade in TRADES if (trade in HELD_OUT) == is_held_out]
    trade, town = trades[number % len(trades)], _some(rng, SITES, 1)[0]
    facts, files, by_path = _facts(rng, trade), {}, {}
    for fact in facts:
        folder, stems = _place(rng, fact), _stems(rng, fact, _some(rng, facts, 1)[0])
        names = (joined(folder, stem + KINDS[fact.kind].extension) for stem in stems)
        path = next(path for path in names if path not in files)
        files[path], by_path[path] = _written(rng, fact), fact
    title = f"{town} {trade}"
    files["README.md"] = f"# {title}\n\nThe files of our departments, each with folders of its own.\n"
    by_depth: dict[int, list[str]] = {}
    for path in _some(rng, [*by_path], len(by_path)):
        by_depth.setdefault(path.count("/"), []).append(path)
    order = [path for paths in zip_longest(*by_depth.values()) for path in paths if path]
    questions = tuple((_asked(rng, by_path[path]), path) for path in order[:QUESTIONS])
    return Company(Repository(title, files), questions, by_path)
