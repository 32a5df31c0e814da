import gzip
import json
import math
import multiprocessing
import os
import time

import pandas as pd
import pytest
import torch

from reflect_rl import runs
from reflect_rl.errors import ReflectRLError


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- files ---


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    runs.write_text(path, "old")
    runs.write_text(path, "new")
    assert contents(tmp_path) == {"new/folder/a.txt": b"new"}
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["replace", "chmod"])
def test_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.txt"
    runs.write_text(path, "old")

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fails)
        with pytest.raises(KeyboardInterrupt):
            runs.write_text(path, "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_full_disk_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    runs.write_text(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(ReflectRLError, match=r"cannot write .*a\.txt \(No space left on device\); free the place"):
            runs.write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReflectRLError, match="cannot write .*REFLECT_RL_HOME"):
        runs.write_json(tmp_path / "file" / "a.json", {})


def test_json_comes_back(tmp_path):
    value = {"a": [1, 2.5, None], "b": "ü"}
    runs.write_json(tmp_path / "a.json", value)
    assert runs.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [None, "{", ""])
def test_unreadable_json_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(ReflectRLError, match=r"a\.json cannot be read"):
        runs.read_json(tmp_path / "a.json")


def test_binary_rubbish_instead_of_json_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReflectRLError, match=r"a\.json cannot be read"):
        runs.read_json(tmp_path / "a.json")


FRAME = pd.DataFrame({"text": ["a", "", "NA"], "number": [0.1, math.nan, 3.0], "whole": [1, 2, 3]})


def test_compressed_csv_has_the_same_bytes_twice(tmp_path, monkeypatch):
    runs.write_csv(tmp_path / "a.csv.gz", FRAME)
    monkeypatch.setattr("time.time", lambda: 2e9)  # the clock must not enter the file
    runs.write_csv(tmp_path / "b.csv.gz", FRAME)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"text,number,whole\na,0.1,1\n,,2\nNA,3.0,3\n"


def test_csv_comes_back_with_its_numbers_and_words(tmp_path):
    runs.write_csv(tmp_path / "a.csv.gz", FRAME)
    back = runs.read_csv(tmp_path / "a.csv.gz")
    assert back.text[0] == "a" and back.text[2] == "NA"
    assert back.number[0] == 0.1 and math.isnan(back.number[1])
    assert back.whole.tolist() == [1, 2, 3]


