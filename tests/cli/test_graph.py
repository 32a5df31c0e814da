"""Whole runs through Snakemake: failures in a line, locks, interrupts, and going on where a run stopped."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from reflect_rl.cli import graph as graphs
from reflect_rl.cli.jobs import JobsFailed
from reflect_rl.core.errors import ReflectRLError


def test_failed_job_is_one_line_and_the_next_run_continues(graph, tmp_path, capfd):
    (tmp_path / "broken").touch()
    with pytest.raises(JobsFailed) as failure:
        graphs.run("tiny")
    log = tmp_path / "runs" / "tiny" / "snakemake.log"
    assert str(failure.value).splitlines() == ["bad: no cheese; buy some", f"the whole log: {log}"]
    first, *lines = capfd.readouterr().err.splitlines()
    assert first == "tiny 0/2: 2 jobs on 2 cores, time left unknown"
    assert sorted(line.split(": ", 1)[1].split(",")[0] for line in lines) == ["bad: failed", "the good one"]
    good = tmp_path / "runs" / "tiny" / "good.ipynb"
    made = good.stat().st_mtime_ns
    (tmp_path / "broken").unlink()
    graphs.run("tiny")
    assert good.stat().st_mtime_ns == made
    assert (tmp_path / "runs" / "tiny" / "bad.ipynb").exists()
    graphs.run("tiny", forcerun=["good"])
    assert good.stat().st_mtime_ns > made


def test_seconds_are_kept_and_foretell_the_next_run(graph, tmp_path, capfd):
    graphs.run("tiny")
    kept = json.loads((tmp_path / "results" / "tiny" / "seconds.json").read_text())
    assert {rule: list(names) for rule, names in kept.items()} == {"good": ["the good one"], "bad": ["bad"]}
    kept["good"]["the good one"] = 300.0
    (tmp_path / "results" / "tiny" / "seconds.json").write_text(json.dumps(kept))
    capfd.readouterr()
    graphs.run("tiny", forcerun=[])
    assert "tiny 0/2: 2 jobs on 2 cores, 05:00 left\n" in capfd.readouterr().err


def test_a_broken_snakefile_shows_what_snakemake_says(graph):
    graph.write_text("from reflect_rl.core.errors import ReflectRLError\nraise ReflectRLError('no cheese; buy some')")
    with pytest.raises(JobsFailed, match="no cheese; buy some"):
        graphs.run("tiny")


def test_second_run_is_refused_while_one_is_at_work(graph, tmp_path):
    (tmp_path / "runs").mkdir()
    with graphs.single_run(tmp_path / "runs" / "reflect_rl.lock"):
        with pytest.raises(ReflectRLError, match=f"another run is at work in {tmp_path}"):
            graphs.run("tiny")


def start_sleeping(graph: Path) -> subprocess.Popen:
    """A run in a process of its own, as soon as its job sleeps."""
    graph.write_text(
        'rule all:\n    input: "runs/tiny/sleep.ipynb"\n' + graph.read_text().replace("rule all:", "rule rest:")
    )
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
    command = [sys.executable, "-m", "reflect_rl", "reproduce", "--profile", "tiny"]
    process = subprocess.Popen(command, cwd=graph.parent, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    pid = graph.parent / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text().strip()):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("stops", "deaf"),
    [([signal.SIGINT], False), ([signal.SIGTERM], False), ([signal.SIGINT] * 2, False), ([signal.SIGINT] * 3, True)],
    ids=["once", "terminated", "twice", "jobs that do not listen"],
)
def test_interrupts_end_the_jobs_and_release_the_lock(graph, tmp_path, stops, deaf):
    if deaf:
        graph.write_text(graph.read_text().replace('"echo $$', "\"trap '' INT TERM; echo $$"))
    process = start_sleeping(graph)
    for stop in stops:
        process.send_signal(stop)
        time.sleep(0.3)
    text = process.communicate(timeout=40)[1]
    assert text.splitlines()[-1] == "error: interrupted; the same command continues"
    assert len(text.splitlines()) == 2 and text.startswith("tiny 0/1: 1 jobs")
    assert process.returncode == 130
    assert not alive(int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()
    graph.write_text(graph.read_text().replace("sleep 60", "true"))
    graphs.run("tiny")
    assert (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()


def test_a_killed_run_leaves_no_lock_but_that_of_its_jobs(graph, tmp_path):
    process = start_sleeping(graph)
    snakemake = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    with pytest.raises(ReflectRLError, match="another run is at work"):  # Snakemake outlives it
        graphs.run("tiny")
    os.killpg(snakemake, signal.SIGKILL)
    with (tmp_path / "runs" / "reflect_rl.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the kernel has let go of it
    graph.write_text(graph.read_text().replace("sleep 60", "true"))
    graphs.run("tiny")
    assert (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()
