"""Bases on this machine: what is refused, types and adapters, and that two players on one are two models."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl.core.config import Lora, ModelConfig, lora
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import models, pretrained
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.bases import adapters, load_base


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("REFLECT_RL_DOWNLOAD", raising=False)


def fresh(settings, seed=0):
    return adapters(settings, models.PLAYERS, seed)


@pytest.mark.parametrize("base", ["no/such-model", "/no/such/folder"])
def test_a_model_that_is_not_there(base):
    with pytest.raises(ReflectRLError, match=r"no pretrained model at model.base=.*REFLECT_RL_DOWNLOAD=1"):
        load_base(ModelConfig(base=base))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    with seeded(0):
        settings = GPT2Config(vocab_size=80, n_positions=64, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(path)
    return path


def test_a_base_too_large_for_the_memory(folder, monkeypatch):
    monkeypatch.setattr(pretrained.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(ReflectRLError, match="GB are free; take a smaller one, model.dtype=bfloat16"):
        load_base(ModelConfig(base=str(folder), context=64))


def test_a_container_may_have_less_memory_than_its_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "CONTAINER", tmp_path / "memory.max")
    for content, small in (("max", False), ("10000", True)):
        (tmp_path / "memory.max").write_text(f"{content}\n")
        assert (pretrained.free_memory() == 10_000) == small
    with pytest.raises(ReflectRLError, match="GB are free"):
        load_base(ModelConfig(base=str(folder), context=64))


def test_a_base_that_reads_less_than_is_asked_for(folder):
    with pytest.raises(ReflectRLError, match="reads 64 tokens, fewer than the context of 96; lower model.context"):
        load_base(ModelConfig(base=str(folder), context=96))


def test_a_damaged_base_is_one_clear_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ReflectRLError, match=r"no pretrained model at model.base=.*cut' \(.+\); give a folder"):
        load_base(ModelConfig(base=str(tmp_path / "cut"), context=64))


def test_a_home_is_written_as_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_base(ModelConfig(base=f"~/{folder.name}", context=64)).config.n_embd == 32


def test_a_base_decodes_greedily_whatever_its_own_settings_are(folder):
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 9.0}))
    loaded = load_base(ModelConfig(base=str(folder), context=64))
    assert loaded.generation_config.repetition_penalty in (None, 1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can quantise")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantisation_without_a_gpu(folder, bits):
    with pytest.raises(ReflectRLError, match=f"model.quantization={bits} needs a GPU and bitsandbytes"):
        load_base(ModelConfig(base=str(folder), context=64, quantization=bits))


def test_types_and_lora_by_name(folder):
    assert load_base(ModelConfig(base=str(folder), context=64, dtype="bfloat16")).dtype == torch.bfloat16
    assert load_base(ModelConfig(base=str(folder), context=64, dtype="float32")).dtype == torch.float32
    assert lora("paper") == Lora(16, 8, 0.0)
    assert lora("authors") == Lora(64, 16, 0.1)
    for name, settings in (("paper", (16, 8, 0.0)), ("authors", (64, 16, 0.1)), ("4/8/0.5", (4, 8, 0.5))):
        made = fresh(ModelConfig(base=str(folder), context=64, lora=name), 0).peft_config
        for player in models.PLAYERS:
            assert (made[player].r, made[player].lora_alpha, made[player].lora_dropout) == settings


def test_a_fresh_model_with_dropout_says_the_same_twice(folder):
    model = fresh(ModelConfig(base=str(folder), context=64, lora="authors"), 0)
    for weight in models.weights(model, "policy").values():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    models.activate(model, "policy")
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_lora_targets(folder):
    few = fresh(ModelConfig(base=str(folder), context=64), 0)
    many = fresh(ModelConfig(base=str(folder), context=64, lora_targets="all-linear"), 0)
    some = fresh(ModelConfig(base=str(folder), context=64, lora_targets="c_attn,c_fc"), 0)
    counts = [len(models.weights(model, "policy")) for model in (few, some, many)]
    assert counts[0] < counts[1] < counts[2]


@torch.no_grad()
def test_each_player_is_the_model_that_its_adapter_alone_would_be(folder):
    """Outputs of two adapters on one base against two separate models with one adapter merged into each."""
    ids = torch.arange(40).reshape(2, 20)
    settings = ModelConfig(base=str(folder), context=64, dtype="float32", lora="8/16/0")
    shared = fresh(settings, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for player in models.PLAYERS:
        for weight in models.weights(shared, player).values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    outputs = {}
    for player in (*models.PLAYERS, *models.PLAYERS):  # and back again
        models.activate(shared, player)
        logits = shared(input_ids=ids).logits
        if player in outputs:
            assert torch.equal(outputs[player], logits)
        outputs[player] = logits
    assert not torch.allclose(outputs["policy"], outputs["reflector"], atol=1e-2)
    for player in models.PLAYERS:
        alone = fresh(settings, 0).eval()
        models.activate(alone, player)
        for mine, theirs in zip(
            models.weights(alone, player).values(), models.weights(shared, player).values(), strict=True
        ):
            mine.copy_(theirs)
        separate = alone.merge_and_unload(adapter_names=[player])
        torch.testing.assert_close(separate(input_ids=ids).logits, outputs[player], rtol=0, atol=1e-4)


def test_a_base_may_be_cut_to_its_lowest_layers(on_base):
    whole, cut = load_base(on_base), load_base(replace(on_base, layers=1))
    assert (whole.config.n_layer, cut.config.n_layer) == (2, 1)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        states = whole.transformer(ids, output_hidden_states=True).hidden_states[1]  # behind the first layer
        ours = cut.transformer(ids).last_hidden_state
    torch.testing.assert_close(ours, whole.transformer.ln_f(states))
    with pytest.raises(ReflectRLError, match="has 2 layers, fewer than model.layers=3"):
        load_base(replace(on_base, layers=3))
