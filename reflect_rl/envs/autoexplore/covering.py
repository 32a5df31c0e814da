"""What a reader of a real repository goes by: which words of a question a card or a name has. See `reading`."""

import re
from functools import cache

from reflect_rl.envs.autoexplore.questions import name_stems, stems

PART = 4  # letters of a word that may be a part of another
CODE, PAGES = (".py",), (".rst", ".md", ".txt")
OF_PAGES = frozenset(("doc", "docs", "documentation", "sites", "www", "source"))  # folders
OF_NEITHER = frozenset(("requirements", "scripts", "tools", "benchmarks", "artwork", "examples", "example"))


@cache
def covered(question: str, shown: str) -> dict[str, bool]:
    """Whether what one sees of a file has each content word of the question, whatever its ending."""
    there, asked = {*stems(shown)}, re.findall(r"[^\W_]+", question)
    return {word: {*stems(word)} <= there for word in asked if stems(word)}


def evidence(question: str, shown: str) -> str:
    """Which content words of the question one sees in a file."""
    marks = (f"{word} {'yes' if is_there else 'no'}" for word, is_there in covered(question, shown).items())
    return f"It shows {', '.join(marks) or 'nothing asked'}"


@cache
def answers(question: str, shown: str) -> bool:
    """Whether what one sees of a file answers a question: it has all of its content words."""
    found = covered(question, shown)
    return bool(found) and all(found.values())


def _asks_for_page(question: str) -> bool:
    return question.startswith("Which page")


def _shares(question: str, name: str) -> bool:
    """Whether a name has a content word of a question, also as a part of its words if it is long enough to say something."""
    there = name_stems(name)
    return any(stem in there or (len(stem) >= PART and stem in "".join(there)) for stem in stems(question))


@cache
def file_fit(question: str, path: str) -> str:
    """As `reading.file_fit`; what lies at the top of a package is seldom what is asked for."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(PAGES if _asks_for_page(question) else CODE):
        return "not"
    return "named" if _shares(question, name.rpartition(".")[0]) else "open" if folder else "other"


@cache
def folder_fit(question: str, name: str) -> tuple[str, float]:
    """As `reading.folder_fit`."""
    if _shares(question, name):
        return "named", 1.0
    is_likely = name not in OF_NEITHER and (name in OF_PAGES) == _asks_for_page(question)
    return ("likely", 0.5) if is_likely else ("not", 0.0)


def sought(question: str) -> str:
    """What kind of file is sought."""
    return "a page" if _asks_for_page(question) else "code"
