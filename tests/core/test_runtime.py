import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from reflect_rl.core import config, paths, runtime
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.runtime import progress
from reflect_rl.lm import arithmetic

# --- threads ---


def test_threads_are_the_librarys_own_number(monkeypatch):
    monkeypatch.delenv("REFLECT_RL_THREADS", raising=False)
    assert config.threads() == 1
    monkeypatch.setenv("REFLECT_RL_THREADS", "3")
    assert config.threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "99999"])
def test_an_odd_number_of_threads_is_named(monkeypatch, text):
    monkeypatch.setenv("REFLECT_RL_THREADS", text)
    with pytest.raises(ReflectRLError, match=f"REFLECT_RL_THREADS='{text}' should be a whole number"):
        config.threads()


def test_every_way_of_starting_computes_with_as_many_threads():
    """In Jupyter torch took all cores, in `make reproduce` one: other digits for the same seed."""
    code = "import torch\nfrom reflect_rl.lm.arithmetic import fix_arithmetic\nfix_arithmetic()\nprint(torch.get_num_threads())"
    environment = {k: v for k, v in os.environ.items() if k != "REFLECT_RL_THREADS"} | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


# --- generators ---


def draws():
    numbers = [random.random(), np.random.random(), torch.rand(()).item()]
    return numbers + ([torch.rand((), device="cuda").item()] if torch.cuda.is_available() else [])


def test_equal_seeds_draw_equal_numbers_and_others_others():
    found = []
    for seed in (5, 5, 6):
        with arithmetic.seeded(seed):
            found.append(draws())
    assert found[0] == found[1] and not set(found[0]) & set(found[2])


def test_the_global_generators_are_left_as_they_were():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    before = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    with pytest.raises(ZeroDivisionError), arithmetic.seeded(5):
        draws()
        _ = 1 / 0
    assert draws() == before


def test_gpu_generators_are_seeded_and_restored_with_the_others(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"state {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: seen.append((state, device)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seen.append)
    with arithmetic.seeded(5):
        assert seen == [5]
    assert seen == [5, ("state 0", 0), ("state 1", 1)]


# --- provenance ---


def test_provenance_is_json_and_names_versions_threads_and_machine():
    found = json.loads(json.dumps(runtime.provenance()))
    assert found["packages"]["torch"].startswith("2.")
    assert found["cpu_cores"] >= 1 and found["threads"] >= 1
    assert len(found["git_commit"]) in (0, 40)  # an exported tree has no repository


def test_without_git_or_a_repository_nothing_is_said_of_either(monkeypatch, tmp_path):
    def said():
        found = runtime.provenance()
        return found["git_commit"], found["git_clean"]

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert said() == ("", None)
    monkeypatch.setattr(paths, "project", lambda: tmp_path)
    assert said() == ("", None)


def test_what_runs_write_themselves_does_not_make_a_tree_unclean(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "project", lambda: tmp_path)
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "a"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    for name, is_clean in (("results", True), ("figures", True), ("library", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("new")
        assert runtime.provenance()["git_clean"] is is_clean, name


def test_memory_is_measured(monkeypatch):
    assert 10 < runtime.peak_memory_mb() < 1e6
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.peak_gpu_memory_mb() == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert runtime.peak_gpu_memory_mb() == 3


# --- paths and progress ---


def test_products_go_below_home_and_caches_are_shared(monkeypatch, tmp_path):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    assert paths.runs("smoke", "game") == tmp_path / "runs" / "smoke" / "game"
    assert paths.cache("game") == tmp_path / "data" / "game"
    assert paths.configs() == paths.project() / "configs" and paths.weights() == paths.project() / "weights"


def test_the_project_is_found_from_its_folders_and_from_elsewhere(monkeypatch, tmp_path):
    root = paths.project()
    for folder in (root / "tests" / "core", tmp_path):
        monkeypatch.chdir(folder)
        assert paths.project() == root


@pytest.mark.parametrize(("variable", "drawn"), [("1", False), ("0", True), ("", True)])
def test_bars_can_be_turned_off(monkeypatch, capsys, variable, drawn):
    monkeypatch.setenv("TQDM_DISABLE", variable)
    assert list(progress([1, 2], "work")) == [1, 2]
    assert ("work" in capsys.readouterr().err) == drawn
