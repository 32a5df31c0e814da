"""The command line: notebooks through papermill, graphs through Snakemake, one line for every error."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from reflect_rl import config, orchestrate, paths
from reflect_rl.__main__ import main
from reflect_rl.errors import ReflectRLError

RAISE = "from reflect_rl.errors import ReflectRLError\nraise ReflectRLError('no cheese; buy some')"


@pytest.fixture
def write(tmp_path):
    """Writes a notebook of these code cells, the first of which is tagged `parameters`."""

    def write(*sources: str, tagged: int = 1) -> Path:
        cells = [new_markdown_cell("A notebook."), *map(new_code_cell, sources)]
        for cell in cells[1 : 1 + tagged]:
            cell.metadata.tags = ["parameters"]
        path = tmp_path / "story.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": orchestrate.KERNELSPEC}), path)
        return path

    return write


def outputs(path: Path) -> str:
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bars_leave_no_widgets_in_an_executed_notebook(write, tmp_path):
    # a bar in a notebook sends thousands of messages, more than nbval waits for
    notebook = write("cheese = 'none'", "from reflect_rl.runs import progress\nprint(sum(progress(range(3), 'work')))")
    output = tmp_path / "story.ipynb"
    assert main(["execute", str(notebook), str(output)]) == 0
    cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    assert [(o.output_type, o.get("text")) for cell in cells for o in cell.outputs] == [("stream", "3\n")]


def test_success_leaves_the_executed_notebook_alone(write, tmp_path):
    notebook = write(
        "cheese = 'none'\npieces = 1", "import os, sys\nprint(cheese, pieces * 2, os.getcwd(), sys.prefix)"
    )
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(notebook), str(output), "-p", "cheese", "brie", "-p", "pieces", "2"]) == 0
    assert outputs(output) == f"brie 4 {paths.project()} {sys.prefix}\n"
    assert files(output.parent) == ["story.ipynb"]


def test_kernel_is_our_own_whatever_is_registered(write, tmp_path, monkeypatch):
    for folder in ("user/kernels/python3", "path/kernels/python3"):
        spec = tmp_path / folder / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["false"], "display_name": "Hijacked", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    orchestrate.execute(write("x = 1", "import sys\nprint(sys.executable)"), tmp_path / "out.ipynb", {})
    assert outputs(tmp_path / "out.ipynb") == f"{sys.executable}\n"
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "path")


def test_reflect_rl_error_in_a_cell_is_one_line(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", RAISE)), str(output)]) == 2
    assert capfd.readouterr().err == "error: no cheese; buy some\n"
    assert files(output.parent) == ["story.failed.ipynb"]


def test_other_failure_says_where_the_notebook_is(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", "print('before')", "1 / 0")), str(output)]) == 1
    failed = output.with_suffix(".failed.ipynb")
    error = f"error: ZeroDivisionError: division by zero (the notebook so far: {failed})\n"
    assert capfd.readouterr().err == error
    assert "before" in outputs(failed)
    assert files(output.parent) == [failed.name]


def test_dead_kernel_is_a_failure(write, tmp_path, capfd):
    output = tmp_path / "run" / "story.ipynb"
    assert main(["execute", str(write("x = 1", "import os\nos._exit(1)")), str(output)]) == 1
    assert "error: DeadKernelError: Kernel died" in capfd.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("tagged", "given", "message"),
    [
        (1, ["sed", "3"], "unknown parameter of story.ipynb 'sed'; choose one of: profile, seed"),
        (2, ["seed", "3"], "has 2 cells tagged 'parameters'; tag exactly one"),
        (0, ["seed", "3"], "has 0 cells tagged 'parameters'; tag exactly one"),
        (1, ["profile", "no-such"], "unknown profile 'no-such'; choose one of: "),
        (1, ["seed", "first"], "seed 'first'"),
        (1, ["seed", "[1, 2]"], "parameter seed='[1, 2]' is not a single YAML value"),
        (1, ["seed", "{"], "parameter seed='{' is not a single YAML value"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel_starts(write, tmp_path, capfd, monkeypatch, tagged, given, message):
    monkeypatch.setattr(orchestrate.papermill, "execute_notebook", lambda *a, **k: pytest.fail("kernel started"))
    notebook = write("profile = 'smoke'\nseed = 0", "print(seed)", tagged=tagged)
    assert main(["execute", str(notebook), str(tmp_path / "out.ipynb"), "-p", *given]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert files(tmp_path) == ["story.ipynb"]


def test_missing_and_broken_notebooks_are_named(tmp_path, capfd):
    assert main(["execute", str(tmp_path / "no.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    assert "error: no notebook " in capfd.readouterr().err
    (tmp_path / "text.ipynb").write_text("not JSON")
    assert main(["execute", str(tmp_path / "text.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    assert "is not a notebook that can be read" in capfd.readouterr().err


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
    assert orchestrate.parse_value("name", text) == value


def test_tidy_keeps_tags_and_nothing_else():
    cell = new_code_cell("x = 1", metadata={"tags": ["parameters"], "papermill": {"duration": 1}})
    notebook = new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/home/me/x.ipynb"}})
    orchestrate.tidy(notebook)
    assert notebook.metadata == {"kernelspec": orchestrate.KERNELSPEC, "language_info": {"name": "python"}}
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}


def test_absolute_paths_are_found_in_text_only():
    texts = {
        "text/plain": "saved in '/home/me/runs/x.csv'",
        "text/html": "<td>a/opt/b</td>",
        "image/png": "/tmp/",
    }
    cell = new_code_cell(outputs=[new_output("display_data", texts), new_output("stream", text="at 1/2 runs/a")])
    assert orchestrate.absolute_paths(new_notebook(cells=[cell])) == ["/home/me/runs/x.csv"]


@pytest.mark.slow
def test_notebooks_in_place_then_compared(write, tmp_path, monkeypatch, capfd):
    source = "import os\nprint(os.listdir(os.environ['REFLECT_RL_HOME']))"
    notebook = write("seed = 0", source, "1 + seed")
    monkeypatch.setattr(orchestrate.paths, "notebooks", lambda: tmp_path)
    assert main(["notebooks"]) == 0
    assert outputs(notebook) == "['story.running.ipynb']\n"
    document = nbformat.read(notebook, 4)
    tidied = nbformat.read(notebook, 4)
    orchestrate.tidy(tidied)
    assert document == tidied

    document.cells[2].outputs[0].text = "[]\n"  # nothing else lies in the home when nbval executes
    nbformat.write(document, notebook)
    assert main(["notebooks", "--check"]) == 0
    assert "story.ipynb: 3 passed" in capfd.readouterr().out
    document.cells[3].outputs[0].data["text/plain"] = "2"
    nbformat.write(document, notebook)
    assert main(["notebooks", "--check"]) == 1
    error = capfd.readouterr().err
    assert "1 failed, 2 passed" in error and "error: failed: story.ipynb" in error
    (kept,) = (paths.project() / "build").glob("story-*")
    kept.rmdir()


def test_report_follows_snakemake():
    report = orchestrate.SnakemakeReport()
    lines = """
