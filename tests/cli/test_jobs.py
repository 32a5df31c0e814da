"""The time that is left: known seconds, scaled by what a run has shown; and what one sees of a run."""

import fcntl
import os
import pty
import select
import struct
import termios

import pytest

from reflect_rl.cli import jobs
from reflect_rl.cli.jobs import Estimate, Job, Progress, in_words, keep_seconds, known_seconds, record_seconds

DATA, RL, HOUSE = ("data", "lake", ""), ("rl", "lake", "reflect_rl"), ("rl", "house", "reflect_rl")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    return tmp_path


def test_an_estimate_scales_what_is_known_by_what_is_seen():
    estimate = Estimate({DATA: 10.0, RL: 100.0})
    assert (estimate.seconds(DATA), estimate.seconds(RL)) == (10, 100)
    assert estimate.seconds(HOUSE) == 100, "of its rule"
    assert estimate.seconds(("report", "lake", "")) == 55, "of all"
    estimate.observe(DATA, 20.0)
    assert (estimate.seconds(DATA), estimate.seconds(RL)) == (20, 200)
    estimate.observe(HOUSE, 50.0)
    assert (estimate.seconds(RL), estimate.seconds(HOUSE)) == (200, 50)


def test_what_is_left_is_shared_by_the_cores_and_not_less_than_the_longest_job():
    estimate = Estimate({DATA: 10.0, RL: 100.0})
    assert estimate.left([DATA, RL, RL], [], cores=2) == 105
    assert estimate.left([DATA], [(RL, 20.0)], cores=2) == 80
    assert estimate.left([], [(DATA, 40.0)], cores=2) == 4, "longer than expected"
    assert estimate.left([], [], cores=2) == 0
    assert Estimate({}).left([DATA], [], cores=2) is None


def test_seconds_of_this_machine_win_over_those_of_the_results(home, monkeypatch):
    monkeypatch.setattr(jobs.paths, "project", lambda: home)
    for seed, seconds in (("0", 30.0), ("0", 5.0), ("1", 10.0)):  # the second try of seed 0 went on from the first
        record_seconds("tiny", Job("rl", RL, seed), seconds)
    assert known_seconds("tiny") == {RL: 20}
    keep_seconds("tiny")
    (home / "runs" / "tiny" / "seconds.csv").unlink()
    assert known_seconds("tiny") == {RL: 20}
    record_seconds("tiny", Job("rl", RL, "0"), 4.0)
    record_seconds("tiny", Job("data", DATA, "0"), 1.0)
    assert known_seconds("tiny") == {RL: 4, DATA: 1}


@pytest.mark.parametrize(("seconds", "words"), [(41.3, "41 s"), (750, "12 min"), (9000, "2.5 h")])
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_bar_names_the_current_job_and_fits_the_terminal(home, monkeypatch):
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    monkeypatch.setattr(jobs.sys, "stderr", os.fdopen(terminal, "w"))
    record_seconds("tiny", Job("rl", RL, "0"), 600.0)
    first, second = (Job(f"lake reflect_rl seed {seed}: online RL", RL, seed) for seed in "12")
    progress = Progress("tiny", {first, second}, cores=1)
    progress.started(5, first, now=100.0)
    progress.finished(5, now=400.0)
    progress.started(6, second, now=400.0)
    progress.show(now=460.0)
    shown = b""
    while select.select([screen], [], [], 0.1)[0]:
        shown += os.read(screen, 2**16)
    last = shown.decode().split("\r")[-1].rstrip()
    assert last.startswith("tiny 1/2 |") and "4 min left: lake reflect_rl seed 2" in last
    assert len(last) <= 70
    progress.close()
