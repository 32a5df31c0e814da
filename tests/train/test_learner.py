"""One update: what a batch holds, and what its gradient is made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from train_helpers import PG, PPO, load_rl

from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm import models
from reflect_rl.train import advantages, objectives, rl
from reflect_rl.train.learner import MEASURED, Batch, Learner, Success
from reflect_rl.train.warmup import warm_up


def episodes_of(run, players, update=0):
    return rl.rollouts(run, players, update, 0)[1]


def batch_of(learner, episodes):
    """A batch with its advantages, as an update makes it."""
    return learner._judged(Batch.of(episodes, IN_ORDER))


def successes(episodes, stage="full"):
    """Episodes that count as successes, each paid more than the one before."""
    found = []
    for i, episode in enumerate(episodes):
        last = replace(episode.transitions[-1], reward=2.0 * i - 1)
        found.append(Success(stage, replace(episode, transitions=[*episode.transitions[:-1], last])))
    return found


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


@pytest.mark.parametrize("more", [PG, PPO, PG + " rl.advantage=return"], ids=["pg", "ppo", "pg_return"])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(homes, more):
    run = load_rl(more=more + " rl.episodes_per_update=20")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    assert len(batch.prompts) > 14
    (loss, whole), (expected_loss, parts) = gradients(learner, batch), gradients(learner, batch, rows=7)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("more", [PG, PPO, PG + " rl.advantage=return"], ids=["pg", "ppo", "pg_return"])
def test_aggregation_by_distinct_prompt_gives_the_gradient_of_one_row_a_step(homes, more):
    run = load_rl(more=more + " rl.episodes_per_update=40")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    steps = len(batch.row)
    assert len(batch.prompts) < steps
    plain = Batch(
        prompts=[batch.prompts[i] for i in batch.row],
        legal=[batch.legal[i] for i in batch.row],
        row=torch.arange(steps),
        action=batch.action,
        log_prob=batch.log_prob,
        reward=batch.reward,
        step=batch.step,
        start=batch.start,
        state=batch.state,
        advantage=batch.advantage,
        target=batch.target,
        reference=None if batch.reference is None else batch.reference[batch.row],
    )
    loss, aggregated = gradients(learner, batch)
    expected_loss, expected = gradients(learner, plain)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(aggregated[name], gradient, rtol=0, atol=1e-5, msg=name)


def test_batch_keeps_order_rewards_places_and_starts(homes):
    run = load_rl()
    episodes = episodes_of(run, warm_up(run))
    batch = Batch.of(episodes, IN_ORDER)
    transitions = [t for episode in episodes for t in episode.transitions]
    assert [batch.prompts[i] for i in batch.row] == [t.decision.prompt for t in transitions]
    assert batch.action.tolist() == [t.decision.action for t in transitions]
    assert len(set(batch.prompts)) == len(batch.prompts)
    start = 0
    for episode in episodes:
        own = slice(start, start + len(episode))
        assert batch.reward[own].tolist() == [t.reward for t in episode.transitions]
        assert batch.step[own].tolist() == list(range(len(episode)))
        start += len(episode)


def test_sampled_log_probabilities_are_those_of_the_first_update(homes):
    """So PPO's first ratio is 1 and nothing is clipped."""
    run = load_rl(more=PPO)
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
    now = log_probs.gather(1, batch.action[:, None])[:, 0]
    torch.testing.assert_close(now, batch.log_prob.float(), rtol=0, atol=1e-5)
    _, measured = learner._loss(batch, torch.arange(len(batch.prompts)), 0.0, torch.tensor(len(batch.row)))
    clipped = dict(zip(MEASURED[1:], measured, strict=True))["clip_fraction"]
    assert clipped == 0


def test_update_makes_actions_with_positive_advantage_likelier(homes):
    run = load_rl(more="rl.entropy=0.0 rl.episodes_per_update=60 rl.learning_rate=0.0003")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    batch = batch_of(learner, episodes)

    def value():
        with torch.no_grad():
            log_probs = learner.policy.log_probs(batch.prompts, batch.legal)[batch.row]
        return (log_probs.gather(1, batch.action[:, None])[:, 0] * batch.advantage).mean().item()

    before = value()
    learner.update(episodes, 0.0, "full")
    assert value() > before


def test_learning_rate_and_entropy_bonus_run_linearly_to_their_ends(homes, monkeypatch):
    run = load_rl(more=f"{PG} rl.learning_rate=0.01 rl.learning_rate_end=0.1 rl.entropy=0.2 rl.entropy_end=0.1")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    bonuses = []
    loss = learner._loss
    monkeypatch.setattr(learner, "_loss", lambda b, part, bonus, n: bonuses.append(bonus) or loss(b, part, bonus, n))
    rates = []
    for progress in (0.0, 0.5, 1.0):
        learner.update(episodes, progress, "full")
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.0055, 0.001])
    assert bonuses == pytest.approx([0.2, 0.15, 0.1])


