"""Fixtures of the tests of training."""

import shutil

import pytest
from train_helpers import Killed, load_rl

from reflect_rl.train import sft, warmup


class Bar:
    """A progress bar that knows the step, and raises at one of them."""

    def __init__(self, initial, die_at, die_at_end):
        self.n, self.die_at, self.die_at_end = initial, die_at, die_at_end

    def update(self):
        self.n += 1
        if self.n == self.die_at:
            raise Killed

    def close(self):
        if self.die_at_end:
            raise Killed


@pytest.fixture
def bars(monkeypatch):
    """Bars of `fit`, newest last; `bars.die_at` and `bars.die_at_end` kill the next training."""

    class Bars(list):
        die_at, die_at_end = None, False

        def next(self, items, description, total, initial, unit):
            self.append(Bar(initial, self.die_at, self.die_at_end))
            return self[-1]

    found = Bars()
    monkeypatch.setattr(sft, "progress", found.next)
    return found


@pytest.fixture(scope="session")
def warmed(tmp_path_factory):
    """A home with the data and the warmed-up players that the tests of RL share."""
    folder = tmp_path_factory.mktemp("warmed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(folder))
        patch.setattr(warmup, "follow_success", lambda *_: 0.0)
        for variant in ("sft_rl", "reflect_rl"):
            warmup.warm_up(load_rl(variant))
    return folder


@pytest.fixture
def homes(warmed, tmp_path, monkeypatch):
    """`homes("a")` changes to a home of that name, at first a copy of the warmed-up one."""

    def enter(name):
        if not (tmp_path / name).exists():
            shutil.copytree(warmed, tmp_path / name)
        monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / name))

    enter("home")
    return enter
