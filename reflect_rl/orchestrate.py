"""Running notebooks: one through papermill, all in place, or a profile's whole graph through Snakemake."""

import fcntl
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# jsonschema would build a parser of web addresses, for a second at every start; notebooks have none to check.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import papermill
import yaml
from ipykernel.kernelspec import write_kernel_spec
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from reflect_rl import config, paths
from reflect_rl.errors import ReflectRLError, unknown
from reflect_rl.paths import writing

CONFIG_PARAMETERS = ("profile", "env", "variant", "seed", "overrides")
# One thread a job, since jobs run side by side; and glibc keeps the memory of freed tensors instead of handing it back
# at every layer, which saves a job about 7% of its time.
JOB_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|mnt|opt|private|root|srv|tmp|usr|Users|var|work)/[^\s\"'<>]*")


class JobsFailed(Exception):
    """A notebook or job failed for a reason other than the user's input; the message says where to look."""


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make Jupyter's `python3` this very interpreter.

    A kernel of that name in the user's home may belong to another environment and would win in some set-ups;
    $JUPYTER_PATH comes before every other place.
    """
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        # stderr is for our one error line; the kernel would tell there of its loopback connection and its end
        write_kernel_spec(Path(folder, "kernels", "python3"), extra_arguments=["--log-level=CRITICAL"])
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, (folder, before)))
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH")
            if before is not None:
                os.environ["JUPYTER_PATH"] = before


def parse_value(name: str, text: str) -> str | int | float | bool:
    """A parameter's value from the command line, read as a YAML scalar; empty text stays empty text."""
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError:
        value = None
    if not isinstance(value, str | int | float | bool):
        raise ReflectRLError(f"parameter {name}={text!r} is not a single YAML value such as taxi, 0 or 1.5")
    return value


def check_parameters(notebook: Path, parameters: dict) -> None:
    """Refuse, before a kernel starts, what papermill would silently accept.

    Raises:
        ReflectRLError: the notebook is missing or unreadable, does not have exactly one cell tagged
            `parameters`, does not know one of the names, or `config.load` rejects a value.
    """
    if not notebook.is_file():
        raise ReflectRLError(f"no notebook {notebook}; the project's are in {paths.notebooks()}")
    try:
        document = nbformat.read(notebook, as_version=4)
    except Exception as error:
        raise ReflectRLError(f"{notebook} is not a notebook that can be read: {first_line(error)}") from error
    tagged = sum("parameters" in cell.metadata.get("tags", ()) for cell in document.cells)
    if tagged != 1:
        raise ReflectRLError(f"{notebook} has {tagged} cells tagged 'parameters'; tag exactly one")
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {notebook.name}", name, known)
    settings = {name: parameters[name] for name in CONFIG_PARAMETERS if name in parameters}
    if settings:
        config.load(**settings)


def execute(notebook: Path, output: Path, parameters: dict) -> None:
    """Execute a notebook with papermill from the project's folder; `output` appears only when it is complete.

    While it runs the notebook so far is in `OUTPUT.running.ipynb`; when it fails it stays as
    `OUTPUT.failed.ipynb`.

    Raises:
        ReflectRLError: bad parameters, or a cell raised it.
        JobsFailed: anything else went wrong in a cell or with the kernel.
    """
    notebook, output = notebook.resolve(), output.resolve()
    check_parameters(notebook, parameters)
    running, failed = output.with_suffix(".running.ipynb"), output.with_suffix(".failed.ipynb")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of a kernel that nobody watches would fill the notebook
    try:
        with own_kernel():
            papermill.execute_notebook(
                notebook, running, parameters, kernel_name="python3", cwd=paths.project(), progress_bar=False
            )
    except Exception as error:
        if running.exists():
            running.replace(failed)
        if isinstance(error, PapermillExecutionError):
            if error.ename == ReflectRLError.__name__:
                raise ReflectRLError(error.evalue) from error
            problem = first_line(f"{error.ename}: {error.evalue}")
        else:
            problem = f"{type(error).__name__}: {first_line(error)}"
        raise JobsFailed(f"{problem} (the notebook so far: {failed})") from error
    except KeyboardInterrupt:
        running.unlink(missing_ok=True)
        raise
    running.replace(output)
    failed.unlink(missing_ok=True)


