"""One run on two processes is the run on one."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small_base import ON_BASE, make_base

from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.settings import load
from reflect_rl.train import warmup

TINY = (
    "data.trajectories=60 data.negatives=30 data.sft_examples=400 reflector.steps=4 reflector.evaluate_every=4 "
    "policy.steps=20 rl.env_steps=120 rl.episodes_per_update=9 rl.evaluate_every=2 rl.checkpoint_every=2 rl.replay=4 "
    "rl.objective=ppo rl.epochs=1 rl.minibatches=2"
)


def train(home, settings, launcher=()):
    command = [sys.executable, *launcher, "-m", "reflect_rl", "train", "--profile", "smoke", "--overrides", settings]
    environment = os.environ | {"REFLECT_RL_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scratch", "lora"])
def test_two_processes_give_the_parameters_of_one(tmp_path, monkeypatch, kind):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = TINY
    if kind == "lora":
        settings += f" model.base={make_base(tmp_path / 'base')} {ON_BASE}"
        # so that a process has nothing to do
        settings += " rl.episodes_per_update=1 rl.horizon=2 rl.env_steps=8"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    failed = train(two, settings, launcher)
    assert failed.returncode and "warm up in one process first (notebook 02)" in failed.stderr + failed.stdout
    monkeypatch.setenv("REFLECT_RL_HOME", str(one))
    run = load("smoke", "taxi", "reflect_rl", 0, settings)
    warmup.warm_up(run)
    shutil.rmtree(two)
    shutil.copytree(one, two)
    for home, how in ((one, ()), (two, launcher)):
        done = train(home, settings, how)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = stage_dir(run, "rl").relative_to(one)
    first, second = (load_file(home / folder / "policy.safetensors") for home in (one, two))
    before = load_file(stage_dir(run, "policy") / "weights.safetensors")
    assert any(not torch.equal(before[name], first[name]) for name in first)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-5)
    logs = [pd.read_csv(home / folder / "metrics.csv") for home in (one, two)]
    pd.testing.assert_frame_equal(*logs, rtol=1e-3, atol=1e-5)
    assert len(logs[0]) > 3
