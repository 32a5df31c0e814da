"""The models behind the players: their outputs, weights, and two adapters on one base."""

import contextlib
import dataclasses

import pytest
import torch
from grid_game import LEGAL, PROMPTS, QUESTIONS, SIZE, adapter, shake
from peft import PeftModel

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import models
from reflect_rl.lm.models import pad
from reflect_rl.lm.players import Encoder, Policy, Reflector
from reflect_rl.lm.scratch import from_scratch


def test_query_positions_are_those_of_the_whole(model, tokenizer):
    """States and gradients, whether or not the uppermost layer leaves the others out."""
    rows = Encoder(tokenizer, 96)(QUESTIONS[:5])
    ids, ends = pad(rows, tokenizer.pad_token_id), torch.tensor([len(row) - 1 for row in rows])
    positions = torch.stack([ends - 4, ends - 3, ends, ends], dim=1)  # one twice, as where completions differ in length
    weight = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(0))

    def gradients(states):
        model.zero_grad()
        (states * weight).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[torch.arange(5)[:, None], positions]
    found = models.hidden_states(model, ids, positions, use_cache=False)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    expected, measured = gradients(whole), gradients(found)
    assert expected.keys() == measured.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(measured[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    model.zero_grad()


def test_weights_are_saved_and_loaded(model, tokenizer, tmp_path):
    path = tmp_path / "weights.safetensors"
    models.save_weights(model, "policy", path)
    n_conv = getattr(model.config, "layer_types", ["attention"]).count("conv")
    other = from_scratch(dataclasses.replace(SIZE, n_conv=n_conv), tokenizer, 1)
    models.load_weights(other, "policy", path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReflectRLError, match=r"is damaged \(its checksum differs\); delete it"):
        models.load_weights(other, "policy", path)


def test_weights_of_another_model_are_refused(model, tokenizer, tmp_path):
    path = tmp_path / "weights.safetensors"
    models.save_weights(model, "policy", path)
    other = from_scratch(dataclasses.replace(SIZE, n_layer=1), tokenizer, 0)
    with pytest.raises(ReflectRLError, match="weights of another model; delete it"):
        models.load_weights(other, "policy", path)


def test_other_weights_are_held_and_own_ones_come_back_after_an_error_too(model):
    own = models.copies(model, "policy")
    other = {name: weight + 1 for name, weight in own.items()}
    for error in (None, ZeroDivisionError):
        with contextlib.suppress(ZeroDivisionError), models.holding(model, "policy", other):
            assert all(torch.equal(other[name], p) for name, p in models.weights(model, "policy").items())
            if error:
                raise error
        assert all(torch.equal(own[name], p) for name, p in models.weights(model, "policy").items())


def test_in_main_memory_eight_prompts_go_through_a_model_at_a_time_and_long_ones_one_by_one_backward(model):
    assert models.rows_that_fit(model, 96, most=64, backward=True) == 8
    assert models.rows_that_fit(model, 96, most=4) == 4
    assert models.rows_that_fit(model, 768, most=64) == 8
    assert models.rows_that_fit(model, 768, most=64, backward=True) == 2
    assert models.rows_that_fit(model, 5000, most=64, backward=True) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backward", [False, True])
def test_on_a_gpu_memory_decides(on_base, tokenizer, backward, monkeypatch):
    model = models.build(on_base, tokenizer, 0)["policy"]
    assert models.rows_that_fit(model, 176, most=100, backward=backward) == 64
    few = 40 * 176 * 32 * 4  # bytes, of which each of two layers takes some
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (few, few))
    monkeypatch.setattr(torch.cuda, "memory_reserved", torch.cuda.memory_allocated)
    assert models.rows_that_fit(model, 176, most=100, backward=backward) in (1, 2, 4, 8)
    assert all(p.grad is None for p in model.parameters())


# --- two adapters on one base ---


@pytest.fixture
def players(on_base, tokenizer):
    """A policy and a reflector on one base."""
    built = models.build(on_base, tokenizer, 0)
    return Policy(built["policy"], tokenizer, 176), Reflector(built["reflector"], tokenizer, 176, 64)


def test_both_players_share_one_base(players):
    policy, reflector = players
    assert isinstance(policy.model, PeftModel)
    bases = (models.causal_lm(p.model) for p in players)
    pointers = [{k: v.data_ptr() for k, v in lm.named_parameters() if "lora" not in k} for lm in bases]
    assert pointers[0] == pointers[1] and len(pointers[0]) > 10
    names = [set(models.weights(policy.model, player)) for player in models.PLAYERS]
    assert names[0] and names[1] and not names[0] & names[1]
    assert all("lora" in name for name in names[0] | names[1])


@torch.no_grad()
def test_adapters_speak_with_voices_of_their_own(players):
    policy, _ = players
    before = policy.log_probs(PROMPTS, LEGAL)
    shake(policy.model, "reflector")
    torch.testing.assert_close(policy.log_probs(PROMPTS, LEGAL), before, rtol=0, atol=0)
    shake(policy.model, "policy")
    assert not torch.allclose(policy.log_probs(PROMPTS, LEGAL), before, atol=1e-4)


def test_policy_loss_reaches_the_policy_adapter_only(players):
    policy, reflector = players
    shake(policy.model, "policy")
    shake(policy.model, "reflector")
    reflector.reflect(QUESTIONS[:2])  # leaves the reflector's adapter active
    policy.log_probs(PROMPTS, LEGAL)[:, 0].sum().backward()
    touched = {name for name, p in policy.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == set(models.weights(policy.model, "policy"))


def test_a_step_of_the_policy_leaves_base_and_reflector_as_they_are(players):
    policy, reflector = players
    model = policy.model
    shake(model, "reflector")
    texts = reflector.reflect(QUESTIONS[:6])
    before = {k: v.clone() for k, v in model.named_parameters() if ".policy." not in k}
    own = adapter(model, "policy")
    models.activate(model, "policy")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    policy.log_probs(PROMPTS, LEGAL)[:, 0].sum().backward()
    optimizer.step()
    assert any(not torch.equal(v, own[k]) for k, v in models.weights(model, "policy").items())
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters() if k in before)
    reflector.memory.clear()
    assert reflector.reflect(QUESTIONS[:6]) == texts
