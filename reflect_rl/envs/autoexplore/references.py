"""Searches and retrievers that learn nothing, beside which the players stand. Each gives the index of its next action.

The searches know what they have seen and tell with certainty whether a text answers. The retrievers rank all files of the
repository at once, which no player can see, by BM25 (Robertson & Zaragoza 2009) of their paths or of what `cat` shows, or
by sentence embeddings of that.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import bm25s
import numpy as np

from reflect_rl.envs.autoexplore import embedding
from reflect_rl.envs.autoexplore.env import AutoExplore, Question
from reflect_rl.envs.autoexplore.expert import found, towards, way
from reflect_rl.envs.autoexplore.questions import name_stems, stems
from reflect_rl.envs.autoexplore.repository import joined, view


def search(env: AutoExplore, by_names: bool) -> int:
    """Reads what is here, then in the folders below, in the order of the lists.

    `by_names`: first what shares a word with the question, then all files of the kind that is asked for.
    """
    path = found(env)
    if path:
        return towards(env, path, "id")
    for tier in range(3) if by_names else (2,):
        for folder in _nearest(env):
            held = env.question.folders[folder]
            for verb, names, known in (("cat", held.files, env.read), ("cd", held.folders, env.visits)):
                for path in (joined(folder, name) for name in names):
                    if path not in known and (tier == 2 or _turn(env.question, path, verb == "cat") <= tier):
                        return towards(env, path, verb)
    return towards(env, min(env.read), "id")  # all was read and nothing answers


def _turn(question: Question, path: str, is_file: bool) -> int:
    """When a search by names comes to a path: 0 where it shares a word with the question, 1 without, 2 for a file of another
    kind than is asked for."""
    if is_file and question.reader.file_fit(question.text, path) == "not":
        return 2
    return int(not {*stems(question.text)} & {*name_stems(path.rpartition("/")[2])})


def _nearest(env: AutoExplore) -> list[str]:
    """The folders that were entered, those that are fewest steps away first."""
    return sorted(env.visits, key=lambda folder: (len(way(env.at, folder)), folder))


def by_words(question: Question, texts: Mapping[str, str], of_paths: bool) -> np.ndarray:
    """How well each text fits, by BM25 of its words' stems; `of_paths`: of the files' paths instead."""
    words = [name_stems(path) if of_paths else stems(text) for path, text in texts.items()]
    index = bm25s.BM25()
    index.index([of or ["-"] for of in words], show_progress=False)
    return index.get_scores(stems(question.text) or ["-"])


@lru_cache(maxsize=64)
def _embedded(texts: tuple[str, ...]) -> np.ndarray:
    """The embeddings of a repository's files, which are made once for all questions about it."""
    return embedding.embed(texts)


def by_meaning(question: Question, texts: Mapping[str, str]) -> np.ndarray:
    """How well each text fits, by the cosine of sentence embeddings."""
    (asked,) = embedding.embed([question.text])
    return _embedded((*texts.values(),)) @ asked


@lru_cache(maxsize=4096)
def _ranked_first(question: Question, fit: Callable[[Question, Mapping[str, str]], np.ndarray]) -> str:
    """The file of the whole repository that fits best by what is shown of each."""
    texts = {path: view(text, question.letters) for path, text in sorted(question.repository.files.items())}
    return [*texts][int(fit(question, texts).argmax())]


def retriever(env: AutoExplore, fit: Callable[[Question, Mapping[str, str]], np.ndarray]) -> int:
    """Goes straight to the file that fits best and names it."""
    return towards(env, _ranked_first(env.question, fit), "id")


BY_PATHS, BY_TEXTS = partial(by_words, of_paths=True), partial(by_words, of_paths=False)
REFERENCES: Mapping[str, Callable[[AutoExplore], int]] = {
    "blind_search": partial(search, by_names=False),
    "name_search": partial(search, by_names=True),
    "bm25_paths": partial(retriever, fit=BY_PATHS),
    "bm25_texts": partial(retriever, fit=BY_TEXTS),
    "embeddings": partial(retriever, fit=by_meaning),
}
