"""What a reader understands of the companies' English: the telling words of a question, and what a name or a text has of them.

Nothing here knows what is in a file that was not read.
"""

import re
from functools import cache

from reflect_rl.envs.autoexplore.words import DEPARTMENTS, GOODS, KINDS, SITES, TRADES

_TOPICS = [(topic, name) for name, of in DEPARTMENTS.items() for topic in of]
_TOPICS += [(topic, "") for of in TRADES.values() for topic in of]
_ASPECTS = {word: name for name, kind in KINDS.items() for of in kind.aspects.values() for word in of}
#: what a file says for a word that a question may use: what is said, of what, and where
ASPECTS = {asked: word[0] for word in _ASPECTS for asked in word}
TOPICS = {asked: topic.word[0] for topic, _ in _TOPICS for asked in topic.word}
PLACES = {site.lower(): site.lower() for site in SITES}
SAID = ASPECTS | TOPICS | PLACES
KIND_OF = {word[0]: name for word, name in _ASPECTS.items()}
DEPARTMENTS_OF = {topic.word[0]: {name: 1.0} if name else GOODS for topic, name in _TOPICS}
_KNOWN = {*SAID.values()}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


@cache
def telling(question: str) -> dict[str, str]:
    """The telling words of a question, as it spells them, each with the word that a file says for it."""
    found = {word: word.lower() for word in re.findall(r"[^\W\d_]+", question)}
    return {word: SAID[low] for word, low in found.items() if low in SAID}


@cache
def stated(text: str, asked: bool = False) -> tuple[str, ...]:
    """What a text, or with `asked` a question, says of what and where, as it spells it: its first word for each, or `none`."""
    spelt = re.findall(r"[^\W\d_]+", text)
    return tuple(
        next((word for word in spelt if word.lower() in of and (asked or of[word.lower()] == word.lower())), "none")
        for of in (ASPECTS, TOPICS, PLACES)
    )


@cache
def compared(question: str, shown: str) -> tuple[tuple[str, str, bool], ...]:
    """What is asked for, what one sees of it in a file, and whether both are the same, for what, of what and where."""
    pairs = zip(stated(question, asked=True), stated(shown), strict=True)
    return tuple((asked, says, SAID.get(asked.lower()) == says.lower()) for asked, says in pairs)


def evidence(question: str, shown: str) -> str:
    """The same in words, what is asked for in those of files."""
    pairs = (
        f"{_in_files(asked)} is {says}, {'yes' if same else 'no'}" for asked, says, same in compared(question, shown)
    )
    return f"Asked {'; '.join(pairs)}"


def answers(question: str, shown: str) -> bool:
    """Whether what one sees of a file answers a question: it says all of what is asked for."""
    return all(same for *_, same in compared(question, shown))


@cache
def kind_of(question: str) -> str | None:
    """The kind of file that is asked for."""
    return next((KIND_OF[said] for said in telling(question).values() if said in KIND_OF), None)


@cache
def departments_of(question: str) -> dict[str, float]:
    """How likely each department deals with what is asked for."""
    return next((DEPARTMENTS_OF[said] for said in telling(question).values() if said in DEPARTMENTS_OF), {})


@cache
def file_fit(question: str, path: str) -> str:
    """How a file's name fits: `named` (it has a telling word), `open` (it says nothing), `other` (of something else) or `not`."""
    kind, (stem, dot, extension) = kind_of(question), path.rpartition("/")[2].rpartition(".")
    if kind is not None and dot + extension != KINDS[kind].extension:
        return "not"
    there, asked = {*words(stem)}, {*telling(question).values()}
    known = there & _KNOWN
    return "named" if known & asked and not known - asked else "other" if known else "open"


@cache
def folder_fit(question: str, name: str) -> tuple[str, float]:
    """How a folder's name fits, `kind`, `likely` or `not`, and how likely its department is."""
    kind, share = kind_of(question), departments_of(question).get(name, 0.0)
    return "kind" if kind is not None and name == KINDS[kind].folder else "likely" if share else "not", share


@cache
def sought(question: str) -> str:
    """What is sought, in the words that a file says for it, in what kind of file, and in which departments."""
    said = " ".join(_in_files(word) for word in stated(question, asked=True) if word != "none")
    kind, likely = kind_of(question), departments_of(question)
    of_kind = f"{kind} {KINDS[kind].extension[1:]}" if kind else "any file"
    places = " or ".join(sorted(likely, key=likely.__getitem__, reverse=True)[:2]) or "anywhere"
    return f"{said}, {of_kind}, {places}"


def _in_files(word: str) -> str:
    """The word that files say for one of a question, spelt alike where it is the same."""
    said = SAID.get(word.lower(), word)
    return word if said == word.lower() else said
