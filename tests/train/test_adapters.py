"""Training two players that are adapters of one pretrained base."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from grid_game import adapter, shake
from small_base import LEGAL, ON_BASE, PROMPTS, QUESTIONS, make_base
from train_helpers import Killed, equal, load

from reflect_rl.core.config import SFTConfig
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm import models
from reflect_rl.lm.players import Encoder
from reflect_rl.train import rl, sft, warmup
from reflect_rl.train.learner import Learner


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(base, tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / "home"))
    settings = (
        "data.sft_examples=64 reflector.steps=4 reflector.evaluate_every=2 policy.steps=4 policy.evaluate_every=2 "
        "rl.env_steps=30 rl.episodes_per_update=8 rl.evaluate_every=100"
    )
    return load("reflect_rl", 0, f"model.base={base}", ON_BASE, settings)


def test_reflector_is_unchanged_by_updates_of_the_policy(run):
    players = warmup.new_players(run)
    model = players.policy.model
    shake(model, "reflector")
    texts = players.reflector.reflect(QUESTIONS[:6])
    before = {player: adapter(model, player) for player in models.PLAYERS}
    base_before = {k: v.clone() for k, v in model.named_parameters() if "lora" not in k}
    learner = Learner(run, players)
    for update in range(2):
        _, episodes = rl.rollouts(run, players, update, 0)
        learner.update(episodes, 0.0, "full")
    assert equal(adapter(model, "reflector"), before["reflector"])
    assert not equal(adapter(model, "policy"), before["policy"])
    assert all(torch.equal(v, base_before[k]) for k, v in model.named_parameters() if "lora" not in k)
    players.reflector.memory.clear()
    assert players.reflector.reflect(QUESTIONS[:6]) == texts


@pytest.mark.parametrize(("micro_batch", "rows"), [(0, 5), (3, 3)])
def test_the_warm_up_of_an_adapter_goes_through_the_base_in_as_many_rows_as_fit(run, monkeypatch, micro_batch, rows):
    seen, loss = [], sft.completion_loss
    monkeypatch.setattr(models, "rows_that_fit", lambda *_, **__: 5)
    monkeypatch.setattr(sft, "completion_loss", lambda model, inputs: seen.append(inputs) or loss(model, inputs))
    config = replace(run, model=replace(run.model, micro_batch=micro_batch), policy=replace(run.policy, batch_size=15))
    warmup._ensure(config, "policy", warmup.new_players(config).policy, "policy")
    assert {len(inputs["labels"]) for inputs in seen} == {rows} and len(seen) == 15 // rows * config.policy.steps


def test_texts_on_a_base_go_through_it_in_as_many_rows_as_fit(run, monkeypatch):
    monkeypatch.setattr(models, "rows_that_fit", lambda *_, **__: 5)
    texts = replace(run, variant="reflect_rl_texts")
    assert Learner(texts, warmup.new_players(texts)).rows == 5


def test_warm_up_and_rl_run_end_to_end_on_a_pretrained_base(run, monkeypatch):
    monkeypatch.setattr(warmup, "follow_success", lambda *_: 0.0)
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    warmed = warmup.warm_up(run)
    fresh = warmup.new_players(run)
    for player in models.PLAYERS:
        trained, untrained = (adapter(p.policy.model, player) for p in (warmed, fresh))
        assert not equal(trained, untrained), player
    players = rl.train(run)
    metrics = pd.read_csv(stage_dir(run, "rl") / "metrics.csv")
    assert metrics.env_steps.iloc[-1] >= 30
    assert equal(adapter(players.policy.model, "reflector"), adapter(warmed.policy.model, "reflector"))
    again = rl.train(run)  # loaded
    with torch.no_grad():
        torch.testing.assert_close(again.policy.log_probs(PROMPTS, LEGAL), players.policy.log_probs(PROMPTS, LEGAL))


def fit_reflector(run, folder, bars, scores):
    """Warm up the reflector's adapter; the measure of step n is `scores[n]`. Returns its weights."""
    players = warmup.new_players(run)
    model = players.policy.model
    models.activate(model, "reflector")
    tokenizer = players.reflector.tokenizer
    lines = [{"prompt": QUESTIONS[i], "completion": f" {IN_ORDER.names[i % 6]} move"} for i in range(40)]
    pairs = sft.Pairs(lines, Encoder(tokenizer, 120), 8, [tokenizer.eos_token_id])
    training = SFTConfig(steps=6, batch_size=8, learning_rate=1e-2, evaluate_every=2)
    sft.fit(model, pairs, training, folder, 0, "test", lambda: scores[bars[-1].n])
    return adapter(model, "reflector")


def test_adapter_keeps_the_weights_of_its_best_measure(run, tmp_path, bars):
    first_best = fit_reflector(run, tmp_path / "a", bars, {2: 0.9, 4: 0.1, 6: 0.2})
    last_best = fit_reflector(run, tmp_path / "b", bars, {2: 0.1, 4: 0.2, 6: 0.9})
    assert not equal(first_best, last_best)


def test_killed_warm_up_of_an_adapter_ends_with_the_same_weights(run, tmp_path, bars):
    scores = {2: 0.1, 4: 0.2, 6: 0.9}
    whole = fit_reflector(run, tmp_path / "whole", bars, scores)
    bars.die_at = 5
    with pytest.raises(Killed):
        fit_reflector(run, tmp_path / "killed", bars, scores)
    bars.die_at = None
    assert equal(fit_reflector(run, tmp_path / "killed", bars, scores), whole)