total             4
localrule one:
    input: runs/smoke/a/in.ipynb
    output: runs/smoke/a/x.ipynb
    log: runs/smoke/a/x.log
    jobid: 3
rule two:
    output: runs/smoke/b/y.ipynb
    jobid: 2
Finished jobid: 3 (Rule: one)
1 of 4 steps (25%) done
Error in rule two:
    message: None
    jobid: 2
    output: runs/smoke/b/y.ipynb
    log: runs/smoke/b/y.log (check log file(s) for error details)
    shell:
        output: not a field
localrule tune:
    jobid: 0
"""
    for line in lines.splitlines():
        report.read(line)
    assert (report.done, report.total) == (1, 4)
    assert report.running == {"0": "tune"}
    assert report.failures == {"smoke/b/y": "runs/smoke/b/y.log"}


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A home with a small Snakefile: `good` takes a moment, `bad` fails while the file `broken` is there."""
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.setattr(config, "profile", lambda name: config.Profile(name, ("taxi",), ("reflect_rl",), (0,)))
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text("""
rule all:
    input: "runs/tiny/good.ipynb", "runs/tiny/bad.ipynb"
rule good:
    output: "runs/tiny/good.ipynb"
    log: "runs/tiny/good.log"
    shell: "echo $OMP_NUM_THREADS > {output}"
rule bad:
    output: "runs/tiny/bad.ipynb"
    log: "runs/tiny/bad.log"
    shell:
        "echo starts > {log}; touch {output};"
        " if [ -e broken ]; then echo 'error: no cheese; buy some' >> {log}; exit 2; fi"
rule sleep:
    output: "runs/tiny/sleep.ipynb"
    shell: "echo $$ > pid; sleep 60; touch {output}"
""")
    return snakefile


