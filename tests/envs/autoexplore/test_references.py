import os
import subprocess
import sys

import numpy as np
import pytest

from reflect_rl.envs.autoexplore import reading
from reflect_rl.envs.autoexplore.env import AutoExplore, Question
from reflect_rl.envs.autoexplore.references import REFERENCES
from reflect_rl.envs.autoexplore.repository import Repository
from reflect_rl.envs.autoexplore.spec import REAL, SPEC

FILES = {
    "wigs.txt": "Nothing of use.",
    "a/b.txt": "Ladders were lost at Norford.",
    "a/wigs/c.txt": "Wigs were lost at Selley.",
    "z/wigs_lost.txt": "Wigs were lost at Norford.",
}
ASKED = "Which letter says that wigs were lost at Norford?"


def walk(reference, files=FILES, target="z/wigs_lost.txt"):
    env = AutoExplore(lambda task: Question(ASKED, target, Repository("r", files), 100, reading), lambda rng: "only")
    _, info = env.reset(options={"task": "only"})
    taken, done = [], False
    while not done:
        action = reference(env)
        taken.append(info["actions"][action])
        _, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    return taken


def test_what_each_does():
    up = ["cd ..", "cd ..", "cd z"]
    assert walk(REFERENCES["blind_search"]) == [
        *("cat wigs.txt", "cd a", "cat b.txt", "cd wigs", "cat c.txt", *up, "cat wigs_lost.txt", "id wigs_lost.txt")
    ]
    assert walk(REFERENCES["name_search"])[:2] == ["cat wigs.txt", "cd a"]
    assert walk(REFERENCES["name_search"])[2:4] == ["cd wigs", "cat c.txt"]  # before b.txt, which shares no word
    assert walk(REFERENCES["bm25_texts"]) == ["cd z", "id wigs_lost.txt"]
    assert walk(REFERENCES["bm25_paths"]) == ["cd z", "id wigs_lost.txt"]


def test_a_search_by_names_begins_with_files_of_the_kind_that_is_asked_for():
    files = {"a.py": "pass", "wigs.py": "pass", "old.txt": FILES["z/wigs_lost.txt"]}
    assert walk(REFERENCES["name_search"], files, "old.txt") == ["cat old.txt", "id old.txt"]
    assert walk(REFERENCES["blind_search"], files, "old.txt") == ["cat a.py", "cat old.txt", "id old.txt"]
    assert walk(REFERENCES["name_search"], files | {"old.txt": "Nothing."}, "wigs.py")[:3] == [
        *("cat old.txt", "cat a.py", "cat wigs.py")
    ]


def success(spec, setting, act, number=160):
    won = []
    for task in spec.panel(setting, "validation", number):
        env, done = spec.make(), False
        _, info = env.reset(options={"task": task})
        while not done:
            _, _, terminated, truncated, info = env.step(act(env))
            done = terminated or truncated
        won.append(info["success"])
    return float(np.mean(won))


def test_who_knows_more_finds_more_in_companies():
    rates = {name: success(SPEC, "companies", act) for name, act in REFERENCES.items() if name != "embeddings"}
    assert (
        0.2
        < rates["bm25_paths"]
        < rates["blind_search"]
        < rates["name_search"]
        < rates["bm25_texts"]
        < success(SPEC, "companies", SPEC.expert_action)
    )
    assert rates["blind_search"] == pytest.approx(0.4, abs=0.08)


def test_on_real_repositories_the_retriever_of_texts_is_a_ceiling_by_construction():
    assert success(REAL, "new", REFERENCES["bm25_texts"]) > 0.95
    assert success(REAL, "new", REFERENCES["blind_search"]) < success(REAL, "new", REAL.expert_action)


def test_the_retriever_leaves_the_gpu_to_the_players(tmp_path):
    """bm25s imports JAX where it is installed, which took 97% of a GPU's memory from every other process."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("import os\nprint(os.environ.get('JAX_PLATFORMS'))\nlax = None\n")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    code = "import reflect_rl.envs.autoexplore.references"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split()[:1] == ["cpu"], done.stderr
