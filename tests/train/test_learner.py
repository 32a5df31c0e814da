"""One update: what a batch holds, and what its gradient is made of."""

import pytest
import torch
from train_helpers import PPO, load_rl

from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm import models
from reflect_rl.train import advantages, rl
from reflect_rl.train.learner import Batch, Learner
from reflect_rl.train.warmup import warm_up


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
    run = load_rl(more=more + " rl.episodes_per_update=20")
    learner = Learner(run.rl, warm_up(run), 0)
    batch = Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    assert len(batch.prompts) > 14
    (loss, whole), (expected_loss, parts) = gradients(learner, batch), gradients(learner, batch, rows=7)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("more", ["", PPO, "rl.baseline=none"], ids=["pg_mean", "ppo_critic", "pg_none"])
def test_aggregation_by_distinct_prompt_gives_the_gradient_of_one_row_a_step(homes, more):
    run = load_rl(more=more + " rl.episodes_per_update=40")
    learner = Learner(run.rl, warm_up(run), 0)
    batch = Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    steps = len(batch.row)
    assert len(batch.prompts) < steps
    plain = Batch(
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
    run = load_rl()
    episodes = batch_of_play(run, warm_up(run))
    batch = Batch.of(episodes, IN_ORDER)
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
    run = load_rl(more=PPO)
    learner = Learner(run.rl, warm_up(run), 0)
    batch = Batch.of(batch_of_play(run, learner.players), IN_ORDER)
    log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
    now = log_probs.gather(1, batch.action[:, None])[:, 0]
    torch.testing.assert_close(now, batch.log_prob.float(), rtol=0, atol=1e-5)
    _, (_, clipped) = learner._loss(batch, torch.arange(len(batch.prompts)), 0.0, torch.tensor(len(batch.row)))
    assert clipped == 0


def test_update_makes_actions_with_positive_advantage_likelier(homes):
    run = load_rl(more="rl.entropy=0.0 rl.episodes_per_update=60 rl.learning_rate=0.0003")
    learner = Learner(run.rl, warm_up(run), 0)
    episodes = batch_of_play(run, learner.players)
    batch = Batch.of(episodes, IN_ORDER)
    advantage = batch.returns - torch.tensor(advantages.step_means(batch.returns.numpy(), batch.step))

    def value():
        with torch.no_grad():
            log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
        return (log_probs.gather(1, batch.action[:, None])[:, 0] * advantage).mean().item()

    before = value()
    learner.update(episodes, 0.0)
    assert value() > before


def test_learning_rate_and_entropy_bonus_run_linearly_to_their_ends(homes, monkeypatch):
    run = load_rl(more="rl.learning_rate=0.01 rl.learning_rate_end=0.1 rl.entropy=0.2 rl.entropy_end=0.1")
    learner = Learner(run.rl, warm_up(run), 0)
    episodes = batch_of_play(run, learner.players)
    bonuses = []
    loss = learner._loss
    monkeypatch.setattr(learner, "_loss", lambda b, part, bonus, n: bonuses.append(bonus) or loss(b, part, bonus, n))
    rates = []
    for progress in (0.0, 0.5, 1.0):
        learner.update(episodes, progress)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.0055, 0.001])
    assert bonuses == pytest.approx([0.2, 0.15, 0.1])


def test_replay_keeps_the_newest_successes_only(homes):
    run = load_rl("rl_only", more="rl.replay=3")
    learner = Learner(run.rl, warm_up(run), 0)
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
        run = load_rl("rl_only", more="rl.replay=3 rl.entropy=0.1")
        learner = Learner(run.rl, warm_up(run), 0)
        learner.rows = size
        episodes = batch_of_play(run, learner.players)
        learner.replay = episodes[:3]
        log = learner.update(episodes, 0.0)
        found.append((log, [p.grad for p in learner.optimizer.param_groups[0]["params"]]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for whole, parts in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