def test_failed_job_is_one_line_and_the_next_run_continues(graph, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "broken").touch()
    with pytest.raises(orchestrate.JobsFailed) as failure:
        orchestrate.run_graph("tiny", snakefile=graph)
    log = tmp_path / "runs" / "tiny" / "snakemake.log"
    assert str(failure.value).splitlines() == [
        "tiny/bad: no cheese; buy some",
        f"the whole log: {log}",
    ]
    good = tmp_path / "runs" / "tiny" / "good.ipynb"
    assert good.read_text() == "1\n"
    made = good.stat().st_mtime_ns
    (tmp_path / "broken").unlink()
    orchestrate.run_graph("tiny", snakefile=graph)
    assert good.stat().st_mtime_ns == made
    assert (tmp_path / "runs" / "tiny" / "bad.ipynb").exists()
    orchestrate.run_graph("tiny", snakefile=graph, forcerun=["good"])
    assert good.stat().st_mtime_ns > made


def test_second_run_is_refused_while_one_is_at_work(graph, tmp_path):
    with orchestrate.single_run(tmp_path):
        with pytest.raises(ReflectRLError, match=f"another run is at work .*process {os.getpid()}"):
            orchestrate.run_graph("tiny", snakefile=graph)


def start_sleeping(graph: Path, home: Path) -> subprocess.Popen:
    """A run in a process of its own, as soon as its job sleeps."""
    code = (
        "import sys; from pathlib import Path;"
        "from reflect_rl import __main__ as m, config, orchestrate as o;"
        "config.profile = lambda name: config.Profile(name, (), (), ()); run = o.run_graph;"
        "o.run_graph = lambda *a, **k: run('tiny', target='sleep', snakefile=Path(sys.argv[1]));"
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


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_jobs(graph, tmp_path, stop):
    process = start_sleeping(graph, tmp_path)
    process.send_signal(stop)
    assert "error: interrupted; the same command continues" in process.communicate(timeout=40)[1]
    assert process.returncode == 130
    assert not alive(int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()


@pytest.mark.slow
def test_stale_lock_of_a_killed_run_is_removed(graph, tmp_path):
    process = start_sleeping(graph, tmp_path)
    snakemake = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    with pytest.raises(ReflectRLError, match="another run is at work"):  # Snakemake outlives it
        orchestrate.run_graph("tiny", snakefile=graph)
    os.killpg(snakemake, signal.SIGKILL)
    assert list((tmp_path / ".snakemake" / "locks").iterdir())
    with (tmp_path / ".snakemake" / "reflect_rl.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the kernel has let go of it
    graph.write_text(graph.read_text().replace("sleep 60", "true"))
    orchestrate.run_graph("tiny", target="sleep", snakefile=graph)
    assert (tmp_path / "runs" / "tiny" / "sleep.ipynb").exists()


def plan(folder, *settings):
    """What Snakemake would do with the project's own Snakefile."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.project() / "Snakefile")]
    command += ["--directory", str(folder), "--dry-run", "--printshellcmds", "--config", "profile=laptop", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_graph_of_one_environment(tmp_path):
    text = plan(tmp_path, "env=alfworld")
    assert "runs/laptop/alfworld/05_baseline_comparison.ipynb" in text and "/taxi/" not in text


def test_graph_of_the_laptop_profile(tmp_path):
    """Every variant, warm-up and seed has its notebook, and the shell lines quote what they are given."""
    text = plan(tmp_path)
    profile = config.profile("laptop")
    for env in profile.envs:
        for variant in profile.variants_of(env):
            for seed in profile.seeds:
                ran = f"output: runs/laptop/{env}/{variant}/seed{seed}/03_online_rl.ipynb" in text
                assert ran == config.VARIANTS[variant].rl
        for group in ("reflect_rl", "reflect_rl_no_negatives", "sft_only"):
            assert f"output: runs/laptop/{env}/{group}/seed{profile.seeds[-1]}/02_sft_warmup.ipynb" in text
        for name in ("00_quickstart", "04_curriculum_ablations", "05_baseline_comparison"):
            assert f"output: runs/laptop/{env}/{name}.ipynb" in text
    assert "03_online_rl.ipynb -p profile laptop -p env taxi -p variant sft_rl -p seed 0 > " in text


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in ("reproduce", "tune", "tuned", "execute", "notebooks"))
