"""Searches and retrievers that learn nothing, beside which the players stand. Each gives the index of its next action.

The searches know what they have seen and tell with certainty whether a text answers. The retrievers rank all files of the
repository at once, which no player can see, by BM25 (Robertson & Zaragoza 2009): of their paths, or of what `cat` shows.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import bm25s

from reflect_rl.envs.autoexplore.env import AutoExplore, Question
from reflect_rl.envs.autoexplore.expert import found, towards, way
from reflect_rl.envs.autoexplore.questions import name_stems, stems
from reflect_rl.envs.autoexplore.repository import joined, view


def search(env: AutoExplore, by_names: bool) -> int:
    """Reads what is here, then in the folders below, in the order of the lists; `by_names`: what shares a word first."""
    path = found(env)
    if path:
        return towards(env, path, "id")
    asked, words = env.question, {*stems(env.question.text)}

    def shares(name: str) -> bool:
        return by_names and bool(words & {*name_stems(name)})

    for wanted in (True, False) if by_names else (False,):
        for folder in _nearest(env):
            held = asked.folders[folder]
            for name in held.files:
                if joined(folder, name) not in env.read and (shares(name) or not wanted):
                    return towards(env, joined(folder, name), "cat")
            for name in held.folders:
                if joined(folder, name) not in env.visits and (shares(name) or not wanted):
                    return towards(env, joined(folder, name), "cd")
    return towards(env, min(env.read), "id")  # all was read and nothing answers


def _nearest(env: AutoExplore) -> list[str]:
    """The folders that were entered, those that are fewest steps away first."""
    return sorted(env.visits, key=lambda folder: (len(way(env.at, folder)), folder))


@lru_cache(maxsize=4096)
def _ranked_first(question: Question, of_paths: bool) -> str:
    """The file that BM25 ranks first."""
    paths, files = sorted(question.repository.files), question.repository.files
    words = [name_stems(path) if of_paths else stems(view(files[path], question.letters)) for path in paths]
    index = bm25s.BM25()
    index.index([of or ["-"] for of in words], show_progress=False)
    scores = index.get_scores(stems(question.text) or ["-"])
    return paths[int(scores.argmax())]


def retriever(env: AutoExplore, of_paths: bool) -> int:
    """Goes straight to the file that BM25 ranks first and names it."""
    return towards(env, _ranked_first(env.question, of_paths), "id")


REFERENCES: Mapping[str, Callable[[AutoExplore], int]] = {
    "blind_search": partial(search, by_names=False),
    "name_search": partial(search, by_names=True),
    "bm25_paths": partial(retriever, of_paths=True),
    "bm25_texts": partial(retriever, of_paths=False),
}
