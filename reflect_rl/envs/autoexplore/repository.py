"""A repository held in memory: paths and texts, its folders, and what one sees of a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from reflect_rl.core.errors import ReflectRLError


def shown(name: str) -> str:
    """A file's or folder's name as actions show it, on one line: quoted as in JSON where it is not plain."""
    plain = name.isprintable() and name.strip() == name and not name.startswith('"')
    return name if plain else json.dumps(name, ensure_ascii=not name.isprintable())


def kind(name: str) -> str:
    """A file's type, as its name says it: what stands behind the last dot, or `file`."""
    stem, _, ending = name.rpartition(".")
    return shown(ending) if stem and ending else "file"


@dataclass(frozen=True)
class Folder:
    """What a folder holds, by name, in the order in which it is listed."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Repository:
    """Files by path, such as `docs/index.md`. No path leads outside, and nothing is read from the disk.

    Raises:
        ReflectRLError: there is no file, a path is not plain (empty, absolute, with `.` or `..`), or a file is a folder too.
    """

    name: str
    files: Mapping[str, str]  #: path -> text

    def __post_init__(self):
        if not self.files:
            raise ReflectRLError(f"repository {self.name!r} has no files")
        for path in self.files:
            if {"", ".", ".."} & {*path.split("/")}:
                raise ReflectRLError(f"repository {self.name!r}: {path!r} is no path below its root")
        if both := sorted(self.files.keys() & self.folders.keys()):
            raise ReflectRLError(f"repository {self.name!r}: {both[0]!r} is a file and a folder")

    @cached_property
    def folders(self) -> dict[str, Folder]:
        """What each folder holds, sorted by name; the root's path is empty."""
        found: dict[str, tuple[dict, dict]] = {"": ({}, {})}
        for path in self.files:
            *above, name = path.split("/")
            for depth, folder in enumerate(above):
                found["/".join(above[:depth])][0][folder] = None
                found.setdefault("/".join(above[: depth + 1]), ({}, {}))
            found["/".join(above)][1][name] = None
        return {path: Folder(*(tuple(sorted(names)) for names in held)) for path, held in found.items()}


def joined(folder: str, name: str) -> str:
    """The path of what a folder holds."""
    return f"{folder}/{name}" if folder else name


def parent(path: str) -> str:
    """The folder that holds a file or folder; empty for the root."""
    return path.rpartition("/")[0]


def view(text: str, letters: int) -> str:
    """What `cat` shows of a file, on one line: its first `letters` letters, cut between words, white space as one blank."""
    line = " ".join(text[: 4 * letters].split())
    if len(line) <= letters:
        return line
    head = line[: letters + 1].rpartition(" ")[0]
    return (head or line[:letters]) + " ..."
