"""Whole runs through Snakemake: failures in a line, locks, interrupts, and going on where a run stopped."""

import fcntl
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
        graphs.run_graph("tiny", snakefile=graph)
    log = tmp_path / "runs" / "tiny" / "snakemake.log"
    assert str(failure.value).splitlines() == ["bad: no cheese; buy some", f"the whole log: {log}"]
    first, *lines = capfd.readouterr().err.splitlines()
    assert first == "tiny 0/2: 2 jobs on 2 cores, time left unknown"
    assert sorted(line.split(": ", 1)[1].split(",")[0] for line in lines) == ["bad: failed", "the good one"]
    good = tmp_path / "runs" / "tiny" / "good.ipynb"
    assert good.read_text() == f"{2**26}\n"
    made = good.stat().st_mtime_ns
    (tmp_path / "broken").unlink()
    graphs.run_graph("tiny", snakefile=graph)
    assert good.stat().st_mtime_ns == made
    assert (tmp_path / "runs" / "tiny" / "bad.ipynb").exists()
    graphs.run_graph("tiny", snakefile=graph, forcerun=["good"])
    assert good.stat().st_mtime_ns > made


def test_seconds_are_kept_and_foretell_the_next_run(graph, tmp_path, capfd):
    graphs.run_graph("tiny", snakefile=graph)
    rows = (tmp_path / "runs" / "tiny" / "seconds.csv").read_text().splitlines()
    assert [row.rsplit(",", 1)[0] for row in sorted(rows)] == ["bad,,,", "good,,,", "rule,env,variant,seed"]
    kept = (tmp_path / "results" / "tiny" / "seconds.csv").read_text().splitlines()
    assert [row.rsplit(",", 1)[0] for row in kept] == ["rule,env,variant,seed", "bad,,,", "good,,,"]
    capfd.readouterr()
    graphs.run_graph("tiny", snakefile=graph, forcerun=[])
    assert "tiny 0/2: 2 jobs on 2 cores, 0 s left\n" in capfd.readouterr().err


def test_a_broken_snakefile_shows_what_snakemake_says(graph):
    graph.write_text("from reflect_rl.core.errors import ReflectRLError\nraise ReflectRLError('no cheese; buy some')")
    with pytest.raises(JobsFailed, match="no cheese; buy some"):
        graphs.run_graph("tiny", snakefile=graph)


def test_second_run_is_refused_while_one_is_at_work(graph, tmp_path):
    with graphs.single_run(tmp_path):
        with pytest.raises(ReflectRLError, match=f"another run is at work .*process {os.getpid()}"):
            graphs.run_graph("tiny", snakefile=graph)


def test_a_hash_of_a_notebook_is_that_of_its_code(write):
    first = graphs.cells_hash(write("x = 1", "x"))
    path = write("x = 1", "x")
    path.write_text(path.read_text().replace("A notebook.", "Another text."))
    assert graphs.cells_hash(path) == first
    assert graphs.cells_hash(write("x = 2", "x")) != first


def start_sleeping(graph: Path, home: Path) -> subprocess.Popen:
    """A run in a process of its own, as soon as its job sleeps."""
    code = (
        "import sys; from pathlib import Path;"
        "from reflect_rl.cli import graph as g, main as m; from reflect_rl.core.profiles import Profile;"
        "g.settings.profile = lambda name: Profile(name, ('lake',), ('reflect_rl',), (0,)); run = g.run_graph;"
        "g.run_graph = lambda *a, **k: run('tiny', target='sleep', snakefile=Path(sys.argv[1]));"
        "sys.exit(m.main(['reproduce', '--profile', 'tiny']))"
    )
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
    command = [sys.executable, "-c", code, str(graph)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    deadline = time.monotonic() + 30
    while not ((home / "pid").exists() and (home / "pid").read_text().strip()):
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
    process = start_sleeping(graph, tmp_path)
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
    graphs.run_graph("tiny", target="sleep", snakefile=graph)
    assert (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()


def test_a_killed_run_leaves_no_lock_but_that_of_its_jobs(graph, tmp_path):
    process = start_sleeping(graph, tmp_path)
    snakemake = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    with pytest.raises(ReflectRLError, match="another run is at work"):  # Snakemake outlives it
        graphs.run_graph("tiny", snakefile=graph)
    os.killpg(snakemake, signal.SIGKILL)
    with (tmp_path / ".snakemake" / "reflect_rl.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the kernel has let go of it
    graph.write_text(graph.read_text().replace("sleep 60", "true"))
    graphs.run_graph("tiny", target="sleep", snakefile=graph)
    assert (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()
