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

from reflect_rl.cli.jobs import Job, JobsFailed, Progress, keep_seconds
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import writing
from reflect_rl.envs import settings

# Jobs run side by side, so the libraries below torch take one thread each (torch's own are core.runtime's). And glibc
# keeps the memory of freed tensors instead of handing it back at every layer, which saves a job about 7% of its time.
JOB_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
OPTIONS = ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "--resources", "results=1"]
OPTIONS += [
    "--scheduler",
    "greedy",
    "--nocolor",
    "--nolock",
]  # `single_run` is our lock, and never outlives its holders


def cells_hash(notebook: Path) -> str:
    """A hash of a notebook's code cells: what an executed copy depends on beside settings and library."""
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sha256(json.dumps(sources).encode()).hexdigest()[:10]


@contextmanager
def single_run(home: Path) -> Iterator[int]:
    """Hold the operating system's lock of the runs below `home`; yields its file descriptor."""
    path = home / ".snakemake" / "reflect_rl.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ReflectRLError(
                f"another run is at work in {home} (process {file.read()}); wait for it, or end it first"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


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
    command = [sys.executable, "-m", "reflect_rl.cli.events", target, *OPTIONS, "--directory", str(home)]
    command += ["--snakefile", str(snakefile or paths.project() / "Snakefile"), "--cores", str(cores)]
    command += [] if forcerun is None else ["--forcerun", *forcerun] if forcerun else ["--forceall"]
    command += ["--config", f"profile={profile}", f"env={env}"]
    with single_run(home) as lock, Interrupts() as interrupts:
        begun = log_path.stat().st_size if log_path.exists() else 0
        planned: set[Job] = set()
        quiet = ["--dry-run", "--quiet", "host", "rules", "reason", "progress"]
        failed = snakemake([*command, *quiet], home, log_path, lock, interrupts, lambda e: _plan(planned, e))
        failures: list[Job] = []
        if not failed:
            with closing(Progress(profile, planned, cores)) as progress:
                failed = snakemake(command, home, log_path, lock, interrupts, lambda e: _follow(progress, e))
                failures = progress.failures
    if failed:
        lines = [f"{job.name}: {_last_line(home / job.log)}" for job in failures]
        lines = lines or log_path.read_bytes()[begun:].decode(errors="replace").strip().splitlines()[-8:]
        raise JobsFailed("\n".join([*lines, f"the whole log: {log_path}"]))
    if profile != "smoke":
        keep_seconds(profile)


def _job(event: dict) -> Job:
    of = event["wildcards"]
    kind = (event["rule"], of.get("env", ""), of.get("variant") or of.get("group", ""))
    return Job(event["name"], kind, of.get("seed", ""), event["log"][0])


def _plan(planned: set[Job], event: dict | None) -> None:
    if event and event.get("log"):  # a job without a log only gathers others
        planned.add(_job(event))


def _follow(progress: Progress, event: dict | None) -> None:
    match event:
        case {"event": "job_info", "log": [_, *_]}:
            progress.started(event["job"], _job(event), event["time"])
        case {"event": "job_finished"}:
            progress.finished(event["job"], event["time"])
        case {"event": "job_error"}:
            progress.failed(event["job"])
    progress.show(time.time())


def snakemake(
    command: list[str], home: Path, log: Path, lock: int, interrupts: Interrupts, tell: Callable[[dict | None], None]
) -> int:
    """Run Snakemake in a session of its own and hand on its events, and None for each second without one.

    Returns its exit status. Where `tell` or an interrupt raises, it is stopped with its jobs.
    """
    reading, writing_end = os.pipe()
    variables = {"REFLECT_RL_HOME": str(home), "PYTHONUNBUFFERED": "1", "REFLECT_RL_EVENTS": str(writing_end)}
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            env=JOB_DEFAULTS | os.environ | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(writing_end, lock),  # Snakemake may outlive us, and the lock with it
        )
    os.close(writing_end)
    try:
        for event in _events(reading):
            tell(event)
        return process.wait()
    except BaseException:
        _stop(process, interrupts)
        raise
    finally:
        os.close(reading)


def _stop(process: subprocess.Popen, interrupts: Interrupts) -> None:
    """End Snakemake and its jobs, gently first; each further Ctrl-C takes the next step at once."""
    for stop, patience in ((signal.SIGINT, 15), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        before, deadline = interrupts.count, time.monotonic() + patience
        with suppress(ProcessLookupError):  # nobody is left of the session
            os.killpg(process.pid, stop)
            while interrupts.count == before and time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)


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


def _last_line(log: Path) -> str:
    """The last line of a job's log: the one error line that `python -m reflect_rl execute` ends with."""
    lines = [line for line in log.read_text().splitlines() if line.strip()] if log.is_file() else []
    return lines[-1].removeprefix("error: ") if lines else f"failed without a message in {log}"