def test_damaged_csv_is_named(tmp_path):
    path = tmp_path / "a.csv.gz"
    runs.write_csv(path, pd.DataFrame({"x": range(1000)}))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ReflectRLError, match=r"a\.csv\.gz cannot be read .*; delete it and run again"):
        runs.read_csv(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(ReflectRLError, match=r"a\.csv\.gz cannot be read"):
        runs.read_csv(path)


# --- claim ---


def test_claim_records_the_settings_and_accepts_equal_ones(tmp_path):
    settings = {"rl": {"horizons": (15, 20), "rate": 1e-3}}
    for _ in range(2):
        with runs.claim(tmp_path / "run", settings):
            pass
    assert runs.read_json(tmp_path / "run" / "config.json") == {"rl": {"horizons": [15, 20], "rate": 0.001}}


def test_claim_refuses_other_settings_names_them_and_touches_nothing(tmp_path):
    folder = tmp_path / "run"
    with runs.claim(folder, {"seed": 0, "rl": {"rate": 1e-3, "clip": 0.1, "old": 1}}):
        runs.write_text(folder / "product.txt", "kept")
    before = contents(folder)
    entered = []
    with pytest.raises(ReflectRLError) as error:
        with runs.claim(folder, {"seed": 0, "rl": {"rate": 1e-2, "clip": 0.1, "new": 2}}):
            entered.append(1)
    assert str(error.value).startswith(
        f"{folder} was made with other settings (rl.new was None, is 2; rl.old was 1, is None; "
        "rl.rate was 0.001, is 0.01); delete that folder"
    )
    assert not entered
    assert contents(folder) == before


def test_claim_is_released_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with runs.claim(tmp_path, {}):
            _ = 1 / 0
    with runs.claim(tmp_path, {}):
        pass


def visit(folder, name, both_ready):
    both_ready.wait()
    with runs.claim(folder / "run", {"seed": 0}):
        for word in ("in", "out"):
            with open(folder / "diary", "a") as diary:
                diary.write(f"{word} {name}\n")
            time.sleep(0.2)


def test_claim_lets_two_processes_in_one_after_the_other(tmp_path):
    """Interleaved, both would come in before one goes out."""
    context = multiprocessing.get_context("fork")  # quick: nothing is imported again
    both_ready = context.Barrier(2, timeout=60)
    both = [context.Process(target=visit, args=(tmp_path, name, both_ready)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=60)
    assert [process.exitcode for process in both] == [0, 0]
    diary = [line.split() for line in (tmp_path / "diary").read_text().splitlines()]
    assert [word for word, _ in diary] == ["in", "out", "in", "out"]
    assert diary[0][1] == diary[1][1] != diary[2][1] == diary[3][1]


# --- checkpoints ---


TENSORS = {
    "policy": {"a": torch.tensor([0.1, math.nan, -math.inf]), "b": torch.arange(6).reshape(2, 3).T},
    "optimizer": {"0.step": torch.tensor(7.0), "0.exp_avg": torch.zeros(2, dtype=torch.bfloat16)},
}
STATE = {"update": 3, "loss": 0.1 + 0.2, "tiny": 5e-324, "none": None, "nan": math.nan, "rows": [{"x": 1.0}]}


def test_no_checkpoint_is_none(tmp_path):
    assert runs.Checkpoints(tmp_path / "none").load() is None


def test_checkpoint_comes_back_exactly(tmp_path):
    checkpoints = runs.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, TENSORS, STATE)
    tensors, state = checkpoints.load()
    assert tensors.keys() == TENSORS.keys()
    for name, group in TENSORS.items():
        assert tensors[name].keys() == group.keys()
        for key, tensor in group.items():
            assert tensors[name][key].dtype == tensor.dtype
            torch.testing.assert_close(tensors[name][key], tensor, rtol=0, atol=0, equal_nan=True)
    assert math.isnan(state.pop("nan"))
    assert state == {key: value for key, value in STATE.items() if key != "nan"}


def test_newest_checkpoint_wins_and_the_one_before_goes(tmp_path):
    checkpoints = runs.Checkpoints(tmp_path)
    for step in (8, 9, 10):  # as text, step9 would be the newest
        checkpoints.save(step, {"policy": {"a": torch.tensor([float(step)])}}, {"update": step})
    assert [p.name for p in tmp_path.iterdir()] == ["step10"]
    tensors, state = checkpoints.load()
    assert (tensors["policy"]["a"].item(), state["update"]) == (10, 10)


def test_newest_of_several_is_by_number(tmp_path):
    for step in (9, 10):
        runs.Checkpoints(tmp_path / str(step)).save(step, {"policy": {}}, {"update": step})
        os.replace(tmp_path / str(step) / f"step{step}", tmp_path / f"step{step}")
    assert runs.Checkpoints(tmp_path).load()[1]["update"] == 10


def test_checkpoint_that_fails_half_way_leaves_the_one_before(tmp_path):
    checkpoints = runs.Checkpoints(tmp_path)
    checkpoints.save(1, TENSORS, {"update": 1})
    with pytest.raises(TypeError):
        checkpoints.save(2, TENSORS, {"update": object()})
    assert checkpoints.load()[1] == {"update": 1}
    checkpoints.save(2, TENSORS, {"update": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["step2"]


@pytest.mark.parametrize("name", ["policy.safetensors", "state.json"])
def test_damaged_checkpoint_is_named_with_the_way_out(tmp_path, name):
    checkpoints = runs.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, TENSORS, STATE)
    path = tmp_path / "checkpoints" / "step3" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReflectRLError) as error:
        checkpoints.load()
    assert str(tmp_path / "checkpoints" / "step3") in str(error.value)
    assert f"delete {tmp_path / 'checkpoints'} to train anew" in str(error.value)


def test_restored_optimizer_goes_on_bit_by_bit():
    def model():
        layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for i, parameter in enumerate(layer.parameters()):
                parameter.copy_(torch.linspace(-1, 1 + i, parameter.numel()).reshape(parameter.shape))
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0.0)

    def step(layer, optimizer, x):
        optimizer.zero_grad()
        layer(torch.tensor([[x, 1.0, -x]])).pow(2).sum().backward()
        optimizer.step()

    one, optimizer = model()
    for x in (1.0, 2.0, 3.0):
        step(one, optimizer, x)
    other, restored = model()
    other.load_state_dict(one.state_dict())
    runs.restore_optimizer(restored, {k: v.clone() for k, v in runs.optimizer_tensors(optimizer).items()})
    without, fresh = model()
    without.load_state_dict(one.state_dict())
    for x in (4.0, 5.0):
        for layer, own in ((one, optimizer), (other, restored), (without, fresh)):
            step(layer, own, x)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    assert not torch.equal(one.weight, without.weight)  # so the state did matter


# --- provenance ---


def test_provenance_is_json_and_names_versions():
    found = json.loads(json.dumps(runs.provenance()))
    assert found["packages"]["torch"].startswith("2.")
    assert found["cpu_cores"] >= 1 and isinstance(found["git_clean"], bool)