# --- PPO ---


def test_ppo_clips_something_with_the_passes_that_are_its_default(homes):
    """A single pass over one minibatch has ratios of 1, so that there is nothing to clip."""
    run = load_rl(more="rl.learning_rate=0.01 rl.episodes_per_update=30")
    learner = Learner(run, warm_up(run))
    log = learner.update(episodes_of(run, learner.players), 0.0, "full")
    assert (run.rl.epochs, run.rl.minibatches) == (2, 4) and log["clip_fraction"] > 0


def test_ratios_that_are_not_1_before_the_first_step_are_warned_of(homes, recwarn):
    run = load_rl(more="rl.learning_rate=0.01")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    learner.update(episodes, 0.0, "full")
    assert not [w for w in recwarn if "ratios" in str(w.message)]
    with pytest.warns(UserWarning, match="ratios are clipped before the first step.*model.dtype=float32"):
        learner.update(episodes, 0.0, "full")  # of a policy that is no longer the one that played


def test_advantages_are_those_of_the_critic_before_the_first_pass_in_all_passes(homes, monkeypatch):
    run = load_rl(more="rl.learning_rate=0.01 rl.normalise=false")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    learner.update(episodes, 0.0, "full")  # values are 0 at first
    before = batch_of(learner, episodes).advantage
    seen, values, loss = [], [], learner._loss

    def watched(batch, *more):
        seen.append(batch.advantage.clone())
        values.append(learner.critic.body[-1].weight.detach().clone())
        return loss(batch, *more)

    monkeypatch.setattr(learner, "_loss", watched)
    learner.update(episodes, 0.0, "full")
    assert len(seen) == 8 and all(torch.equal(advantage, before) for advantage in seen)
    assert not torch.equal(values[0], values[-1])


def test_gradient_of_the_critic_ends_at_its_head(homes):
    run = load_rl(more="rl.entropy=0.0")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    batch.advantage = torch.zeros_like(batch.advantage)  # so that nothing but the critic has a gradient
    loss, _ = learner._loss(batch, torch.arange(len(batch.prompts)), 0.0, torch.tensor(len(batch.row)))
    loss.backward()
    assert all(p.grad.abs().max() > 0 for p in learner.critic.parameters())
    for name, weight in models.weights(learner.policy.model, "policy").items():
        assert weight.grad is None or not weight.grad.any(), name


def test_a_large_gradient_of_the_critic_does_not_shrink_that_of_the_policy(homes):
    run = load_rl(more="rl.epochs=1 rl.minibatches=1")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    norms = []
    for scale in (1, 1000):
        batch.target = batch.target * scale
        learner._gradient(batch, torch.arange(len(batch.prompts)), 0.0, None)
        norms.append([p.grad.clone() for p in learner.optimizer.param_groups[0]["params"]])
    assert all(torch.equal(a, b) for a, b in zip(*norms, strict=True))


def test_critic_is_fitted_to_the_returns_of_the_first_batch_before_the_first_update(homes):
    run = load_rl(more="rl.critic_steps=300 rl.critic_learning_rate=0.01 rl.discount=0.5 rl.episodes_per_update=40")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    returns = advantages.return_to_go(batch.reward, batch.step, 0.5)
    with torch.no_grad():
        values = learner.critic(learner.policy.hidden(batch.prompts))[batch.row].numpy()
    assert np.mean((returns - values) ** 2) < 0.5 * np.mean(returns**2)
    before = values
    batch_of(learner, episodes_of(run, learner.players))
    with torch.no_grad():  # and only there
        np.testing.assert_array_equal(learner.critic(learner.policy.hidden(batch.prompts))[batch.row].numpy(), before)


def test_targets_of_the_critic_are_its_values_plus_the_advantages(homes):
    run = load_rl(more="rl.normalise=false rl.gae_lambda=0.8 rl.discount=0.9")
    learner = Learner(run, warm_up(run))
    batch = batch_of(learner, episodes_of(run, learner.players))
    with torch.no_grad():
        values = learner.critic(learner.policy.hidden(batch.prompts))[batch.row]
    torch.testing.assert_close(batch.target, values + batch.advantage, rtol=0, atol=1e-5)
    expected = advantages.gae(batch.reward, values.numpy().astype(float), batch.step, 0.9, 0.8)
    np.testing.assert_allclose(batch.advantage.numpy(), expected, atol=1e-5)


# --- KL to the warmed-up policy ---


