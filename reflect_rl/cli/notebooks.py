"""Running notebooks: one through papermill, or one in place or compared with its committed outputs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# jsonschema would build a parser of web addresses, for a second at every start; notebooks have none to check.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import papermill
import yaml
from papermill.engines import NBClientEngine, papermill_engines

from reflect_rl.cli.jobs import JobsFailed
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.files import write_text, writing
from reflect_rl.envs import settings

CONFIG_PARAMETERS = ("profile", "env", "regime", "variant", "seed", "overrides")
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|mnt|opt|private|root|srv|tmp|usr|Users|var|work)/[^\s\"'<>]*")


# What the kernels get: of all kernels named `python3` this environment's own, and no bars, which would fill a notebook.
KERNELS = {"JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")), "TQDM_DISABLE": "1"}


def parse_value(name: str, text: str) -> str | int | float | bool:
    """A parameter's value from the command line, read as a YAML scalar; empty text stays empty text."""
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError:
        value = None
    if not isinstance(value, str | int | float | bool):
        raise ReflectRLError(f"parameter {name}={text!r} is not a single YAML value such as lake, 0 or 1.5")
    return value


def check_parameters(notebook: Path, parameters: dict) -> None:
    """Refuse, before a kernel starts, what papermill would silently accept.

    Raises:
        ReflectRLError: the notebook cannot be read, does not have exactly one cell tagged `parameters`, does not know
            one of the names, or `settings.load` rejects a value.
    """
    try:
        document = nbformat.read(notebook, as_version=4)
    except Exception as error:
        where = f"the project's are in {paths.notebooks()}"
        raise ReflectRLError(f"{notebook} is no notebook that can be read ({first_line(error)}); {where}") from error
    tagged = sum("parameters" in cell.metadata.get("tags", ()) for cell in document.cells)
    if tagged != 1:
        raise ReflectRLError(f"{notebook} has {tagged} cells tagged 'parameters'; tag exactly one")
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {notebook.name}", name, known)
    if given := {name: value for name, value in parameters.items() if name in CONFIG_PARAMETERS}:
        settings.load(**given)


class TickingEngine(NBClientEngine):
    """papermill's engine; on a terminal the clock of its bar goes on while a cell takes long."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        over = threading.Event()

        def tick() -> None:
            while sys.stderr.isatty() and not over.wait(1):
                nb_man.pbar.refresh()

        threading.Thread(target=tick, daemon=True).start()
        try:
            return super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            over.set()


papermill_engines.register("ticking", TickingEngine)


def execute(notebook: Path, output: Path, parameters: dict) -> None:
    """Execute a notebook with papermill from the project's folder.

    `output` appears when it is complete; until then, and when it fails, the notebook so far is
    `OUTPUT.partial.ipynb`.

    Raises:
        ReflectRLError: bad parameters, or a cell raised it.
        JobsFailed: anything else went wrong in a cell or with the kernel.
    """
    notebook, output = notebook.resolve(), output.resolve()
    check_parameters(notebook, parameters)
    partial = output.with_suffix(".partial.ipynb")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    form = f"{notebook.stem}: cell {{n_fmt}}/{{total_fmt}}, {{elapsed}}"
    bar = {"bar_format": form, "leave": False, "mininterval": 0}
    how = {"engine_name": "ticking", "kernel_name": "python3", "cwd": paths.project(), "progress_bar": bar}
    how["extra_arguments"] = ["--log-level=CRITICAL"]  # the kernel would tell of its connection and its end
    os.environ.update(KERNELS)
    try:
        papermill.execute_notebook(notebook, partial, parameters, **how)
    except Exception as error:
        # papermill says what a cell raised; other errors, such as that of a dead kernel, stand for themselves
        name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        if name == ReflectRLError.__name__:
            raise ReflectRLError(message) from error
        raise JobsFailed(f"{name}: {first_line(message)} (the notebook so far: {partial})") from error
    partial.replace(output)


def first_line(message: object) -> str:
    return next((line.strip() for line in str(message).splitlines() if line.strip()), "no message")


def absolute_paths(document: nbformat.NotebookNode) -> list[str]:
    """The absolute paths in the text outputs of a notebook: they would differ on every machine."""
    outputs = [output for cell in document.cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") for output in outputs]
    texts += [data for output in outputs for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return [found for text in texts for found in ABSOLUTE_PATH.findall(text)]


def tidy(document: nbformat.NotebookNode) -> None:
    """Strip, in place, all metadata that depends on who executed the notebook, where and when."""
    document.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    for cell in document.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})


def run_notebook(notebook: Path, compare: bool) -> str:
    """Execute a notebook with its own defaults and put the result in its place, or compare with what is there (nbval).

    It runs below an empty home of its own in `build/`, which stays where it fails. Returns what came of it, in words.

    Raises:
        ReflectRLError, JobsFailed: it did not run, its outputs name a path of this machine, or they differ.
    """
    notebook, build = notebook.resolve(), paths.project() / "build"
    check_parameters(notebook, {})
    with writing(build):
        build.mkdir(exist_ok=True)
    home = tempfile.mkdtemp(prefix=f"{notebook.stem}-", dir=build)
    os.environ.update(KERNELS, REFLECT_RL_HOME=home)
    if compare:
        command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(notebook)]
        done = subprocess.run(command, cwd=paths.project(), capture_output=True, text=True)
        if done.returncode:
            raise JobsFailed((done.stdout + done.stderr).strip())
        outcome = done.stdout.strip().splitlines()[-1]
    else:
        output = Path(home, notebook.name)
        execute(notebook, output, {})
        document = nbformat.read(output, as_version=4)
        tidy(document)
        if found := absolute_paths(document):
            raise JobsFailed(f"an output of {output} names a path of this machine ({found[0]}); print a relative one")
        write_text(notebook, nbformat.writes(document) + "\n")
        outcome = "executed in place"
    shutil.rmtree(home)
    return outcome
