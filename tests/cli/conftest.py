"""A small notebook to execute, and a small graph to run."""

import os
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from reflect_rl.cli.notebooks import KERNELSPEC


@pytest.fixture(autouse=True)
def environment():
    """What a command sets for the notebooks that it runs is set back."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def write(tmp_path):
    """Writes a notebook of these code cells, the first of which is tagged `parameters`."""

    def write(*sources: str, tagged: int = 1) -> Path:
        cells = [new_markdown_cell("A notebook."), *map(new_code_cell, sources)]
        for cell in cells[1 : 1 + tagged]:
            cell.metadata.tags = ["parameters"]
        path = tmp_path / "story.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC}), path)
        return path

    return write


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """The Snakefile of a small project: `good` takes a moment, `bad` fails while the file `broken` is there."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "configs" / "tiny.yaml").write_text(
        "envs: [taxi]\nvariants: [reflect_rl]\nseeds: [0]\ntaxi: {rl: {env_steps: 10}}\n"
    )
    monkeypatch.delenv("REFLECT_RL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text("""
rule all:
    input: "runs/tiny/good.ipynb", "runs/tiny/bad.ipynb"
rule good:
    output: "runs/tiny/good.ipynb"
    log: "runs/tiny/good.log"
    message: "the good one"
    shell: "touch {output}"
rule bad:
    output: "runs/tiny/bad.ipynb"
    log: "runs/tiny/bad.log"
    shell:
        "echo starts > {log}; touch {output};"
        " if [ -e broken ]; then echo 'error: no cheese; buy some' >> {log}; exit 2; fi"
rule sleep:
    output: "runs/tiny/sleep.ipynb"
    log: "runs/tiny/sleep.log"
    shell: "echo $$ > pid; sleep 60; touch {output}"
""")
    return snakefile
