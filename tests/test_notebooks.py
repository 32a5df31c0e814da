"""The committed notebooks are complete, comparable and the same on every machine; nbval compares outputs."""

import ast
import copy

import nbformat
import papermill
import pytest

from reflect_rl import config, orchestrate, paths

NAMES = [
    "00_quickstart",
    "01_data_generation",
    "02_sft_warmup",
    "03_online_rl",
    "04_curriculum_ablations",
    "05_baseline_comparison",
    "06_prompted_models",
]
NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


def test_format_is_valid_and_current(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True)  # from 4.5 on cells have ids


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_known_typed_and_those_of_smoke(path):
    orchestrate.check_parameters(path, {})
    names = list(papermill.inspect_notebook(str(path)))
    assert set(names) <= set(orchestrate.CONFIG_PARAMETERS)
    (cell,) = (c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", ()))
    defaults = {s.targets[0].id: ast.literal_eval(s.value) for s in ast.parse(cell.source).body}
    assert list(defaults) == names, "the parameters cell assigns each parameter once and nothing else"
    for name, value in defaults.items():
        assert type(value) is (int if name == "seed" else str), name
    assert defaults["profile"] == "smoke"
    config.load(**defaults)


def test_every_code_cell_was_executed_in_order(notebook):
    # nbval compares nothing where the count is missing
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_and_nothing_on_stderr(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_no_path_of_a_machine(notebook):
    assert orchestrate.absolute_paths(notebook) == []
    assert not [cell.source for cell in notebook.cells if orchestrate.ABSOLUTE_PATH.search(cell.source)]


def test_metadata_says_nothing_of_a_machine(notebook):
    tidied = copy.deepcopy(notebook)
    orchestrate.tidy(tidied)
    assert notebook == tidied
