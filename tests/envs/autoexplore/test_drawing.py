import numpy as np
import pytest
from matplotlib.figure import Figure

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import reading
from reflect_rl.envs.autoexplore.env import AutoExplore, Question
from reflect_rl.envs.autoexplore.repository import Repository
from reflect_rl.envs.autoexplore.spec import SPEC


def texts(observation):
    axis = Figure().subplots()
    SPEC.load_draw().draw(axis, observation)
    return [text.get_text() for text in axis.texts]


def test_a_scene_has_the_way_the_lists_with_their_marks_and_what_was_read():
    files = {"a b.txt": "one", "docs/deep/c.txt": "two words", "docs/$x$.md": ""} | {f"z{i}.txt": "" for i in range(20)}
    env = AutoExplore(
        lambda task: Question("Where is it?", "a b.txt", Repository("r", files), 100, reading), lambda rng: ""
    )
    observation, info = env.reset(options={"task": "any"})
    said = texts(observation)
    assert said[:3] == ["top", "docs", "a b.txt"] and said[-2:] == ["What is asked", "Where is it?"]
    assert "... and 12 more" in said
    for action in ("cd docs", "cd deep", "cat c.txt", "cd .."):
        observation, *_, info = env.step(info["actions"].index(action))
    assert texts(observation) == ["top / docs", "deep (done)", "$x$.md", "c.txt", "two words"]


def test_long_lines_are_cut_and_what_is_no_scene_is_refused():
    line = "x" * 100
    said = texts(f"Read: a\nShows: {line * 9}\nQuestion: {line}\nAt: {line}\nFolders: {line}\nFiles: none")
    assert max(map(len, said)) <= 42 and len(said) <= 9
    with pytest.raises(ReflectRLError, match="no scene of AutoExplore: 'a grid'"):
        texts("a grid")
    axis = Figure().subplots()
    SPEC.load_draw().draw_legend(axis)
    assert len(axis.texts) == len(axis.patches) == 4 and np.isfinite(axis.get_xlim()).all()
