from collections import Counter

import numpy as np
import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import corpus, covering, real
from reflect_rl.envs.autoexplore.repository import view
from reflect_rl.envs.autoexplore.spec import REAL
from reflect_rl.envs.autoexplore.teacher import facts
from reflect_rl.envs.play import act, begin

EVERY = {(setting, split): real.tasks(setting, split) for setting in real.SETTINGS for split in real.SHARES}


def test_new_repositories_are_new_and_known_ones_are_not():
    names = {panel: {task.split("-")[1] for task in tasks} for panel, tasks in EVERY.items()}
    known = set().union(*(names["known", split] for split in real.SHARES))
    assert not EVERY["new", "train"] and names["new", "validation"].isdisjoint(names["new", "test"])
    assert known.isdisjoint(names["new", "validation"] | names["new", "test"])
    assert names["known", "test"] <= names["known", "train"]


def test_every_question_is_in_one_panel():
    asked = Counter(
        question for tasks in EVERY.values() for question in {tuple(task.split("-")[1:3]) for task in tasks}
    )
    assert {*asked.values()} == {1}
    assert len(asked) == sum(len(package.questions) for package in corpus.packages().values())
    shares = [len({*(t.rsplit("-", split == "train")[0] for t in EVERY["known", split])}) for split in real.SHARES]
    assert np.array(shares) / sum(shares) == pytest.approx([0.6, 0.2, 0.2], abs=0.04)


def test_some_questions_of_known_ask_for_a_file_that_training_asks_for():
    of = {setting: Counter(real.strata(task)["target"] for task in EVERY[setting, "test"]) for setting in real.SETTINGS}
    assert of == {"known": {"asked in training": 26, "not asked": 37}, "new": {"not asked": 65}}


def _petl():
    return next(task.split("-")[2] for task in EVERY["known", "train"] if "petl" in task)


def test_a_task_is_its_question_and_a_variant_leaves_files_out():
    first, second = (real.question(f"known-petl-{_petl()}-{variant}") for variant in (0, 1))
    assert first.text == second.text and first.target == second.target in second.repository.files
    assert len(second.repository.files) < 0.65 * len(first.repository.files)
    assert first.shuffle != second.shuffle and real.question(EVERY["new", "test"][0]).shuffle is None


@pytest.mark.parametrize(
    "task",
    [
        "",
        "new",
        "new-flask",
        "new-flask-x",
        "known-flask-0",
        "new-flask-999",
        "new-flask-0-1",
        "known-petl-0-9",
        "new-flask-00",
    ],
)
def test_an_unknown_task_is_named(task):
    with pytest.raises(ReflectRLError, match=f"unknown task '{task}'"):
        real.question(task)


def test_stages_go_by_depth():
    for stage, most in zip(real.DEPTHS, (1, 2), strict=True):
        assert max(real.question(task).target.count("/") for task in real.tasks(stage, "train")) == most


def test_the_reader_goes_by_the_words_that_can_be_seen():
    for setting in real.SETTINGS:
        for task in EVERY[setting, "test"]:
            question = real.question(task)
            found = [
                p
                for p, text in question.repository.files.items()
                if covering.answers(question.text, view(text, question.letters))
            ]
            assert found == [question.target]
    asked = "Which function parses the queries?"
    assert covering.evidence(asked, "It is parsing a query.") == "It shows parses yes, queries yes"
    assert covering.evidence(asked, "It parses text.") == "It shows parses yes, queries no"
    assert covering.file_fit("Which page has a section on lost rows?", "rows.rst") == "named"
    assert covering.file_fit("Which page has a section on lost rows?", "rows.py") == "not"
    assert covering.file_fit("Which function counts rows?", "pkg/util.py") == "open"
    assert covering.file_fit("Which function counts rows?", "util.py") == "other"
    assert covering.folder_fit("Which function counts rows?", "docs")[0] == "not"
    assert covering.folder_fit("Which page has a section on lost rows?", "docs")[0] == "likely"
    assert covering.folder_fit("Which function counts rows?", "row_tools")[0] == "named"


@pytest.mark.parametrize(("setting", "at_least"), [("known", {1: 0.9, 2: 0.15}), ("new", {1: 0.75, 2: 0.1})])
def test_an_honest_expert_finds_what_lies_shallow_and_little_of_the_rest(setting, at_least):
    """Within 15 steps, by depth of the file: it goes by names and by what it has read, and knows nothing else."""
    found = {}
    for task in EVERY[setting, "test"]:
        env = REAL.make(horizon=15)
        now = begin(REAL, env, task)
        while now is not None:
            said = facts(REAL.teacher(now))
            assert said["action"] == now.expert_action
            last, now = now, act(REAL, env, now, REAL.expert_action(env))
        is_named = last.expert_action.startswith("id ") and env.question.target in env.read
        found.setdefault(env.question.target.count("/"), []).append(is_named)
    rates = {depth: np.mean(of) for depth, of in found.items()}
    assert all(least <= rates[depth] < 1.01 for depth, least in at_least.items()), rates
