"""Single notebooks: executed with checked parameters, tidied, compared; one line for every error."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from reflect_rl.cli import notebooks
from reflect_rl.cli.main import main
from reflect_rl.core import paths

RAISE = "from reflect_rl.core.errors import ReflectRLError\nraise ReflectRLError('no cheese; buy some')"


def outputs(path: Path) -> str:
    """All that a notebook's cells printed."""
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def last_line(capfd) -> str:
    return capfd.readouterr().err.splitlines()[-1]


def test_bars_leave_no_widgets_in_an_executed_notebook(write, tmp_path):
    # a bar in a notebook sends thousands of messages, more than nbval waits for
    bar = "from reflect_rl.core.runtime import progress\nprint(sum(progress(range(3), 'work')))"
    output = tmp_path / "story.ipynb"
    assert main(["execute", str(write("cheese = 'none'", bar)), str(output)]) == 0
    cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    assert [(o.output_type, o.get("text")) for cell in cells for o in cell.outputs] == [("stream", "3\n")]


def test_success_leaves_the_executed_notebook_alone(write, tmp_path, capfd):
    notebook = write(
        "cheese = 'none'\npieces = 1", "import os, sys\nprint(cheese, pieces * 2, os.getcwd(), sys.prefix)"
    )
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(notebook), str(output), "-p", "cheese", "brie", "-p", "pieces", "2"]) == 0
    assert outputs(output) == f"brie 4 {paths.project()} {sys.prefix}\n"
    assert files(output.parent) == ["story.ipynb"]
    assert "story: cell 3/4, 00:0" in capfd.readouterr().err


def test_kernel_is_our_own_whatever_is_registered(write, tmp_path, monkeypatch):
    for folder in ("user/kernels/python3", "path/kernels/python3"):
        spec = tmp_path / folder / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["false"], "display_name": "Hijacked", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    notebooks.execute(write("x = 1", "import sys\nprint(sys.executable)"), tmp_path / "out.ipynb", {})
    assert outputs(tmp_path / "out.ipynb") == f"{sys.executable}\n"


