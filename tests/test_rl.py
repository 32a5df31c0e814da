"""Stage 2. After a change of data, models or objectives that is meant, `python tests/test_rl.py` writes the
numbers of the invariant test anew; the diff of tests/invariant.json shows what the change did."""

import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from reflect_rl import config, models, objectives, rl, runs, sft
from reflect_rl.config import Config, DataConfig, ModelConfig, RLConfig
from reflect_rl.envs import taxi
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.errors import ReflectRLError
from reflect_rl.rollout import play

INVARIANT = Path(__file__).parent / "invariant.json"
TINY = (
    "data.trajectories=60 data.negatives=40 data.sft_examples=300 model.d_model=32 model.n_layer=1 "
    "reflector.steps=2 reflector.evaluate_every=2 policy.steps=60 policy.evaluate_every=100 "
    "rl.episodes_per_update=8 rl.evaluate_every=3 rl.checkpoint_every=2 rl.env_steps=90"
)
PPO = "rl.objective=ppo rl.baseline=critic rl.epochs=2 rl.minibatches=3"
REPLAY = "rl.replay=4 rl.episodes_per_update=48 rl.env_steps=500 rl.pickup=1.0 rl.dropoff=0.0"


def load(variant="sft_rl", seed=0, more=""):
    settings = dict(item.split("=") for item in f"{TINY} {more}".split())  # the later one counts
    return config.load("smoke", "taxi", variant, seed, " ".join(f"{k}={v}" for k, v in settings.items()))


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    """A home with the data and the warmed-up players that the tests share."""
    folder = tmp_path_factory.mktemp("warmed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(folder))
        patch.setattr(sft, "follow_success", lambda *_: 0.0)
        for variant in ("sft_rl", "reflect_rl"):
            sft.warm_up(load(variant))
    return folder


@pytest.fixture
def homes(warmed, tmp_path, monkeypatch):
    """`homes("a")` changes to a home of that name, at first a copy of the warmed-up one."""

    def enter(name):
        if not (tmp_path / name).exists():
            shutil.copytree(warmed, tmp_path / name)
        monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / name))

    enter("home")
    return enter


class Killed(Exception):
    pass


def dies(times, function):
    """`function`, which works `times` times and then raises."""
    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > times:
            raise Killed
        return function(*args, **kwargs)

    return dying


def results(run):
    folder = run.run_dir / "rl"
    return {name: (folder / name).read_bytes() for name in ("metrics.csv", "policy.safetensors")}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- killed and continued ---


@pytest.mark.parametrize(
    "more", ["", PPO, REPLAY, PPO + " " + REPLAY], ids=["pg_mean", "ppo_critic", "replay", "ppo_replay"]
)
def test_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(homes, monkeypatch, more):
    run = load(more=more)
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
    saved = run.run_dir / "rl" / "checkpoints" / "step2"
    assert saved.is_dir() and not (run.run_dir / "rl" / "status.json").exists()
    if "replay" in more:
        assert runs.Checkpoints(saved.parent).load()[1]["replay"]  # else the test shows nothing of replay
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
    run = load()
    whole = uninterrupted(run, homes)
    write_json = runs.write_json

    def dying(path, value):
        if path.parent.name == ".step4.tmp":
            raise Killed
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", dying)
        with pytest.raises(Killed):
            rl.train(run)
    assert sorted(p.name for p in (run.run_dir / "rl" / "checkpoints").iterdir()) == [".step4.tmp", "step2"]
    rl.train(run)
    assert results(run) == whole


def test_run_killed_before_its_last_file_ends_with_the_same_numbers(homes, monkeypatch):
    run = load()
    whole = uninterrupted(run, homes)
    with monkeypatch.context() as patch:
        patch.setattr(models, "save_weights", dies(0, models.save_weights))
        with pytest.raises(Killed):
            rl.train(run)
    rl.train(run)
    assert results(run) == whole


def test_finished_run_is_loaded_and_not_trained_again(homes, monkeypatch):
    run = load()
    trained = rl.train(run)
    before = contents(run.run_dir)
    monkeypatch.setattr(rl, "_update", dies(0, rl._update))
    loaded = rl.train(run)
    assert contents(run.run_dir) == before
    for name, weight in models.weights(trained.policy.model, "policy").items():
        assert torch.equal(weight, models.weights(loaded.policy.model, "policy")[name])


