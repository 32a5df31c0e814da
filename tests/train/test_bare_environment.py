"""The whole of training in an environment that gives only what is required: no slips, phases, stages or milestones."""

import numpy as np
import pandas as pd
import pytest
from corridor import SPEC

from reflect_rl.core.config import Config, DataConfig, ModelConfig, RLConfig, SFTConfig
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs import registry
from reflect_rl.envs.play import ILLEGAL
from reflect_rl.train import data, rl, warmup


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))  # forget it afterwards
    registry.register(SPEC, replace=True)
    sft = SFTConfig(steps=60, batch_size=16, learning_rate=1e-2, evaluate_every=60)
    return Config(
        "bare",
        "corridor",
        "reflect_rl",
        0,
        data=DataConfig(trajectories=20, negatives=20, horizon=8, sft_examples=100),
        model=ModelConfig(n_layer=1, d_model=32, vocab_size=400),
        reflector=sft,
        policy=sft,
        rl=RLConfig(env_steps=60, episodes_per_update=8, horizon=8),
    )


def test_data_are_balanced_by_feedback_alone_and_negatives_are_wrong_actions(run):
    manifest = data.make(run)
    assert set(manifest["balance"]["positive"]) == {"start", "right"}
    assert set(manifest["balance"]["negative"]) == {"wrong"}
    negatives = [vars(e.situation) for e in data.read_examples(run) if e.kind == "negative"]
    assert negatives and {e["last_action"] for e in negatives} == {"go left"}


def test_steps_after_wrong_actions_can_be_kept_illegal_ones_among_them():
    config = DataConfig(40, [0, 0.8], negatives=0, horizon=8, illegal_action_probability=0.2, wrong_steps=True)
    examples = data.reflect(data.play_freely(SPEC, config, np.random.default_rng(0)), SPEC.teacher)
    wrong = [e.situation for e in examples if e.kind == "negative"]
    assert {s.action_feedback for s in wrong} == {"wrong"}
    assert {s.last_action for s in wrong} == {"go left", ILLEGAL}
    assert {e.situation.action_feedback for e in examples if e.kind == "positive"} == {"start", "right"}


def test_players_are_warmed_up_and_trained(run):
    players = rl.train(run)
    assert warmup.training_log(run, "reflector").eval_score.max() == 1
    metrics = pd.read_csv(stage_dir(run, "rl") / "metrics.csv")
    assert set(metrics.stage[1:]) == {"full"} and metrics.val_success.iloc[-1] == 1
    assert players.reflector.memory
