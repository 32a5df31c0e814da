"""Real archives are used where there are any; without the package, an error says so."""

import importlib
import shutil
import sys

import pytest
from small_games import example, made, reset

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import games, store
from reflect_rl.envs.household.engine import workers


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Something of the real archives' shape."""
    for folder, trial in (("train", 1), ("train", 2), ("valid_seen", 3)):
        source = store.path_of(made(example("pick_and_place_simple"), trial=trial)).parent
        shutil.copytree(source, tmp_path / store.LAYOUT / folder / source.parent.name / f"trial_T2019090{trial}")
    workers.worker()  # started now, for the other tests too: it keeps the environment that it starts in
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    store.games.cache_clear()
    yield tmp_path
    store.games.cache_clear()


def test_real_archives_are_used_and_never_written_into(archive):
    before = sorted((p, p.stat().st_mtime_ns) for p in archive.rglob("*"))
    (task,) = store.tasks("all_seen", "test")
    assert store.task_source(task) == "ALFWorld 2.1.1 archive"
    assert task.startswith("full:valid_seen/") and task.endswith("trial_T20190903")
    assert len(store.games("all_seen", "train")) + len(store.games("all_seen", "validation")) == 2
    env = reset(task)
    env.step(env.expert_action())
    assert sorted((p, p.stat().st_mtime_ns) for p in archive.rglob("*")) == before


def test_a_variable_without_games(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(ReflectRLError, match="ALFWORLD_DATA=.* holds no json_2.1.1.*; unset it"):
        store.real_root()


def test_the_stock_environment_accepts_generated_games(archive, capsys):
    argv = sys.argv
    stock = games.package("alfworld.agents.environment.alfred_tw_env").AlfredTWEnv
    settings = {"env": {"goal_desc_human_anns_prob": 0, "task_types": [1]}, "dataset": {"num_eval_games": 0}}
    settings["dataset"]["eval_id_data_path"] = str(archive / store.LAYOUT / "valid_seen")
    assert stock(settings, train_eval="eval_in_distribution").num_games == 1
    sys.argv = argv


def test_without_the_package(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="alfworld")

    games.package.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ReflectRLError, match=r"needs the package 'alfworld'; install it by: pip install 'reflect-rl\[alfworld\]'"
    ):
        games.package("alfworld.info")


def test_on_a_python_that_cannot_play(monkeypatch):
    games.package.cache_clear()
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ReflectRLError, match="does not work on Python 3.13; use Python 3.11 or 3.12"):
        games.package("alfworld.info")