def first_line(message: object) -> str:
    return next((line.strip() for line in str(message).splitlines() if line.strip()), "no message")


def absolute_paths(document: nbformat.NotebookNode) -> list[str]:
    """The absolute paths in the text outputs of a notebook: they would differ on every machine."""
    texts = []
    for cell in document.cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return [found for text in texts for found in ABSOLUTE_PATH.findall(text)]


def tidy(document: nbformat.NotebookNode) -> None:
    """Strip, in place, all metadata that depends on who executed the notebook, where and when."""
    document.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    for cell in document.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})


def refresh_notebook(notebook: Path, home: Path) -> str:
    """Execute a notebook with its own defaults below an empty `home` and put the result in its place."""
    output = home / notebook.name
    _run(["-m", "reflect_rl", "execute", str(notebook), str(output)], home)
    document = nbformat.read(output, as_version=4)
    tidy(document)
    if found := absolute_paths(document):
        raise JobsFailed(f"an output names a path of this machine ({found[0]}); print a relative one")
    temporary = notebook.with_name(f".{notebook.name}")
    nbformat.write(document, temporary)
    temporary.replace(notebook)
    return "executed in place"


def compare_notebook(notebook: Path, home: Path) -> str:
    """Execute a notebook below an empty `home` and compare with its committed outputs (nbval)."""
    report = _run(["-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(notebook)], home)
    return report.strip().splitlines()[-1]


def _run(arguments: list[str], home: Path) -> str:
    """Run this Python from the project's folder with its products below `home`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=paths.project(),
        env=os.environ | {"REFLECT_RL_HOME": str(home), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise JobsFailed(done.stdout.strip())
    return done.stdout


def run_notebooks(notebooks: list[Path], cores: int, check: bool) -> None:
    """Execute notebooks with their own defaults, each below its own empty home, `cores` at a time.

    Args:
        notebooks: which; all of the project where empty.
        check: compare with the committed outputs and write nothing, instead of replacing them.

    Raises:
        JobsFailed: some did not run or differ; their homes stay in `build/` for a look.
    """
    notebooks = notebooks or sorted(paths.notebooks().glob("*.ipynb"))
    for notebook in notebooks:
        check_parameters(notebook, {})
    build = paths.project() / "build"
    with writing(build):
        build.mkdir(exist_ok=True)

    def one(notebook: Path) -> str | None:
        home = Path(tempfile.mkdtemp(prefix=f"{notebook.stem}-", dir=build))
        try:
            report = (compare_notebook if check else refresh_notebook)(notebook.resolve(), home)
        except JobsFailed as error:
            tqdm.write(f"error: {notebook.name}: {error}", file=sys.stderr)
            return notebook.name
        shutil.rmtree(home)
        tqdm.write(f"{notebook.name}: {report}")
        return None

    with own_kernel(), ThreadPoolExecutor(cores) as pool:
        failed = [name for name in tqdm(pool.map(one, notebooks), total=len(notebooks), disable=None) if name]
    if failed:
        raise JobsFailed(f"failed: {', '.join(failed)} (products are kept in {build})")


class SnakemakeReport:
    """What Snakemake's output says of the jobs: how many are done, what runs, which failed.

    Attributes:
        done, total: jobs.
        running: job id -> the job's name (its output without `runs/` and `.ipynb`).
        failures: the failed jobs' names -> their log files, relative to the run's home.
    """

    STARTED = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):$")
    FAILED = re.compile(r"Error in rule (\w+):$")
    FIELD = re.compile(r" {4}(\w+): (.*)$")
    FINISHED = re.compile(r"Finished jobid: (\d+)")
    STEPS = re.compile(r"(\d+) of (\d+) steps \(\d+%\) done$")
    TOTAL = re.compile(r"total +(\d+)$")

    def __init__(self):
        self.done, self.total = 0, None
        self.running: dict[str, str] = {}
        self.failures: dict[str, str | None] = {}
        self._failing = False
        self._name = ""

    def read(self, line: str) -> None:
        """Take one line of Snakemake's output into account."""
        if found := self.STARTED.match(line) or self.FAILED.match(line):
            self._failing = line.startswith("Error")
            self._name = found[1]
            if self._failing:
                self.failures.setdefault(self._name, None)
        elif found := self.FIELD.match(line):
            self._read_field(*found.groups())
        elif found := self.FINISHED.match(line):
            self.running.pop(found[1], None)
        elif found := self.STEPS.match(line):
            self.done, self.total = int(found[1]), int(found[2])
        elif found := self.TOTAL.match(line):
            self.total = int(found[1])

    def _read_field(self, key: str, value: str) -> None:
        if key == "output":
            if self._failing:
                self.failures.pop(self._name, None)
            self._name = value.removeprefix("runs/").removesuffix(".ipynb")
            if self._failing:
                self.failures[self._name] = None
        elif key == "log" and self._failing:
            self.failures[self._name] = value.removesuffix(" (check log file(s) for error details)")
        elif key == "jobid" and self._failing:
            self.running.pop(value, None)
        elif key == "jobid":
            self.running[value] = self._name


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


def run_graph(
    profile: str,
    target: str = "all",
    env: str = "",
    cores: int = 2,
    forcerun: list[str] | None = None,
    snakefile: Path | None = None,
) -> None:
    """Run a target of the Snakefile to its end: one bar on the terminal, everything else in a log file.

    Running again continues where a failed, interrupted or killed run stopped.

    Args:
        env: one environment of the profile; empty for all.
        forcerun: rules whose notebooks are executed again; empty for all rules, None for none.

    Raises:
        ReflectRLError: unknown profile or environment, or another run is at work.
        JobsFailed: Snakemake did not succeed; the message has a line for each failed job.
    """
    config.chosen(config.profile(profile), env)
    home = paths.home().resolve()
    log_path = home / "runs" / profile / "snakemake.log"
    with writing(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
    snakefile = snakefile or paths.project() / "Snakefile"
    command = [
        sys.executable,
        "-m",
        "snakemake",
        target,
        "--snakefile",
        str(snakefile),
        "--directory",
        str(home),
    ]
    command += ["--cores", str(cores), "--config", f"profile={profile}", f"env={env}", "--nocolor"]
    options = ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "--scheduler", "greedy"]
    options += ["--resources", "results=1"]
    if forcerun is not None:
        options += ["--forcerun", *forcerun] if forcerun else ["--forceall"]
    variables = JOB_DEFAULTS | os.environ | {"REFLECT_RL_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with single_run(home) as (lock, was_killed), log_path.open("a") as log:
        if was_killed:
            subprocess.run([*command, "--unlock"], env=variables, stdout=log, stderr=log, check=False)
        process = subprocess.Popen(
            [*command, *options],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=(lock.fileno(),),  # Snakemake may outlive us, and the lock with it
        )
        try:
            report, tail = _follow(process, log, profile)
            process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            if process.returncode >= 0:
                lock.truncate(0)
    if process.returncode:
        lines = [f"{name}: {_last_line(home, path)}" for name, path in report.failures.items()] or list(tail)
        raise JobsFailed("\n".join([*lines, f"the whole log: {log_path}"]))


def _follow(process: subprocess.Popen, log: IO[str], profile: str) -> tuple[SnakemakeReport, deque[str]]:
    """Show Snakemake's progress until it ends; returns what it reported and its last lines."""
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True)
    reader.start()
    report, tail = SnakemakeReport(), deque(maxlen=8)
    terminal = sys.stderr.isatty()
    with tqdm(desc=profile, unit="job", dynamic_ncols=True, mininterval=0.1 if terminal else 60) as bar:
        while reader.is_alive() or not lines.empty():
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                if terminal:
                    bar.refresh()  # the clock goes on while a job takes long
                continue
            log.write(line)
            log.flush()
            if line.strip():
                tail.append(line.strip())
            report.read(line.rstrip("\n"))
            bar.total = report.total
            failed = [f"{len(report.failures)} failed"] if report.failures else []
            bar.set_postfix_str(", ".join(failed + list(report.running.values())), refresh=False)
            bar.update(report.done - bar.n)
    return report, tail


def _stop(process: subprocess.Popen) -> None:
    """End Snakemake and its jobs, gently first."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # a job that outlived Snakemake


def _last_line(home: Path, log: str | None) -> str:
    """The last line of a job's log: the one error line that `python -m reflect_rl execute` ends with."""
    if log is None or not (home / log).is_file():
        return "failed without a log"
    lines = [line for line in (home / log).read_text().splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"failed without a message in {log}"
