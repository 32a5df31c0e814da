"""AutoExplore: find the file of a repository that answers a question, by walking and reading.

Actions and costs follow Zhou, Du & Li (2024): `cd`, `cat` and `id`; a step costs 1 and an error 2 more; at the end the right
file earns the horizon H, and anything else costs it. All divided by H.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore.repository import Folder, Repository, joined, kind, parent, shown, view

ERROR = 2  # what an illegal action costs beside its step
LEFT_OUT = 0.5  # how likely a file that does not answer is left out in training
MOST = 100_000  # letters of an observation


class Reader(Protocol):
    """What one who reads goes by; a module may be one. Nothing of it knows what is in a file that was not read."""

    def evidence(self, question: str, shown: str) -> str:
        """In words what a question asks for and what one sees of it in a file."""

    def answers(self, question: str, shown: str) -> bool:
        """Whether what one sees of a file answers a question."""

    def file_fit(self, question: str, path: str) -> str:
        """How a file's name, and its place, fits: `named`, `open` (it says nothing), `other` (of something else), `not`."""

    def folder_fit(self, question: str, name: str) -> tuple[str, float]:
        """How a folder's name fits, and how likely it is among those: `named` (it has a telling word), `kind` (it is for the
        kind of file that is asked for), `likely` or `not`."""

    def sought(self, question: str) -> str:
        """What is sought where, in a few words."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked in a repository, and the file that answers it.

    Raises:
        ReflectRLError: the repository has no such file.
    """

    text: str
    target: str  #: the file's path
    repository: Repository
    letters: int  #: of a file that `cat` shows
    reader: Reader  #: how an expert reads it
    shuffle: int | None = None  #: seed of the order in which a folder is listed; None: by name

    def __post_init__(self):
        if self.target not in self.repository.files:
            raise ReflectRLError(f"repository {self.repository.name!r} has no file {self.target!r} to be asked for")

    @cached_property
    def folders(self) -> dict[str, Folder]:
        """The repository's folders in the order in which they are listed."""
        if self.shuffle is None:
            return self.repository.folders
        rng = np.random.default_rng(self.shuffle)
        return {
            path: Folder(*(tuple(str(name) for name in rng.permutation(names)) for names in (held.folders, held.files)))
            for path, held in sorted(self.repository.folders.items())
        }

    def varied(self, variant: int, seed: int) -> "Question":
        """The question of training in another order of the lists; but for variant 0 files are left out, never the target."""
        kept = self.repository
        if variant:
            rng = np.random.default_rng([seed, 3])
            some = {p: text for p, text in kept.files.items() if p == self.target or rng.random() >= LEFT_OUT}
            kept = Repository(kept.name, some)
        return replace(self, repository=kept, shuffle=seed)


class AnyText(spaces.Text):
    """Texts of any characters: names and files of a repository may hold whatever they like."""

    def contains(self, x):
        return isinstance(x, str) and len(x) <= self.max_length


class AutoExplore(gym.Env):
    """One question in one repository.

    Observation: what the last `cat` showed, the question, where the player stands and what is there, each with what is known
    of it before its name, so that one who reads from left to right knows it by then: a file's type, files that were read
    and folders that were entered are marked, and folders of which nothing is left to be read. Actions: `cd` into a folder
    or up, `cat` of a file here that was not read yet, `id` of any file here, which names the answer and ends the episode.
    """

    metadata = {"render_modes": []}

    def __init__(self, find: Callable[[str], Question], draw: Callable[[np.random.Generator], str], horizon: int = 15):
        """`find` gives a task's question, and `draw` a training task where a reset names none."""
        if horizon < 1:
            raise ReflectRLError(f"horizon {horizon} leaves no step; give 1 or more")
        self.find, self.draw, self.horizon = find, draw, horizon
        self.action_space = spaces.Discrete(1024)
        self.observation_space = AnyText(max_length=MOST)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        given = (options or {}).get("task")
        self.task = self.draw(self.np_random) if given is None else given
        self.question = self.find(self.task)
        self.at, self.steps, self.last_read = "", 0, ""
        self.read: set[str] = set()  # paths of files
        self.visits = {"": 1}  # how often each folder was entered from above, by path
        return self._observe()

    def step(self, action):
        action, cost, end = operator.index(action), 1, ""
        self.steps += 1
        more = {}
        if not 0 <= action < len(self.moves):
            cost, more = 1 + ERROR, {"invalid_action": action}
        else:
            verb, name = self.moves[action]
            if verb == "id":
                end = "found" if joined(self.at, name) == self.question.target else "wrong file"
            elif verb == "cat":
                self.last_read = joined(self.at, name)
                self.read.add(self.last_read)
            else:
                self.at = parent(self.at) if name == ".." else joined(self.at, name)
                self.visits[self.at] = self.visits.get(self.at, 0) + (name != "..")
        out_of_time = not end and self.steps >= self.horizon
        if end == "wrong file":
            more["ended"] = end
        gain = self.horizon * ((end == "found") - (end == "wrong file" or out_of_time))
        observation, info = self._observe(end == "found", **more)
        return observation, (gain - cost) / self.horizon, bool(end), out_of_time, info

    def is_done(self, folder: str) -> bool:
        """Whether the player knows that nothing below a folder is left to be read."""
        if folder not in self.visits:
            return False
        held = self.question.folders[folder]
        return all(joined(folder, name) in self.read for name in held.files) and all(
            self.is_done(joined(folder, name)) for name in held.folders
        )

    def _mark(self, folder: str) -> str:
        return "done " if self.is_done(folder) else ("", "been ", "twice ")[min(self.visits.get(folder, 0), 2)]

    def _observe(self, success=False, **more):
        question, held = self.question, self.question.folders[self.at]
        paths = {name: joined(self.at, name) for name in held.files}
        self.moves = [("cd", name) for name in held.folders] + [("cd", "..")] * bool(self.at)
        self.moves += [("cat", name) for name in held.files if paths[name] not in self.read]
        self.moves += [("id", name) for name in held.files]
        actions = tuple(f"{verb} {name if (verb, name) == ('cd', '..') else shown(name)}" for verb, name in self.moves)
        read = "Read: none"
        if self.last_read:
            text = view(question.repository.files[self.last_read], question.letters)
            read = f"Read: {shown(self.last_read)}\nShows: {text or '(nothing)'}"
        folders = [self._mark(joined(self.at, name)) + shown(name) for name in held.folders]
        files = ["read " * (paths[name] in self.read) + f"{kind(name)} {shown(name)}" for name in held.files]
        again = " (again)" if self.visits[self.at] > 1 else ""
        observation = (
            f"{read}\nQuestion: {question.text}\nAt: {shown(self.at) if self.at else 'top'}{again}\n"
            f"Folders: {', '.join(folders) or 'none'}\nFiles: {', '.join(files) or 'none'}"
        )
        return observation[:MOST], {"actions": actions, "success": success, "task": self.task, **more}