def test_kl_is_0_before_the_first_step_and_holds_the_policy_back_later(homes):
    moved = {}
    for kl in (0.0, 10.0):
        run = load_rl(more=f"rl.kl={kl} rl.learning_rate=0.01 rl.episodes_per_update=30")
        learner = Learner(run, warm_up(run))
        own = models.weights(learner.policy.model, "policy")
        before = {name: weight.detach().clone() for name, weight in own.items()}
        episodes = episodes_of(run, learner.players)
        prompts = Batch.of(episodes, IN_ORDER)
        reference = learner.policy.log_probs(prompts.prompts, prompts.legal).detach()
        if kl:
            torch.testing.assert_close(batch_of(learner, episodes).reference, reference, rtol=0, atol=1e-5)
            assert all(torch.equal(weight, before[name]) for name, weight in own.items())
        for _ in range(3):
            log = learner.update(episodes, 0.0, "full")
        now = learner.policy.log_probs(prompts.prompts, prompts.legal).detach()
        moved[kl] = objectives.kl(now, reference).mean().item()
    assert log["kl"] > 0 and moved[10.0] < 0.5 * moved[0.0]


# --- replay ---


def test_replay_keeps_the_newest_successes(homes):
    run = load_rl("rl_only", more="rl.replay=3")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    for i, episode in enumerate(episodes):
        episode.success = i % 2 == 1
    learner.update(episodes, 0.0, "full")
    assert [kept.episode for kept in learner.replay] == [episodes[3], episodes[5], episodes[7]]


def test_only_successes_of_the_present_stage_are_replayed(homes, monkeypatch):
    run = load_rl("rl_only", more="rl.replay=20")
    learner = Learner(run, warm_up(run))
    replayed, past = [], learner._past
    monkeypatch.setattr(learner, "_past", lambda found: replayed.append([s.stage for s in found]) or past(found))
    for update, stage in enumerate(("easy", "easy", "full", "full")):
        episodes = episodes_of(run, learner.players, update)
        for i, episode in enumerate(episodes):
            episode.success = i < 2
        learner.update(episodes, 0.0, stage)
    assert replayed == [[], ["easy"] * 2, [], ["full"] * 2]
    assert [kept.stage for kept in learner.replay] == ["full"] * 4


def test_replayed_loss_is_that_of_the_returns_above_the_critic(homes):
    """-((G - V)+ log p) averaged over the steps, in units of the spread of advantages."""
    run = load_rl("rl_only", more="rl.replay=3 rl.discount=0.5")
    learner = Learner(run, warm_up(run))
    learner.spread = 4.0
    torch.nn.init.normal_(learner.critic.body[-1].weight, generator=torch.Generator().manual_seed(0))
    kept = successes(episodes_of(run, learner.players)[:3])
    past = learner._past(kept)
    loss = learner._replay_loss(past, torch.arange(len(past.prompts)))
    terms = []
    for success in kept:
        returns, steps = 0.0, success.episode.transitions
        for t in reversed(steps):
            returns = t.reward + 0.5 * returns
            with torch.no_grad():
                value = learner.critic(learner.policy.hidden([t.decision.prompt])).item()
            terms.append(-max(returns - value, 0) / 4.0 * t.decision.log_prob)
    assert 0 < sum(term > 0 for term in terms) < len(terms)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_a_minibatch_has_the_gradient_of_the_replayed_successes_on_top(homes):
    run = load_rl("rl_only", more="rl.replay=3 rl.max_grad_norm=1000")
    learner = Learner(run, warm_up(run))
    episodes = episodes_of(run, learner.players)
    batch, past = batch_of(learner, episodes), learner._past(successes(episodes[:3]))
    found, part = [], torch.arange(len(batch.prompts))
    own = models.weights(learner.policy.model, "policy").values()
    for replayed in (None, past):
        learner._gradient(batch, part, 0.0, replayed)
        found.append([p.grad.clone() for p in own])
    learner.optimizer.zero_grad()
    learner._replay_loss(past, torch.arange(len(past.prompts))).backward()
    assert any(p.grad.abs().max() > 1e-3 for p in own)
    for without, with_replay, p in zip(*found, own, strict=True):
        torch.testing.assert_close(with_replay - without, p.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_parts_of_a_batch_add_up_to_its_gradient(homes, rows):
    """Replay among them; a large model goes forward and backward in parts for the sake of memory."""
    found = []
    for size in (0, rows):
        run = load_rl("rl_only", more=f"rl.replay=3 rl.entropy=0.1 model.micro_batch={size}")
        learner = Learner(run, warm_up(run))
        episodes = episodes_of(run, learner.players)
        learner.replay = successes(episodes[:3])
        log = learner.update(episodes, 0.0, "full")
        found.append((log, [p.grad for p in learner.optimizer.param_groups[0]["params"]]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4, nan_ok=True)
    for whole, parts in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
