"""The time that is left: known seconds, scaled by what a run has shown; and what one sees of a run."""

import fcntl
import os
import pty
import select
import struct
import termios

import pytest

from reflect_rl.cli import jobs
from reflect_rl.cli.jobs import Estimate, Job, Progress

DATA = Job("data", "lake seed 0: data", "data.log")
RL, RL_1, HOUSE = (Job("rl", f"{name}: online RL", f"{name}.log") for name in ("lake seed 0", "lake seed 1", "house"))


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A home whose earlier runs took these seconds."""
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))

    def known(seconds: dict[Job, float]) -> Estimate:
        estimate = Estimate("tiny")
        for job, took in seconds.items():
            estimate.observe(job, took)
        estimate.keep()
        return Estimate("tiny")

    return known


def test_an_estimate_is_what_is_known_at_the_pace_of_this_run(known):
    estimate = known({DATA: 10.0, RL: 100.0, RL_1: 200.0})
    assert (estimate.seconds(DATA), estimate.seconds(RL)) == (10, 100)
    assert estimate.seconds(HOUSE) == 150, "of its rule"
    assert estimate.seconds(Job("report", "lake: report", "")) == pytest.approx(310 / 3), "of all"
    estimate.observe(DATA, 20.0)
    assert (estimate.seconds(RL), estimate.seconds(RL_1)) == (200, 400)


def test_what_is_left_is_shared_by_the_cores_and_not_less_than_the_longest_job(known):
    estimate = known({DATA: 10.0, RL: 100.0})
    assert estimate.left([(DATA, 0.0), (RL, 0.0), (RL_1, 0.0)], cores=2) == 105
    assert estimate.left([(DATA, 0.0), (RL, 20.0)], cores=2) == 80
    assert estimate.left([(DATA, 40.0)], cores=2) == 4, "longer than expected"
    assert estimate.left([], cores=2) == 0
    (jobs.paths.results("tiny") / "seconds.json").unlink()
    assert Estimate("tiny").left([(DATA, 0.0)], cores=2) is None


def test_seconds_of_this_home_win_over_those_of_the_project_and_the_longest_try_counts(known, tmp_path, monkeypatch):
    known({RL: 30.0, DATA: 1.0})
    (tmp_path / "results").rename(tmp_path / "committed")
    monkeypatch.setattr(jobs.paths, "project", lambda: tmp_path / "project")
    (tmp_path / "project").mkdir()
    (tmp_path / "committed").rename(tmp_path / "project" / "results")
    assert Estimate("tiny").seconds(RL) == 30
    assert known({RL: 40.0}).seconds(RL) == 40
    assert known({RL: 5.0}).seconds(RL) == 40, "the second try went on from the first"
    assert Estimate("tiny").seconds(DATA) == 1


def test_the_bar_names_the_current_job_and_fits_the_terminal(known, monkeypatch):
    known({RL: 600.0})
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    monkeypatch.setattr(jobs.sys, "stderr", os.fdopen(terminal, "w", buffering=1))
    progress = Progress("tiny", {RL, RL_1}, cores=1)
    progress.follow({"event": "job_info", "id": 5, "job": list(RL)}, now=100.0)
    progress.follow({"event": "job_finished", "id": 5}, now=400.0)
    progress.follow({"event": "job_info", "id": 6, "job": list(RL_1)}, now=400.0)
    progress.follow(None, now=460.0)
    shown = b""
    while select.select([screen], [], [], 0.1)[0]:
        shown += os.read(screen, 2**16)
    progress.close()
    lines = shown.decode().split("\n")
    assert "tiny 1/2: lake seed 0: online RL, 05:00; 05:00 left" in lines[-2], "a line for the finished job"
    bar = lines[-1].split("\r")[-1].rstrip()
    assert bar.startswith("tiny 1/2 |") and "04:00 left: lake seed 1" in bar
    assert len(bar) <= 70
