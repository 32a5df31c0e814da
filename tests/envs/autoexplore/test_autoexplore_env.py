import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import reading
from reflect_rl.envs.autoexplore.env import AutoExplore, Question
from reflect_rl.envs.autoexplore.repository import Repository, shown, view
from reflect_rl.envs.autoexplore.spec import REAL, SPEC
from reflect_rl.envs.check import check

HOSTILE = (
    *(
        "$(rm -rf ~)",
        "; cat secrets",
        "`id`",
        "a\nb",
        "..\\..",
        "~",
        "*",
        '"quoted"',
        "it's",
        " padded ",
        "\u202egnp.exe",
    ),
    *(
        "-rf",
        "C:",
        "\x00",
        "null\x00byte",
        "\N{COMBINING ACUTE ACCENT}",
        "文档",
        "🗂",
        "a" * 300,
        "cat x",
        "id",
        "cd ..",
        "done)",
    ),
)
NAMES = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
).filter(lambda name: "/" not in name and name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@st.composite
def repositories(draw):
    paths = draw(st.lists(PATHS, min_size=1, max_size=25, unique=True))
    folders = {path.rpartition("/")[0] for path in paths}
    while more := {folder.rpartition("/")[0] for folder in folders} - folders:
        folders |= more
    files = [path for path in paths if path not in folders]
    return Repository("any", {path: draw(st.text(max_size=300)) for path in files})


def environment(repository, target, horizon=15, letters=100, **more):
    question = Question("Where is it?", target, repository, letters, reading, **more)
    env = AutoExplore(lambda task: question, lambda rng: "only", horizon)
    return env, env.reset(options={"task": "only"})


def act(env, info, action):
    return env.step(info["actions"].index(action))


SMALL = Repository(
    "small", {"a.txt": "one", "docs/b.txt": "two  words\n here", "docs/deep/c.txt": "", "docs/d.txt": "x"}
)


@settings(max_examples=150)
@given(repositories(), st.data())
def test_any_actions_in_any_repository_keep_the_contract(repository, data):
    target = data.draw(st.sampled_from(sorted(repository.files)))
    env, (observation, info) = environment(repository, target, shuffle=data.draw(st.sampled_from([None, 3])))
    read = set()
    for _ in range(15):
        actions, at = info["actions"], env.at
        assert actions and len({*actions}) == len(actions)
        lines = observation.split("\n")
        assert [line.split(":")[0] for line in lines] == [
            *("Read", *["Shows"] * bool(read), "Question"),
            *("At", "Folders", "Files"),
        ]
        assert all(len(action.splitlines()) == 1 for action in actions)
        assert at in repository.folders and env.observation_space.contains(observation)
        action = data.draw(st.integers(-2, len(actions) + 2))
        legal = 0 <= action < len(actions)
        moved = env.moves[action] if legal else None
        observation, reward, terminated, truncated, info = env.step(action)
        end = 15 if info["success"] else -15 if terminated or truncated else 0
        assert reward == pytest.approx((end - (1 if legal else 3)) / 15)
        assert info.get("invalid_action") == (None if legal else action)
        if not legal:
            assert env.at == at
        elif moved[0] == "id":
            assert terminated and info["success"] == (
                f"{at}/{moved[1]}".lstrip("/") == target or moved[1] == target == at + target
            )
        elif moved[0] == "cat":
            read.add(env.last_read)
            assert moved not in env.moves
        if terminated or truncated:
            return
    raise AssertionError("no end at the horizon")


def test_hostile_actions_and_names_reach_nothing_outside():
    """100,000 actions, a tenth of them no action at all, with Python's audit of files, processes and connections."""
    touched, watching = [], False

    def hook(event, arguments):
        if watching and event.split(".")[0] in (
            "open",
            "os",
            "subprocess",
            "socket",
            "shutil",
            "glob",
            "pathlib",
            "exec",
            "import",
        ):
            touched.append((event, arguments))

    sys.addaudithook(hook)  # there is no way to take one away: it sleeps afterwards
    files = {f"{folder}/{name}": name for folder in HOSTILE[:6] for name in HOSTILE} | {
        name: "" for name in HOSTILE[6:]
    }
    env, (_, info) = environment(Repository("hostile", files), HOSTILE[-1], horizon=40)
    rng = np.random.default_rng(0)
    watching = True
    try:
        for _ in range(100_000):
            wild = rng.random() < 0.1
            action = int(rng.integers(-(2**31), 2**31)) if wild else int(rng.integers(len(info["actions"])))
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                _, info = env.reset(options={"task": "only"})
    finally:
        watching = False
    assert not touched, touched[:3]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../x", "a//b", "./x", "a/"])
def test_a_path_that_leads_outside_is_refused(path):
    with pytest.raises(ReflectRLError, match="no path below its root"):
        Repository("bad", {path: "text"})


def test_what_is_no_repository_or_question_is_refused():
    with pytest.raises(ReflectRLError, match="has no files"):
        Repository("empty", {})
    with pytest.raises(ReflectRLError, match="'a' is a file and a folder"):
        Repository("both", {"a": "", "a/b": ""})
    with pytest.raises(ReflectRLError, match="no file 'z' to be asked for"):
        Question("?", "z", SMALL, 100, reading)
    with pytest.raises(ReflectRLError, match="horizon 0 leaves no step"):
        SPEC.make(horizon=0)
    for task in ("companies-1", "companies-15-0-0\n", "companies-015-0-0", "companies- 15-0-0"):
        with pytest.raises(ReflectRLError, match=re.escape(f"unknown task {task!r}")):
            SPEC.make().reset(options={"task": task})


def test_a_walk_by_hand():
    env, (observation, info) = environment(SMALL, "docs/b.txt")
    assert observation == "Read: none\nQuestion: Where is it?\nAt: top\nFolders: docs\nFiles: txt a.txt"
    assert info["actions"] == ("cd docs", "cat a.txt", "id a.txt")
    observation, reward, *_, info = act(env, info, "cat a.txt")
    assert (
        observation == "Read: a.txt\nShows: one\nQuestion: Where is it?\nAt: top\nFolders: docs\nFiles: read txt a.txt"
    )
    assert info["actions"] == ("cd docs", "id a.txt") and reward == -1 / 15
    observation, *_, info = act(env, info, "cd docs")
    assert info["actions"] == ("cd deep", "cd ..", "cat b.txt", "cat d.txt", "id b.txt", "id d.txt")
    observation, *_, info = act(env, info, "cd deep")
    assert observation.endswith("\nAt: docs/deep\nFolders: none\nFiles: txt c.txt")
    observation, *_, info = act(env, info, "cat c.txt")
    assert "Shows: (nothing)" in observation
    observation, *_, info = act(env, info, "cd ..")
    assert "Folders: done deep" in observation
    observation, *_, info = act(env, info, "cat b.txt")
    assert "Shows: two words here" in observation
    _, reward, terminated, truncated, info = act(env, info, "id b.txt")
    assert reward == (15 - 1) / 15 and terminated and not truncated and info["success"]


def test_costs_are_the_papers():
    env, (_, info) = environment(SMALL, "docs/b.txt", horizon=2)
    assert env.step(99)[1] == -3 / 2  # a step and an error
    _, reward, terminated, truncated, info = act(env, info, "cd docs")
    assert reward == (-1 - 2) / 2 and truncated and not terminated and not info["success"]
    env, (_, info) = environment(SMALL, "docs/b.txt", horizon=2)
    _, reward, terminated, _, info = act(env, info, "id a.txt")
    assert reward == (-1 - 2) / 2 and terminated and info["ended"] == "wrong file"


def test_a_large_folder_and_a_large_file():
    files = {f"file {i}.txt": "word " * 10**6 for i in range(200)}
    env, (observation, info) = environment(Repository("large", files), "file 7.txt")
    assert len(info["actions"]) == 400
    observation, *_ = act(env, info, "cat file 7.txt")
    assert len(observation) < 5000


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_different_names_are_shown_differently_on_one_line(one, other):
    assert len(shown(one).splitlines()) == 1
    assert (shown(one) == shown(other)) == (one == other)


@given(st.text(max_size=500), st.integers(1, 120))
def test_a_view_is_the_beginning_of_a_text_on_one_line(text, letters):
    seen, line = view(text, letters), " ".join(text.split())
    assert len(seen) <= letters + len(" ...") and "\n" not in seen
    assert line.startswith(seen.removesuffix(" ..."))
    assert seen.endswith(" ...") or seen == line or len(text) > 4 * letters


def test_lists_are_shuffled_by_the_seed_alone():
    files = {f"{i:02}.txt": "" for i in range(20)}
    lists = [environment(Repository("r", files), "00.txt", shuffle=seed)[1][0] for seed in (1, 1, 2, None)]
    assert lists[0] == lists[1] != lists[2]
    assert ", ".join(f"txt {name}" for name in sorted(files)) in lists[3]


@pytest.mark.parametrize("spec", [SPEC, REAL], ids=lambda spec: spec.name)
def test_the_library_finds_nothing_wrong_with_it(spec):
    check(spec)
