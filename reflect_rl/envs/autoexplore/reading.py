"""What a reader understands of the companies' English: the telling words of a question, and what a name or a text has of them.

Nothing here knows what is in a file that was not read.
"""

import re
from functools import cache

from reflect_rl.envs.autoexplore.words import DEPARTMENTS, GOODS, KINDS, SITES, TRADES

_TOPICS = [(topic, name) for name, of in DEPARTMENTS.items() for topic in of]
_TOPICS += [(topic, "") for of in TRADES.values() for topic in of]
_ASPECTS = {word: name for name, kind in KINDS.items() for of in kind.aspects.values() for word in of}
#: what a file says for a word that a question may use
SAID = {asked: word[0] for word in [*_ASPECTS, *(topic.word for topic, _ in _TOPICS)] for asked in word}
KIND_OF = {word[0]: name for word, name in _ASPECTS.items()}
DEPARTMENTS_OF = {topic.word[0]: {name: 1.0} if name else GOODS for topic, name in _TOPICS}
_PLACES = {site.lower() for site in SITES}
_KNOWN = _PLACES | {*SAID.values()}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


@cache
def telling(question: str) -> dict[str, str]:
    """The telling words of a question, each with the word that a file says for it."""
    return {word: SAID.get(word, word) for word in words(question) if word in SAID or word in _PLACES}


@cache
def evidence(question: str, shown: str) -> dict[str, bool]:
    """Whether what one sees of a file has each of the telling words."""
    there = {*words(shown)}
    return {word: said in there for word, said in telling(question).items()}


@cache
def answers(question: str, shown: str) -> bool:
    """Whether what one sees of a file answers a question: it has all of its telling words."""
    found = evidence(question, shown)
    return bool(found) and all(found.values())


@cache
def kind_of(question: str) -> str | None:
    """The kind of file that is asked for."""
    return next((KIND_OF[said] for said in telling(question).values() if said in KIND_OF), None)


@cache
def departments_of(question: str) -> dict[str, float]:
    """How likely each department deals with what is asked for."""
    return next((DEPARTMENTS_OF[said] for said in telling(question).values() if said in DEPARTMENTS_OF), {})


@cache
def fit_of_name(question: str, name: str) -> int | None:
    """How a file's name fits: 2 it has a telling word, 1 it says nothing, 0 it tells of something else; None: wrong kind."""
    kind, (stem, dot, extension) = kind_of(question), name.rpartition(".")
    if kind is not None and dot + extension != KINDS[kind].extension:
        return None
    there, asked = {*words(stem)}, {*telling(question).values()}
    known = there & _KNOWN
    return 2 if known & asked and not known - asked else 0 if known else 1
