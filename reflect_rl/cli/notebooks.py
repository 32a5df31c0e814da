"""Running notebooks: one through papermill, or all in place or compared with their committed outputs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# jsonschema would build a parser of web addresses, for a second at every start; notebooks have none to check.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import papermill
import yaml
from ipykernel.kernelspec import write_kernel_spec
from papermill.engines import NBClientEngine, papermill_engines

from reflect_rl.cli.jobs import JobsFailed
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.files import write_text, writing
from reflect_rl.envs import settings

CONFIG_PARAMETERS = ("profile", "env", "variant", "seed", "overrides")
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|mnt|opt|private|root|srv|tmp|usr|Users|var|work)/[^\s\"'<>]*")


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make Jupyter's `python3` this very interpreter, without progress bars, which would fill the notebook.

    A kernel of that name in the user's home may belong to another environment and would win in some set-ups;
    $JUPYTER_PATH comes before every other place.
    """
    before = os.environ.get("JUPYTER_PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        # stderr is for our own lines; the kernel would tell there of its loopback connection and its end
        quiet = ["--log-level=CRITICAL"]
        write_kernel_spec(Path(folder, "kernels", "python3"), {"env": {"TQDM_DISABLE": "1"}}, quiet)
        os.environ["JUPYTER_PATH"] = f"{folder}{os.pathsep}{before}".rstrip(os.pathsep)
        try:
            yield
        finally:
            os.environ["JUPYTER_PATH"] = before


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
        ReflectRLError: the notebook is missing or unreadable, does not have exactly one cell tagged
            `parameters`, does not know one of the names, or `settings.load` rejects a value.
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
    given = {name: parameters[name] for name in CONFIG_PARAMETERS if name in parameters}
    if given:
        settings.load(**given)


class TickingEngine(NBClientEngine):
    """papermill's engine; on a terminal the clock of its bar goes on while a cell takes long."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        over = threading.Event()

        def tick() -> None:
            while not over.wait(1):
                nb_man.pbar.refresh()

        if sys.stderr.isatty():
            threading.Thread(target=tick, daemon=True).start()
        try:
            return super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            over.set()


papermill_engines.register("ticking", TickingEngine)


def execute(notebook: Path, output: Path, parameters: dict) -> None:
    """Execute a notebook with papermill from the project's folder; `output` appears only when it is complete.

    Until then, and when it fails, the notebook so far is in `OUTPUT.partial.ipynb`.

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
    try:
        with own_kernel():
            papermill.execute_notebook(notebook, partial, parameters, **how)
    except Exception as error:
        # papermill says what a cell raised; other errors, such as that of a dead kernel, stand for themselves
        name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        if name == ReflectRLError.__name__:
            raise ReflectRLError(message) from error
        raise JobsFailed(f"{name}: {first_line(message)} (the notebook so far: {partial})") from error
    partial.replace(output)


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


def run_notebook(notebook: Path, compare: bool) -> str:
    """Execute a notebook with its own defaults and below an empty home of its own, and put the result in its place.

    Args:
        compare: compare with the committed outputs (nbval) instead, and write nothing.

    Returns what was done, in words.

    Raises:
        JobsFailed: it did not run, or differs; its home stays in `build/` for a look.
    """
    notebook, build = notebook.resolve(), paths.project() / "build"
    check_parameters(notebook, {})
    with writing(build):
        build.mkdir(exist_ok=True)
    os.environ["REFLECT_RL_HOME"] = home = tempfile.mkdtemp(prefix=f"{notebook.stem}-", dir=build)
    done = _compare(notebook) if compare else _refresh(notebook, Path(home, notebook.name))
    shutil.rmtree(home)
    return done


def _refresh(notebook: Path, output: Path) -> str:
    execute(notebook, output, {})
    document = nbformat.read(output, as_version=4)
    tidy(document)
    if found := absolute_paths(document):
        raise JobsFailed(f"an output of {output} names a path of this machine ({found[0]}); print a relative one")
    write_text(notebook, nbformat.writes(document) + "\n")
    return "executed in place"


def _compare(notebook: Path) -> str:
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(notebook)]
    with own_kernel():
        done = subprocess.run(command, cwd=paths.project(), capture_output=True, text=True)
    if done.returncode:
        raise JobsFailed((done.stdout + done.stderr).strip())
    return done.stdout.strip().splitlines()[-1]
