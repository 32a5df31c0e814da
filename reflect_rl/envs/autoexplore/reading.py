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
    """The telling words of a question, as it spells them, each with the word that a file says for it."""
    found = {word: word.lower() for word in re.findall(r"[^\W\d_]+", question)}
    return {word: SAID.get(low, low) for word, low in found.items() if low in SAID or low in _PLACES}


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
def file_fit(question: str, name: str) -> str:
    """How a file's name fits: `named` (it has a telling word), `open` (it says nothing), `other` (of something else) or `not`."""
    kind, (stem, dot, extension) = kind_of(question), name.rpartition(".")
    if kind is not None and dot + extension != KINDS[kind].extension:
        return "not"
    there, asked = {*words(stem)}, {*telling(question).values()}
    known = there & _KNOWN
    return "named" if known & asked and not known - asked else "other" if known else "open"


@cache
def folder_fit(question: str, name: str) -> tuple[str, float]:
    """How a folder's name fits, `named` (for the kind of file), `likely` or `not`, and how likely its department is."""
    kind, share = kind_of(question), departments_of(question).get(name, 0.0)
    return "named" if kind is not None and name == KINDS[kind].folder else "likely" if share else "not", share


@cache
def sought(question: str) -> str:
    """What kind of file of which departments is sought."""
    likely = departments_of(question)
    places = " or ".join(sorted(likely, key=likely.__getitem__, reverse=True)[:2]) or "anywhere"
    return f"{kind_of(question) or 'a file'}, {places}"
