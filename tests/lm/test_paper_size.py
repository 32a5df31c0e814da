"""The published model at its full size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.settings import load
from reflect_rl.lm import models
from reflect_rl.lm.tokenizers import load_tokenizer
from reflect_rl.train import data


@pytest.mark.parametrize("env", ["taxi", "alfworld"])
def test_the_published_model_has_a_pinned_revision(env):
    assert len(load("paper", env).model.revision) == 40


# GPT-2 XL as published, but for its weights: the whole of stage 1 and 2 at one step each, measurements left out.
DRY_RUN = """
import json, sys
from reflect_rl.core.identity import stage_dir
from reflect_rl.core.runtime import peak_memory_mb
from reflect_rl.envs.settings import load
from reflect_rl.lm import models
from reflect_rl.train import rl, warmup

run = load("paper", "taxi", "reflect_rl", 0, sys.argv[1])
warmup.follow_success = lambda *_: 0.0
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
    "memory_mb": peak_memory_mb(),
    "folders": {stage: str(stage_dir(run, stage)) for stage in ("reflector", "policy", "rl")},
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no AVX-512: half an hour where torch emulates bfloat16"
)
def test_the_papers_settings_at_full_size_take_one_step_of_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.setenv("REFLECT_RL_THREADS", str(os.cpu_count()))
    size = GPT2Config(n_embd=1600, n_layer=48, n_head=25, bos_token_id=1, eos_token_id=1)
    with torch.device("meta"):
        model = GPT2LMHeadModel(size).to(torch.bfloat16)
    model.to_empty(device="cpu")
    some = 0.02 * torch.randn(1_000_003, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            times = -(-weight.numel() // len(some))
            fresh = torch.ones_like(weight) if "ln_" in name and "weight" in name else some.repeat(times)
            weight.copy_(fresh.view(-1)[: weight.numel()].view_as(weight))
    model.save_pretrained(tmp_path / "gpt2-xl")
    del model
    few = "data.trajectories=20 data.negatives=10 data.sft_examples=40"
    small = load("smoke", "taxi", "reflect_rl", 0, few)
    data.make(small)
    trained = stage_dir(small, "data") / "tokenizer.json"
    load_tokenizer(small.model, trained).save_pretrained(tmp_path / "gpt2-xl")
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
    folders = {stage: Path(folder) for stage, folder in found["folders"].items()}
    warmed = {player: load_file(folders[player] / "weights.safetensors") for player in models.PLAYERS}
    for weights in warmed.values():
        assert any(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)
    after = load_file(folders["rl"] / "policy.safetensors")
    assert any(not torch.equal(warmed["policy"][name], after[name]) for name in after)
    assert len(pd.read_csv(folders["rl"] / "metrics.csv")) >= 2
