import numpy as np
import pytest
from matplotlib.figure import Figure

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import reading
from reflect_rl.envs.autoexplore.draw import SIGNS, walk_legend, walks
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
    assert texts(observation) == ["top / docs", "deep (done)", "$x$.md", "Last read: c.txt", "two words"]


def test_long_lines_are_cut_and_what_is_no_scene_is_refused():
    line = "x" * 100
    said = texts(f"Read: a\nShows: {line * 9}\nQuestion: {line}\nAt: {line}\nFolders: {line}\nFiles: none")
    assert max(map(len, said)) <= 42 and len(said) <= 9
    with pytest.raises(ReflectRLError, match="no scene of AutoExplore: 'a grid'"):
        texts("a grid")
    axis = Figure().subplots()
    SPEC.load_draw().draw_legend(axis)
    assert len(axis.texts) == len(axis.patches) == 4 and np.isfinite(axis.get_xlim()).all()


@pytest.mark.parametrize("named", ["a b.txt", "z3.txt"])
def test_a_walk_shows_the_tree_and_at_each_step_where_the_player_was(named):
    files = {"a b.txt": "one", "docs/deep/c.txt": "two", "src/d.py": "three"} | {f"z{i}.txt": "" for i in range(5)}
    question = Question("Where is it?", "a b.txt", Repository("r", files), 100, reading)
    env, taken = AutoExplore(lambda task: question, lambda rng: ""), []
    observation, info = env.reset(options={"task": "any"})
    for action in ("cd docs", "cd deep", "cat c.txt", "cd ..", "cd ..", "cd docs", "cd ..", f"id {named}"):
        taken.append({"observation": observation, "action": action})
        observation, *_, info = env.step(info["actions"].index(action))
    frames = [*taken, {"observation": observation, "action": ""}]
    axis = Figure().subplots()
    SPEC.load_draw().walks([axis], question, [frames])
    tree = ["top", "docs/", "deep/", "c.txt", "src/", "d.py", "a b.txt", *(f"z{i}.txt" for i in range(5))]
    assert [text.get_text() for text in axis.texts] == tree
    way, *signs = axis.lines
    rows = [tree.index(name) for name in ("docs/", "deep/", "c.txt", "docs/", "top", "docs/", "top", named)]
    assert [*way.get_ydata()] == [0, *rows] and [*way.get_xdata()] == [*range(9)]
    last = "names it: the one that answers" if named == question.target else "names it: another"
    assert signs[-1].get_marker() == SIGNS[last]["marker"] and len(walk_legend()) == len(SIGNS)
    axis = Figure().subplots()
    walks([axis], question, [frames], rows=5)
    assert "d.py" not in [text.get_text() for text in axis.texts], "a folder that was never entered is shut"
