"""A profile's whole graph of notebooks, run by Snakemake."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from reflect_rl.cli.jobs import Job, JobsFailed, Progress, keep_seconds
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import writing
from reflect_rl.envs import settings

# Jobs run side by side, so the libraries below torch take one thread each (torch's own threads are a setting of ours,
# core.runtime). And glibc keeps the memory of freed tensors instead of handing it back at every layer, which saves a
# job about 7% of its time.
JOB_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
OPTIONS = ("--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "--scheduler", "greedy")


def cells_hash(notebook: Path) -> str:
    """A hash of a notebook's code cells: what an executed copy depends on beside settings and library."""
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sha256(json.dumps(sources).encode()).hexdigest()[:10]


@contextmanager
def single_run(home: Path) -> Iterator[tuple[IO[str], bool]]:
    """Hold the lock of the runs below `home`; yields its file and whether the last holder was killed.

    The lock is the operating system's and goes with its holders, so a killed run never blocks the next one.
    The file has text exactly while a run is going on or was killed.
    """
    path = home / ".snakemake" / "reflect_rl.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReflectRLError(
                f"another run is at work in {home} (process {holder}); wait for it, or end it first"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file, bool(holder)


class Interrupts:
    """Ctrl-C and SIGTERM while Snakemake works: the first raises KeyboardInterrupt, later ones are only counted."""

    def __enter__(self) -> "Interrupts":
        self.count = 0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        if not self.count:  # else this process is about to end, and one more Ctrl-C should not disturb that
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, *_) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt


def run_graph(
    profile: str,
    target: str = "all",
    env: str = "",
    cores: int = 2,
    forcerun: list[str] | None = None,
    snakefile: Path | None = None,
) -> None:
    """Run a target of the Snakefile to its end: progress on the terminal, everything else in a log file.

    Running again continues where a failed, interrupted or killed run stopped.

    Args:
        env: one environment of the profile; empty for all.
        forcerun: rules whose notebooks are executed again; empty for all rules, None for none.

    Raises:
        ReflectRLError: unknown profile or environment, or another run is at work.
        JobsFailed: Snakemake did not succeed; the message has a line for each failed job.
    """
    settings.chosen(settings.profile(profile), env)
    home = paths.home().resolve()
    log_path = home / "runs" / profile / "snakemake.log"
    with writing(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
    snakefile = snakefile or paths.project() / "Snakefile"
    command = [target, "--snakefile", str(snakefile), "--directory", str(home), "--cores", str(cores), "--nocolor"]
    command += ["--config", f"profile={profile}", f"env={env}", "--resources", "results=1"]
    forced = [] if forcerun is None else ["--forcerun", *forcerun] if forcerun else ["--forceall"]
    with single_run(home) as (lock, was_killed), log_path.open("a") as log, Interrupts() as interrupts:
        snakemake = Snakemake(command, home, lock, log, interrupts)
        try:
            progress = _run(snakemake, profile, cores, forced, was_killed)
        finally:
            if not snakemake.was_killed:
                lock.truncate(0)
    if snakemake.failed:
        lines = [f"{job.name}: {_last_line(home, job.log)}" for job in progress.failures] or [snakemake.last_words()]
        raise JobsFailed("\n".join([*lines, f"the whole log: {log_path}"]))
    if profile != "smoke":
        keep_seconds(profile)


def _run(snakemake: "Snakemake", profile: str, cores: int, forced: list[str], was_killed: bool) -> Progress:
    """Ask what there is to do, then do it."""
    if was_killed:
        snakemake.run(["--unlock"])
    planned: set[Job] = set()

    def plan(event: dict | None) -> None:
        if event and event["event"] == "job_info" and event["log"]:  # a job without one only gathers others
            planned.add(_job(event))

    snakemake.run([*OPTIONS, *forced, "--dry-run", "--quiet", "host", "rules", "reason", "progress"], plan)
    progress = Progress(profile, planned, cores)
    if snakemake.failed:
        return progress

    def follow(event: dict | None) -> None:
        match event:
            case None:
                progress.show(time.time())
            case {"event": "job_info", "log": [_, *_]}:
                progress.started(event["job"], _job(event), event["time"])
            case {"event": "job_finished"}:
                progress.finished(event["job"], event["time"])
            case {"event": "job_error"}:
                progress.failed(event["job"], event["time"])

    with closing(progress):
        progress.announce()
        snakemake.run([*OPTIONS, *forced], follow)
    return progress


def _job(event: dict) -> Job:
    of = event["wildcards"]
    kind = (event["rule"], of.get("env", ""), of.get("variant") or of.get("group", ""))
    return Job(event["name"], kind, of.get("seed", ""), event["log"][0])


class Snakemake:
    """Snakemake in a process and session of its own, one call after another, all with the same first arguments.

    Attributes:
        failed: whether the last call ended with an error; was_killed: whether it did not end by itself.
    """

    def __init__(self, command: list[str], home: Path, lock: IO[str], log: IO[str], interrupts: Interrupts):
        self._command, self._lock, self._log, self._interrupts = command, lock, log, interrupts
        self._variables = JOB_DEFAULTS | os.environ | {"REFLECT_RL_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self._from = log.tell()
        self.failed = self.was_killed = False

    def run(self, options: list[str], tell: Callable[[dict | None], None] = lambda event: None) -> None:
        """Run to the end and hand on its events as they come, and None for each second without one."""
        reading, writing_end = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "reflect_rl.cli.events", *self._command, *options],
            env=self._variables | {"REFLECT_RL_EVENTS": str(writing_end)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(writing_end, self._lock.fileno()),  # Snakemake may outlive us, and the lock with it
        )
        os.close(writing_end)
        try:
            for event in _events(reading):
                tell(event)
            process.wait()
        except BaseException:
            self._stop(process)
            raise
        finally:
            os.close(reading)
            self.failed, self.was_killed = process.returncode != 0, process.returncode < 0

    def last_words(self) -> str:
        """The end of what it printed since the run began."""
        with open(self._log.name) as log:
            log.seek(self._from)
            return "\n".join([line.strip() for line in log if line.strip()][-8:])

    def _stop(self, process: subprocess.Popen) -> None:
        """End Snakemake and its jobs, gently first; each further Ctrl-C takes the next step at once."""
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            before, deadline = self._interrupts.count, time.monotonic() + 15
            with suppress(ProcessLookupError):
                os.killpg(process.pid, stop)
            while process.poll() is None and self._interrupts.count == before and time.monotonic() < deadline:
                time.sleep(0.05)
            if process.returncode is not None:
                break
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # a job that outlived Snakemake


def _events(pipe: int) -> Iterator[dict | None]:
    """The lines of JSON that come through a pipe until it is closed; None for each second without one."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], 1)[0]:
            yield None
            continue
        chunk = os.read(pipe, 2**16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, lines)


def _last_line(home: Path, log: str) -> str:
    """The last line of a job's log: the one error line that `python -m reflect_rl execute` ends with."""
    if not log or not (home / log).is_file():
        return "failed without a log"
    lines = [line for line in (home / log).read_text().splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"failed without a message in {log}"
