import math
import os

import pytest
import torch

from reflect_rl.core.checkpoints import Checkpoints, optimizer_tensors, restore_optimizer
from reflect_rl.core.errors import ReflectRLError

TENSORS = {
    "policy": {"a": torch.tensor([0.1, math.nan, -math.inf]), "b": torch.arange(6).reshape(2, 3).T},
    "optimizer": {"0.step": torch.tensor(7.0), "0.exp_avg": torch.zeros(2, dtype=torch.bfloat16)},
}
STATE = {"update": 3, "loss": 0.1 + 0.2, "tiny": 5e-324, "none": None, "nan": math.nan, "rows": [{"x": 1.0}]}


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


def test_checkpoint_comes_back_exactly(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
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
    checkpoints = Checkpoints(tmp_path)
    for step in (8, 9, 10):  # as text, step9 would be the newest
        checkpoints.save(step, {"policy": {"a": torch.tensor([float(step)])}}, {"update": step})
    assert [p.name for p in tmp_path.iterdir()] == ["step10"]
    tensors, state = checkpoints.load()
    assert (tensors["policy"]["a"].item(), state["update"]) == (10, 10)


def test_newest_of_several_is_by_number(tmp_path):
    for step in (9, 10):
        Checkpoints(tmp_path / str(step)).save(step, {"policy": {}}, {"update": step})
        os.replace(tmp_path / str(step) / f"step{step}", tmp_path / f"step{step}")
    assert Checkpoints(tmp_path).load()[1]["update"] == 10


def test_checkpoint_that_fails_half_way_leaves_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, TENSORS, {"update": 1})
    with pytest.raises(TypeError):
        checkpoints.save(2, TENSORS, {"update": object()})
    assert checkpoints.load()[1] == {"update": 1}
    checkpoints.save(2, TENSORS, {"update": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["step2"]


@pytest.mark.parametrize("name", ["policy.safetensors", "state.json"])
def test_damaged_checkpoint_is_named_with_the_way_out(tmp_path, name):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, TENSORS, STATE)
    path = tmp_path / "checkpoints" / "step3" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReflectRLError) as error:
        checkpoints.load()
    assert str(tmp_path / "checkpoints" / "step3") in str(error.value)
    assert f"delete {tmp_path / 'checkpoints'} to train anew" in str(error.value)


@pytest.mark.parametrize("content", ["{}", "[]", '{"tensors": ["other"], "state": {}}', '{"tensors": []}'])
def test_a_state_of_another_form_is_a_damaged_checkpoint(tmp_path, content):
    Checkpoints(tmp_path).save(3, TENSORS, STATE)
    (tmp_path / "step3" / "state.json").write_text(content)
    (tmp_path / "steps of mine").mkdir()
    with pytest.raises(ReflectRLError, match="step3 is damaged .* delete .* to train anew"):
        Checkpoints(tmp_path).load()


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
    restore_optimizer(restored, {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})
    without, fresh = model()
    without.load_state_dict(one.state_dict())
    for x in (4.0, 5.0):
        for layer, own in ((one, optimizer), (other, restored), (without, fresh)):
            step(layer, own, x)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    assert not torch.equal(one.weight, without.weight)  # so the state did matter
