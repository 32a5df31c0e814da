"""Stage 2. After a change of data, models or objectives that is meant, `python tests/train/test_rl.py` writes the
numbers of the invariant test anew; the diff of invariant.json shows what the change did."""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from train_helpers import PG, PPO, REPLAY, Killed, contents, dies, load_rl

from reflect_rl.core import checkpoints
from reflect_rl.core.config import Config, DataConfig, ModelConfig, RLConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.registry import get
from reflect_rl.lm import models
from reflect_rl.train import objectives, rl, warmup
from reflect_rl.train.learner import Learner
from reflect_rl.train.rollout import play

INVARIANT = Path(__file__).parent / "invariant.json"
TAXI = get("taxi")


def folder_of(run):
    return stage_dir(run, "rl")


def results(run):
    folder = folder_of(run)
    return {name: (folder / name).read_bytes() for name in ("metrics.csv", "policy.safetensors")}


# --- killed and continued ---


@pytest.mark.parametrize(
    "more", [PG, PPO, REPLAY, REPLAY + " rl.objective=pg"], ids=["pg", "ppo_kl", "replay", "pg_replay"]
)
def test_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(homes, monkeypatch, more):
    run = load_rl(more=more)
    homes("uninterrupted")
    rl.train(run)
    whole = results(run)
    updates = len(whole["metrics.csv"].splitlines()) - 2  # without header and row 0
    assert updates > 3
    homes("killed")
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    saved = folder_of(run) / "checkpoints" / "step2"
    assert saved.is_dir() and not (folder_of(run) / "status.json").exists()
    if "replay" in more:
        assert checkpoints.Checkpoints(saved.parent).load()[1]["replay"]  # else the test shows nothing of replay
    resumed, update = [], rl._update
    monkeypatch.setattr(rl, "_update", lambda *args: resumed.append(1) or update(*args))
    rl.train(run)
    assert len(resumed) == updates - 2  # from the checkpoint, not from the start
    assert results(run) == whole


def uninterrupted(run, homes):
    """The results of a run that nothing stops; what comes after it is in a home of its own."""
    homes("uninterrupted")
    rl.train(run)
    whole = results(run)
    homes("killed")
    return whole


def test_run_killed_while_a_checkpoint_is_half_written_continues_from_the_one_before(homes, monkeypatch):
    run = load_rl()
    whole = uninterrupted(run, homes)
    write_json = checkpoints.write_json

    def dying(path, value):
        if path.parent.name == ".step4.tmp":
            raise Killed
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_json", dying)
        with pytest.raises(Killed):
            rl.train(run)
    assert sorted(p.name for p in (folder_of(run) / "checkpoints").iterdir()) == [".step4.tmp", "step2"]
    rl.train(run)
    assert results(run) == whole


def test_run_killed_before_its_last_file_ends_with_the_same_numbers(homes, monkeypatch):
    run = load_rl()
    whole = uninterrupted(run, homes)
    with monkeypatch.context() as patch:
        patch.setattr(models, "save_weights", dies(0, models.save_weights))
        with pytest.raises(Killed):
            rl.train(run)
    rl.train(run)
    assert results(run) == whole


def test_finished_run_is_loaded_and_not_trained_again(homes, monkeypatch):
    run = load_rl()
    trained = rl.train(run)
    before = contents(folder_of(run))
    monkeypatch.setattr(rl, "_update", dies(0, rl._update))
    loaded = rl.train(run)
    assert contents(folder_of(run)) == before
    for name, weight in models.weights(trained.policy.model, "policy").items():
        assert torch.equal(weight, models.weights(loaded.policy.model, "policy")[name])


# --- damage ---