# --- damage ---


@pytest.mark.parametrize("name", ["policy.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_checkpoint_is_named_and_the_run_folder_stays_as_it_was(homes, monkeypatch, name, damage):
    run = load()
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    folder = run.run_dir / "rl"
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
    run = load()
    rl.train(run)
    whole = results(run)
    path = run.run_dir / "rl" / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReflectRLError, match="damaged .* delete it to train anew") as error:
        rl.train(run)
    assert str(path) in str(error.value)
    path.unlink()
    rl.train(run)
    assert results(run) == whole


def test_folder_of_other_settings_is_refused(homes):
    run = load()
    rl.train(run)
    other = Config(**{**vars(run), "rl": RLConfig(**{**vars(run.rl), "entropy": 0.5})})
    before = contents(run.run_dir)
    with pytest.raises(ReflectRLError, match=r"other settings \(rl.entropy was 0.01, is 0.5\)"):
        rl.train(other)
    assert contents(run.run_dir) == before


# --- seeds ---


def test_equal_seeds_agree_different_seeds_differ_and_global_generators_are_untouched(homes):
    first, second = load("rl_only"), load("rl_only", seed=1)
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


# --- one update ---


def batch_of_play(run, players):
    _, episodes = rl.rollouts(run, players, 0, 0)
    return episodes


def gradients(learner, batch, rows=1000):
    model = learner.policy.model
    learner.optimizer.zero_grad()
    total = 0.0
    for part in torch.arange(len(batch.prompts)).split(rows):
        loss, _ = learner._loss(batch, part, 0.02, torch.tensor(len(batch.row)))
        loss.backward()
        total += loss.item()
    found = {k: p.grad.clone() for k, p in models.weights(model, "policy").items()}
    if learner.critic is not None:
        found |= {f"critic.{k}": p.grad.clone() for k, p in learner.critic.named_parameters()}
    return total, found


@pytest.mark.parametrize("more", ["", PPO, "rl.baseline=none"], ids=["pg_mean", "ppo_critic", "pg_none"])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(homes, more):
    run = load(more=more + " rl.episodes_per_update=20")
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    batch = rl.Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    assert len(batch.prompts) > 14
    (loss, whole), (expected_loss, parts) = gradients(learner, batch), gradients(learner, batch, rows=7)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("more", ["", PPO, "rl.baseline=none"], ids=["pg_mean", "ppo_critic", "pg_none"])
def test_aggregation_by_distinct_prompt_gives_the_gradient_of_one_row_a_step(homes, more):
    run = load(more=more + " rl.episodes_per_update=40")
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    batch = rl.Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    steps = len(batch.row)
    assert len(batch.prompts) < steps
    plain = rl.Batch(
        prompts=[batch.prompts[i] for i in batch.row],
        legal=[batch.legal[i] for i in batch.row],
        row=torch.arange(steps),
        action=batch.action,
        log_prob=batch.log_prob,
        returns=batch.returns,
        step=batch.step,
    )
    loss, aggregated = gradients(learner, batch)
    expected_loss, expected = gradients(learner, plain)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(aggregated[name], gradient, rtol=0, atol=1e-5, msg=name)


def test_batch_keeps_order_returns_and_places(homes):
    run = load()
    episodes = batch_of_play(run, sft.warm_up(run))
    batch = rl.Batch.of(episodes, IN_ORDER)
    transitions = [t for episode in episodes for t in episode.transitions]
    assert [batch.prompts[i] for i in batch.row] == [t.decision.prompt for t in transitions]
    assert batch.action.tolist() == [t.decision.action for t in transitions]
    assert len(set(batch.prompts)) == len(batch.prompts)
    start = 0
    for episode in episodes:
        own = slice(start, start + len(episode))
        rewards = [t.reward for t in episode.transitions]
        assert batch.returns[own].tolist() == pytest.approx([sum(rewards[i:]) for i in range(len(rewards))], abs=1e-5)
        assert batch.step[own].tolist() == list(range(len(episode)))
        start += len(episode)


def test_sampled_log_probabilities_are_those_of_the_first_update(homes):
    """So PPO's first ratio is 1 and nothing is clipped."""
    run = load(more=PPO)
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    batch = rl.Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
    now = log_probs.gather(1, batch.action[:, None])[:, 0]
    torch.testing.assert_close(now, batch.log_prob.float(), rtol=0, atol=1e-5)
    _, (_, clipped) = learner._loss(batch, torch.arange(len(batch.prompts)), 0.0, torch.tensor(len(batch.row)))
    assert clipped == 0


def test_update_makes_actions_with_positive_advantage_likelier(homes):
    run = load(more="rl.entropy=0.0 rl.episodes_per_update=60 rl.learning_rate=0.0003")
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    episodes = batch_of_play(run, learner.players)
    batch = rl.Batch.of(episodes, IN_ORDER)
    advantage = batch.returns - torch.tensor(objectives.step_means(batch.returns.numpy(), batch.step))

    def value():
        with torch.no_grad():
            log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
        return (log_probs.gather(1, batch.action[:, None])[:, 0] * advantage).mean().item()

    before = value()
    learner.update(episodes, 0.0)
    assert value() > before


def test_learning_rate_and_entropy_bonus_run_linearly_to_their_ends(homes, monkeypatch):
    run = load(more="rl.learning_rate=0.01 rl.learning_rate_end=0.1 rl.entropy=0.2 rl.entropy_end=0.1")
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    episodes = batch_of_play(run, learner.players)
    bonuses = []
    loss = learner._loss
    monkeypatch.setattr(learner, "_loss", lambda b, part, bonus, n: bonuses.append(bonus) or loss(b, part, bonus, n))
    rates = []
    for share in (0.0, 0.5, 1.0):
        learner.update(episodes, share)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.0055, 0.001])
    assert bonuses == pytest.approx([0.2, 0.15, 0.1])