def test_reflect_rl_error_in_a_cell_is_one_line(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", RAISE)), str(output)]) == 2
    assert last_line(capfd) == "error: no cheese; buy some"
    assert files(output.parent) == ["story.partial.ipynb"]


def test_other_failure_says_where_the_notebook_is(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", "print('before')", "1 / 0")), str(output)]) == 1
    partial = output.with_suffix(".partial.ipynb")
    assert last_line(capfd) == f"error: ZeroDivisionError: division by zero (the notebook so far: {partial})"
    assert "before" in outputs(partial)
    assert files(output.parent) == [partial.name]


def test_dead_kernel_is_a_failure(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", "import os\nos._exit(1)")), str(output)]) == 1
    assert last_line(capfd).startswith("error: DeadKernelError: Kernel died")
    assert not output.exists()


def test_interrupt_ends_the_kernel(write, tmp_path):
    sleep = f"import os, time\nopen('{tmp_path / 'pid'}', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    notebook = write("x = 1", sleep)
    command = [sys.executable, "-m", "reflect_rl", "execute", str(notebook), str(tmp_path / "run" / "out.ipynb")]
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    deadline = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1].splitlines()[-1] == "error: interrupted; the same command continues"
    assert process.returncode == 130
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()
    assert files(tmp_path / "run") == ["out.partial.ipynb"]


@pytest.mark.parametrize(
    ("tagged", "given", "message"),
    [
        (1, ["sed", "3"], "unknown parameter of story.ipynb 'sed'; choose one of: profile, seed"),
        (2, ["seed", "3"], "has 2 cells tagged 'parameters'; tag exactly one"),
        (0, ["seed", "3"], "has 0 cells tagged 'parameters'; tag exactly one"),
        (1, ["profile", "no-such"], "unknown profile 'no-such'; choose one of: "),
        (1, ["seed", "first"], "seed"),
        (1, ["seed", "[1, 2]"], "parameter seed='[1, 2]' is not a single YAML value"),
        (1, ["seed", "{"], "parameter seed='{' is not a single YAML value"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel_starts(write, tmp_path, capfd, monkeypatch, tagged, given, message):
    monkeypatch.setattr(notebooks.papermill, "execute_notebook", lambda *a, **k: pytest.fail("kernel started"))
    notebook = write("profile = 'smoke'\nseed = 0", "print(seed)", tagged=tagged)
    assert main(["execute", str(notebook), str(tmp_path / "out.ipynb"), "-p", *given]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert files(tmp_path) == ["story.ipynb"]


def test_missing_and_broken_notebooks_are_named(tmp_path, capfd):
    assert main(["execute", str(tmp_path / "no.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    assert "is no notebook that can be read ([Errno 2] No such file" in capfd.readouterr().err
    (tmp_path / "text.ipynb").write_text("not JSON")
    assert main(["execute", str(tmp_path / "text.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    assert "is no notebook that can be read (" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1.5", 1.5),
        ("true", True),
        ("taxi", "taxi"),
        ("", ""),
        ("rl.epochs=1 rl.clip=2", "rl.epochs=1 rl.clip=2"),
    ],
)
def test_values_are_yaml(text, value):
    assert notebooks.parse_value("name", text) == value


def test_tidy_keeps_tags_and_nothing_else():
    cell = new_code_cell("x = 1", metadata={"tags": ["parameters"], "papermill": {"duration": 1}})
    notebook = new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/home/me/x.ipynb"}})
    notebooks.tidy(notebook)
    assert notebook.metadata == {"kernelspec": notebooks.KERNELSPEC, "language_info": {"name": "python"}}
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}


def test_absolute_paths_are_found_in_text_only():
    texts = {
        "text/plain": "saved in '/home/me/runs/x.csv'",
        "text/html": "<td>a/opt/b</td>",
        "image/png": "/tmp/",
    }
    cell = new_code_cell(outputs=[new_output("display_data", texts), new_output("stream", text="at 1/2 runs/a")])
    assert notebooks.absolute_paths(new_notebook(cells=[cell])) == ["/home/me/runs/x.csv"]


def test_notebooks_in_place_then_compared(write, tmp_path, monkeypatch, capfd):
    source = "import os\nprint(os.listdir(os.environ['REFLECT_RL_HOME']))"
    notebook = write("seed = 0", source, "1 + seed")
    monkeypatch.setattr(notebooks.paths, "notebooks", lambda: tmp_path)
    assert main(["notebooks"]) == 0
    assert outputs(notebook) == "['story.partial.ipynb']\n"
    document = nbformat.read(notebook, 4)
    tidied = nbformat.read(notebook, 4)
    notebooks.tidy(tidied)
    assert document == tidied

    document.cells[2].outputs[0].text = "[]\n"  # nothing else lies in the home when nbval executes
    nbformat.write(document, notebook)
    assert main(["notebooks", "--check"]) == 0
    assert "story.ipynb: 3 passed" in capfd.readouterr().out
    document.cells[3].outputs[0].data["text/plain"] = "2"
    nbformat.write(document, notebook)
    assert main(["notebooks", "--check"]) == 1
    error = capfd.readouterr().err
    assert "1 failed, 2 passed" in error and "story.ipynb" in error
    (kept,) = (paths.project() / "build").glob("story-*")
    kept.rmdir()


def test_the_warm_up_s_notebook_runs_where_reflections_give_no_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    notebook, output = paths.project() / "notebooks" / "02_sft_warmup.ipynb", tmp_path / "run" / "02.ipynb"
    little = "data.trajectories=8 reflector.steps=2 policy.steps=2 evaluation.tasks=2 evaluation.repeats=1"
    assert main(["execute", str(notebook), str(output), "-p", "overrides", f"teacher.tells=hint {little}"]) == 0
    cells = nbformat.read(output, as_version=4).cells
    table = [cell for cell in cells if cell.cell_type == "code"][-1].outputs[0].data["text/plain"]
    assert "reflect_sft" in table and "follow" not in table