@pytest.mark.parametrize("name", ["policy.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_checkpoint_is_named_and_the_run_folder_stays_as_it_was(homes, monkeypatch, name, damage):
    run = load_rl()
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    folder = folder_of(run)
    path = folder / "checkpoints" / "step2" / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = contents(folder)
    with pytest.raises(ReflectRLError) as error:
        rl.train(run)
    assert str(folder / "checkpoints" / "step2") in str(error.value)
    assert f"delete {folder / 'checkpoints'}" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def test_damaged_final_policy_is_named_and_the_advised_deletion_makes_it_anew(homes):
    run = load_rl()
    rl.train(run)
    whole = results(run)
    path = folder_of(run) / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReflectRLError, match="damaged .* delete it to train anew") as error:
        rl.train(run)
    assert str(path) in str(error.value)
    path.unlink()
    rl.train(run)
    assert results(run) == whole


def test_other_settings_get_a_folder_of_their_own_and_the_old_one_is_found_again(homes, monkeypatch):
    run, other = load_rl(), load_rl(more="rl.entropy=0.5")
    rl.train(run)
    before = contents(folder_of(run))
    rl.train(other)
    assert folder_of(other) != folder_of(run) and contents(folder_of(run)) == before
    monkeypatch.setattr(rl, "_update", dies(0, rl._update))
    rl.train(run)  # is loaded


# --- seeds ---


def test_equal_seeds_agree_different_seeds_differ_and_global_generators_are_untouched(homes):
    first, second = load_rl("rl_only"), load_rl("rl_only", seed=1)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    found = []
    for home, run in (("a", first), ("b", first), ("a", second)):
        homes(home)
        rl.train(run)
        found.append(results(run))
    assert found[0] == found[1]
    assert found[0]["metrics.csv"] != found[2]["metrics.csv"]
    assert found[0]["policy.safetensors"] != found[2]["policy.safetensors"]
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


# --- the loop ---


def test_frozen_reflector_keeps_its_weights_and_its_words_in_rl(homes, monkeypatch):
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    run = load_rl("reflect_rl", more="rl.env_steps=40")
    warmed = warmup.warm_up(run)
    before = {k: v.clone() for k, v in warmed.reflector.model.state_dict().items()}
    players = rl.train(run)
    for name, weight in players.reflector.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    changed = models.weights(warmed.policy.model, "policy")
    assert any(not torch.equal(w, changed[k]) for k, w in models.weights(players.policy.model, "policy").items())
    prompts = list(players.reflector.memory)[:10]
    assert prompts
    assert warmed.reflector.reflect(prompts) == [players.reflector.memory[p] for p in prompts]


def test_budget_is_met_and_exceeded_by_less_than_one_batch(homes):
    run = load_rl()
    rl.train(run)
    metrics = pd.read_csv(folder_of(run) / "metrics.csv")
    assert list(metrics) == rl.METRICS
    assert metrics.env_steps.iloc[-1] >= 90 > metrics.env_steps.iloc[-2]
    status = json.loads((folder_of(run) / "status.json").read_text())
    assert status["env_steps"] == metrics.env_steps.iloc[-1]
    assert status["peak_memory_mb"] > 0 and (status["peak_gpu_memory_mb"] > 0) == torch.cuda.is_available()
    played = metrics.episodes[1:] * metrics.episode_length[1:]
    assert played.to_numpy() == pytest.approx(np.diff(metrics.env_steps))
    assert metrics.val_success[[0, 3, len(metrics) - 1]].notna().all()  # at first, every third update, at last
    assert metrics.val_success[[1, 2]].isna().all()


def test_stages_follow_the_curriculum(homes):
    run = load_rl(more="rl.stage_shares=[0.4,0.3]")
    rl.train(run)
    metrics = pd.read_csv(folder_of(run) / "metrics.csv")
    begun = metrics.env_steps.shift()[1:] / 90
    expected = ["pickup" if b < 0.4 else "dropoff" if b < 0.7 else "full" for b in begun]
    assert metrics.stage.tolist() == ["warm-up", *expected]
    assert set(expected) == {"pickup", "dropoff", "full"}


def test_training_never_sees_a_validation_or_test_task(homes, monkeypatch):
    seen = set()
    monkeypatch.setattr(rl, "play", lambda s, a, tasks, *more: seen.update(tasks) or play(s, a, tasks, *more))
    run = load_rl(more="rl.episodes_per_update=64 rl.evaluate_every=1000")
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    rl.train(run)
    train = {task for mode in (*TAXI.stages, TAXI.training_setting) for task in TAXI.tasks(mode, "train")}
    assert seen and seen <= train


def test_validation_success_plays_validation_tasks_of_the_full_setting(homes, monkeypatch):
    seen = []
    monkeypatch.setattr(rl, "play", lambda s, a, tasks, *more: seen.extend(tasks) or play(s, a, tasks, *more))
    run = load_rl(more="rl.evaluation_repeats=2")
    rl.validation_success(run, warmup.warm_up(run))
    assert seen == [*TAXI.tasks("full", "validation")] * 2


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_loss_that_is_not_finite_ends_training_with_the_last_finite_policy(homes, monkeypatch, kind):
    """A NaN in the third update; `sqrt` at 0 has a finite value and an infinite gradient."""
    calls = []
    kept = {}
    original = objectives.policy_gradient_loss

    def not_finite(log_prob, advantage):
        calls.append(1)
        loss = original(log_prob, advantage)
        if len(calls) < 3:
            return loss
        return loss * math.nan if kind == "loss" else loss + (log_prob - log_prob.detach()).abs().sum().sqrt()

    monkeypatch.setattr(objectives, "policy_gradient_loss", not_finite)
    update = Learner.update

    def watched(self, *args):
        kept["before"] = {k: v.detach().clone() for k, v in models.weights(self.policy.model, "policy").items()}
        return update(self, *args)

    monkeypatch.setattr(Learner, "update", watched)
    run = load_rl(more=PG)
    rl.train(run)
    status = json.loads((folder_of(run) / "status.json").read_text())
    assert status["status"] == "collapsed"
    assert status["reason"] == "loss or gradient was not finite at update 3; training ended there"
    assert len(calls) == 3
    saved = load_file(folder_of(run) / "policy.safetensors")
    assert all(torch.isfinite(w).all() for w in saved.values())
    assert all(torch.equal(w, kept["before"][k]) for k, w in saved.items())


# --- guards ---


def history(*rows):
    keys = ("episode_length", "entropy", "success")
    return [{"update": i + 1} | dict(zip(keys, row, strict=True)) for i, row in enumerate(rows)]


def test_healthy_run_is_in_no_trouble():
    assert rl.trouble(history(*[(12.0, 0.4, 0.3)] * 20)) == ""


def test_short_episodes_that_last_are_trouble():
    short = (1.2, 1.0, 0.0)
    assert rl.trouble(history(*[short] * 4)) == ""
    assert rl.trouble(history(*[short] * 5)) == "episodes shorter than 1.5 steps for 5 updates, at update 5"
    assert rl.trouble(history(*[short] * 4, (3.0, 1.0, 0.0))) == ""
    assert rl.trouble(history((9.0, 1.0, 0.0), *[short] * 5)).endswith("at update 6")


def test_short_episodes_that_succeed_are_no_trouble():
    assert rl.trouble(history(*[(1.2, 1.0, 0.9)] * 9)) == ""


def test_lost_entropy_is_trouble_only_for_a_policy_that_fails():
    assert rl.trouble(history(*[(20.0, 1e-5, 0.0)] * 5)) == "entropy below 0.0001 nats for 5 updates, at update 5"
    assert rl.trouble(history(*[(13.0, 1e-5, 0.95)] * 5)) == ""
    assert rl.trouble(history(*[(20.0, 1e-5, 0.0)] * 4, (20.0, 0.1, 0.0))) == ""


def test_collapsed_run_uses_up_its_budget_and_is_marked(homes):
    run = load_rl(more="rl.env_steps=150 rl.stage_shares=[0.0,0.0]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl, "COLLAPSED_LENGTH", 100)
        rl.train(run)
    status = json.loads((folder_of(run) / "status.json").read_text())
    assert status["status"] == "collapsed" and "for 5 updates, at update 5" in status["reason"]
    assert status["env_steps"] >= 150


# --- invariant ---


def first_updates():
    """Loss and gradient norm of the first updates of fixed settings, for `pg` and for `ppo` with a critic."""
    found = {}
    for name, chosen in {
        "pg": dict(objective="pg", advantage="leave_one_out"),
        "ppo": dict(epochs=2, minibatches=2),
    }.items():
        run = Config(
            profile="invariant",
            env="taxi",
            variant="rl_only",
            seed=0,
            data=DataConfig(60, negatives=40, horizon=40, sft_examples=300),
            model=ModelConfig(n_layer=1, n_head=4, d_model=32, context=96, vocab_size=512),
            rl=RLConfig(env_steps=1000, episodes_per_update=16, stage_shares=(0.2, 0.1), horizon=20, **chosen),
        )
        learner = Learner(run, warmup.warm_up(run))
        state = {"update": 0, "env_steps": 0, "reason": "", "metrics": []}
        for _ in range(5):
            rl._update(run, learner, state)
        found[name] = [{key: row[key] for key in ("env_steps", "loss", "grad_norm")} for row in state["metrics"]]
    return found


def test_first_updates_are_those_of_the_committed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    expected = json.loads(INVARIANT.read_text())
    found = first_updates()
    assert found.keys() == expected.keys()
    for name in expected:
        assert [row["env_steps"] for row in found[name]] == [row["env_steps"] for row in expected[name]]
        for key in ("loss", "grad_norm"):
            values = [row[key] for row in found[name]]
            assert values == pytest.approx([row[key] for row in expected[name]], rel=1e-3)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        os.environ["REFLECT_RL_HOME"] = home
        INVARIANT.write_text(json.dumps(first_updates(), indent=1) + "\n")