def test_replay_keeps_the_newest_successes_only(homes):
    run = load("rl_only", more="rl.replay=3")
    learner = rl.Learner(run.rl, sft.warm_up(run), 0)
    episodes = batch_of_play(run, learner.players)
    for i, episode in enumerate(episodes):
        episode.success = i % 2 == 1
    learner.update(episodes, 0.0)
    assert learner.replay == [episodes[3], episodes[5], episodes[7]]


@pytest.mark.parametrize("rows", [1, 3])
def test_parts_of_a_batch_add_up_to_its_gradient(homes, rows):
    """Replay among them; a large model goes forward and backward in parts for the sake of memory."""
    found = []
    for size in (0, rows):
        run = load("rl_only", more="rl.replay=3 rl.entropy=0.1")
        learner = rl.Learner(run.rl, sft.warm_up(run), 0)
        learner.rows = size
        episodes = batch_of_play(run, learner.players)
        learner.replay = episodes[:3]
        log = learner.update(episodes, 0.0)
        found.append((log, [p.grad for p in learner.optimizer.param_groups[0]["params"]]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for whole, parts in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


def test_frozen_reflector_keeps_its_weights_and_its_words_in_rl(homes, monkeypatch):
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    run = load("reflect_rl", more="rl.env_steps=40")
    warmed = sft.warm_up(run)
    before = {k: v.clone() for k, v in warmed.reflector.model.state_dict().items()}
    players = rl.train(run)
    for name, weight in players.reflector.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    changed = models.weights(warmed.policy.model, "policy")
    assert any(not torch.equal(w, changed[k]) for k, w in models.weights(players.policy.model, "policy").items())
    prompts = list(players.reflector.memory)[:10]
    assert prompts
    assert warmed.reflector.reflect(prompts) == [players.reflector.memory[p] for p in prompts]


# --- the loop ---


def test_budget_is_met_and_exceeded_by_less_than_one_batch(homes):
    run = load()
    rl.train(run)
    metrics = pd.read_csv(run.run_dir / "rl" / "metrics.csv")
    assert list(metrics) == rl.METRICS
    assert metrics.env_steps.iloc[-1] >= 90 > metrics.env_steps.iloc[-2]
    status = json.loads((run.run_dir / "rl" / "status.json").read_text())
    assert status["env_steps"] == metrics.env_steps.iloc[-1]
    played = metrics.episodes[1:] * metrics.episode_length[1:]
    assert played.to_numpy() == pytest.approx(np.diff(metrics.env_steps))
    assert metrics.val_success[[0, 3, len(metrics) - 1]].notna().all()  # at first, every third update, at last
    assert metrics.val_success[[1, 2]].isna().all()


def test_stages_follow_the_curriculum(homes):
    run = load(more="rl.pickup=0.4 rl.dropoff=0.3")
    rl.train(run)
    metrics = pd.read_csv(run.run_dir / "rl" / "metrics.csv")
    begun = metrics.env_steps.shift()[1:] / 90
    expected = ["pickup" if b < 0.4 else "dropoff" if b < 0.7 else "full" for b in begun]
    assert metrics.stage.tolist() == ["warm-up", *expected]
    assert set(expected) == {"pickup", "dropoff", "full"}


def test_training_never_sees_a_validation_or_test_task(homes, monkeypatch):
    seen = set()
    monkeypatch.setattr(rl, "play", lambda d, a, tasks, *r, **o: seen.update(tasks) or play(d, a, tasks, *r, **o))
    run = load(more="rl.episodes_per_update=64 rl.evaluate_every=1000")
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    rl.train(run)
    train = {task for mode in taxi.MODES for task in taxi.tasks(mode, "train")}
    assert seen and seen <= train


def test_validation_success_plays_validation_tasks_of_the_full_setting(homes, monkeypatch):
    seen = []
    monkeypatch.setattr(rl, "play", lambda d, a, tasks, *r, **o: seen.extend(tasks) or play(d, a, tasks, *r, **o))
    run = load(more="rl.evaluation_repeats=2")
    rl.validation_success(run, sft.warm_up(run))
    assert seen == [*taxi.tasks("full", "validation")] * 2


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_loss_that_is_not_finite_ends_training_with_the_last_finite_policy(homes, monkeypatch, kind):
    """A NaN in the third update; `sqrt` at 0 has a finite value and an infinite gradient."""
    calls = []
    kept = {}
    original = objectives.policy_gradient_loss

    def spoilt(log_prob, advantage):
        calls.append(1)
        loss = original(log_prob, advantage)
        if len(calls) < 3:
            return loss
        return loss * math.nan if kind == "loss" else loss + (log_prob - log_prob.detach()).abs().sum().sqrt()

    monkeypatch.setattr(objectives, "policy_gradient_loss", spoilt)
    update = rl.Learner.update

    def watched(self, *args):
        kept["before"] = {k: v.detach().clone() for k, v in models.weights(self.policy.model, "policy").items()}
        return update(self, *args)

    monkeypatch.setattr(rl.Learner, "update", watched)
    run = load()
    rl.train(run)
    status = json.loads((run.run_dir / "rl" / "status.json").read_text())
    assert status["status"] == "collapsed"
    assert status["reason"] == "loss or gradient was not finite at update 3; training ended there"
    assert len(calls) == 3
    saved = load_file(run.run_dir / "rl" / "policy.safetensors")
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
    run = load(more="rl.env_steps=150 rl.pickup=0.0 rl.dropoff=0.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl, "COLLAPSED_LENGTH", 100)
        rl.train(run)
    status = json.loads((run.run_dir / "rl" / "status.json").read_text())
    assert status["status"] == "collapsed" and "for 5 updates, at update 5" in status["reason"]
    assert status["env_steps"] >= 150


# --- invariant ---


def first_updates():
    """Loss and gradient norm of the first updates of fixed settings, for `pg` and for `ppo` with a critic."""
    found = {}
    for name, chosen in {"pg": {}, "ppo": dict(objective="ppo", baseline="critic", epochs=2, minibatches=2)}.items():
        run = Config(
            profile="invariant",
            env="taxi",
            variant="rl_only",
            seed=0,
            data=DataConfig(60, 0.5, 40, 40, 300),
            model=ModelConfig(n_layer=1, n_head=4, d_model=32, context=96, vocab_size=512),
            rl=RLConfig(env_steps=1000, episodes_per_update=16, learning_rate=1e-3, entropy=0.01, **chosen),
        )
        learner = rl.Learner(run.rl, sft.warm_up(run), run.seed)
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
