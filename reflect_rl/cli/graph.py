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
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import IO

from reflect_rl.cli.jobs import Job, JobsFailed, Progress
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import writing
from reflect_rl.envs import settings

OPTIONS = ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "--resources", "results=1"]
OPTIONS += ["--scheduler", "greedy", "--nocolor"]
OPTIONS += ["--max-jobs-per-timespan", "1000/10s"]  # each job that has ended makes it look for others once a timespan
OPTIONS += ["--nolock"]  # `single_run` is our lock, and never outlives its holders
PLAN_ONLY = ["--dry-run", "--quiet", "host", "rules", "reason", "progress"]


@contextmanager
def single_run(path: Path) -> Iterator[int]:
    """Hold the operating system's lock of a file that says that a run is at work; yields its file descriptor."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReflectRLError(f"another run is at work in {path.parent}; wait for it, or end it first") from None
        yield file.fileno()


def run(profile: str, target: str = "all", env: str = "", cores: int = 2, forcerun: list[str] | None = None) -> None:
    """Run a target of the Snakefile to its end: progress on the terminal, everything else in a log file.

    Running again continues where a failed, interrupted or killed run stopped.

    Args:
        env: one environment of the profile; empty for all.
        forcerun: rules whose notebooks are executed again; empty for all rules, None for none.

    Raises:
        ReflectRLError: unknown profile or environment, or another run is at work.
        JobsFailed: Snakemake did not succeed; the message has a line for each failed job.
        KeyboardInterrupt: Ctrl-C or SIGTERM; Snakemake and its jobs have ended.
    """
    settings.chosen(settings.profile(profile), env)
    home = paths.home().resolve()
    log_path = home / "runs" / profile / "snakemake.log"
    with writing(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [target, *OPTIONS, "--directory", str(home), "--cores", str(cores)]
    command += ["--snakefile", str(paths.project() / "Snakefile")]
    if forcerun is not None:
        command += ["--forcerun", *forcerun] if forcerun else ["--forceall"]
    command += ["--config", f"profile={profile}", f"env={env}"]
    planned: set[Job] = set()
    failures: list[Job] = []
    with single_run(home / "runs" / "reflect_rl.lock") as lock, log_path.open("w") as log:
        failed = snakemake([*command, *PLAN_ONLY], log, lock, lambda event: event and planned.add(Job(*event["job"])))
        if not failed:
            with closing(Progress(profile, planned, cores)) as progress:
                failed = snakemake(command, log, lock, lambda event: progress.follow(event, time.time()))
                failures = progress.failures
    if failed:
        lines = [f"{job.name}: {_last_line(home / job.log)}" for job in failures]
        lines = lines or log_path.read_text(errors="replace").strip().splitlines()[-8:]
        raise JobsFailed("\n".join([*lines, f"the whole log: {log_path}"]))


def snakemake(options: list[str], log: IO, lock: int, tell: Callable[[dict | None], None]) -> int:
    """Run Snakemake in a session of its own and hand on its events, and None for each second without one.

    Returns its exit status. Ctrl-C and SIGTERM are only noted, and heeded between two events: then, or where `tell`
    raises, Snakemake is stopped with its jobs. After that they stay without effect, as this process is about to end.
    """
    noted: list[int] = []
    before = {each: signal.signal(each, lambda number, _: noted.append(number)) for each in (SIGINT, SIGTERM)}
    process = subprocess.Popen(
        [sys.executable, "-m", "reflect_rl.cli.events", *options],
        env=os.environ | {"REFLECT_RL_HOME": str(paths.home().resolve())},
        stdout=subprocess.PIPE,
        stderr=log,
        bufsize=0,  # what `select` does not see would be left in a buffer
        start_new_session=True,
        pass_fds=[lock],  # Snakemake may outlive us, and the lock with it
    )
    with process:
        try:
            for event in _events(process.stdout):
                tell(event)
                if noted:
                    raise KeyboardInterrupt
        except BaseException:
            _stop(process, noted)
            raise
    for number, handler in before.items():
        signal.signal(number, handler)
    return process.returncode


def _stop(process: subprocess.Popen, noted: list[int]) -> None:
    """End Snakemake and its jobs, gently first; each further Ctrl-C takes the next step at once."""
    for stop, patience in ((SIGINT, 15), (SIGTERM, 5), (SIGKILL, 5)):
        before, deadline = len(noted), time.monotonic() + patience
        with suppress(ProcessLookupError):  # nobody is left of the session
            os.killpg(process.pid, stop)
            while len(noted) == before and time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)


def _events(pipe: IO) -> Iterator[dict | None]:
    """The lines of JSON that come through an unbuffered pipe; None for each second without one, and at the end."""
    line = b"null"
    while line:
        yield json.loads(line)
        line = pipe.readline() if select.select([pipe], [], [], 1)[0] else b"null"
    yield None


def _last_line(log: Path) -> str:
    """The last line of a job's log: the one error line that `python -m reflect_rl execute` ends with."""
    lines = [line for line in log.read_text().splitlines() if line.strip()] if log.is_file() else []
    return lines[-1].removeprefix("error: ") if lines else f"failed without a message in {log}"
