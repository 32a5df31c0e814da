"""The reflector trained online: what it samples, what an update does to it, and that it alone can solve a game."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from test_rl_solves import BANDIT, COLOURS, SMALL
from train_helpers import PPO, Killed, contents, dies, load_rl

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs import registry
from reflect_rl.envs.settings import load
from reflect_rl.lm import distributed, models
from reflect_rl.lm.prompts import policy_prompt
from reflect_rl.train import rl
from reflect_rl.train.learner import Learner
from reflect_rl.train.sft import Pairs, fit
from reflect_rl.train.warmup import warm_up

BOTH = PPO + " reflector.steps=60 reflector.evaluate_every=60 rl.reflector_learning_rate=0.003"


def learner_of(run):
    learner = Learner(run, warm_up(run))
    return learner, learner.reflector, learner.players.reflector


def weights(reflector):
    return {name: weight.detach().clone() for name, weight in models.weights(reflector.model, "reflector").items()}


def test_samples_are_drawn_from_the_model(homes):
    """Shares of the first tokens among many samples are their probabilities; a seed gives its own texts, and no memory."""
    _, _, reflector = learner_of(load_rl("reflect_rl_both", more=BOTH))
    prompt = "taxi at row 1\nLast: none\nReflection:"
    texts = reflector.sample([prompt] * 1000, 1)
    assert texts == reflector.sample([prompt] * 1000, 1) != reflector.sample([prompt] * 1000, 2)
    assert not reflector.memory and len(set(texts)) > 100
    ids = torch.tensor([reflector.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        probabilities = reflector.model(ids).logits[0, -1].softmax(-1)
    likely = int(probabilities.argmax())
    word = reflector.tokenizer.decode([likely]).strip()
    share, expected = sum(text.startswith(word) for text in texts) / 1000, float(probabilities[likely])
    assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 1000) + 0.01)


def test_an_update_makes_what_paid_likelier_and_measures_how_far_it_went(homes):
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.reflector_kl=0")
    learner, online, reflector = learner_of(run)
    _, episodes = rl.rollouts(run, learner.players, 0, 0)
    rows = online._rows(episodes)
    advantage = torch.linspace(-1, 1, len(rows))

    def weighed():
        with torch.no_grad():
            _, chosen, row = online._log_probs(rows)
        return float((torch.zeros(len(rows)).index_add(0, row, chosen) * advantage).mean())

    before, policy = weighed(), {k: v.clone() for k, v in models.weights(learner.policy.model, "policy").items()}
    assert online.update(episodes, advantage, 0.0) == pytest.approx(0, abs=1e-6)
    after = weighed()
    assert after > before
    assert online.update(episodes, advantage, 0.0) > 1e-5  # measured before this step, after the first
    assert all(torch.equal(policy[k], v) for k, v in models.weights(learner.policy.model, "policy").items())


def test_gradient_is_that_of_each_text_alone(homes):
    """In one step without clipping, from the texts one by one."""
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.reflector_kl=0.5 rl.max_grad_norm=1000")
    learner, online, reflector = learner_of(run)
    with torch.no_grad():
        for weight in models.weights(reflector.model, "reflector").values():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    _, episodes = rl.rollouts(run, learner.players, 0, 0)
    episodes = episodes[:3]
    rows = online._rows(episodes)
    advantage = torch.linspace(-1, 2, len(rows))
    own, tokens = models.weights(reflector.model, "reflector"), sum(len(end) for _, end in rows)
    reference = [online._of_reference([[row]])[0] for row in rows]
    reflector.model.zero_grad()
    for row, worth, former in zip(rows, advantage, reference, strict=True):
        log_probs, chosen, _ = online._log_probs([row])
        kl = (log_probs.exp() * (log_probs - former)).sum() / tokens
        (-worth * chosen.sum() / len(rows) + 0.5 * kl).backward()
    expected = {name: weight.grad.clone() for name, weight in own.items()}
    online.optimizer.step = lambda: None
    online.update(episodes, advantage, 0.0)
    for name, weight in own.items():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(homes, monkeypatch):
    run = load_rl("reflect_rl_both", more=BOTH)
    homes("uninterrupted")
    players = rl.train(run)
    whole = {k: v for k, v in contents(stage_dir(run, "rl")).items() if k in ("metrics.csv", "reflector.safetensors")}
    warmed = weights(warm_up(run).reflector)
    assert any(not torch.equal(warmed[k], v) for k, v in weights(players.reflector).items())
    homes("killed")
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    again = rl.train(run)
    found = contents(stage_dir(run, "rl"))
    assert {k: found[k] for k in whole} == whole and len(whole) == 2
    assert all(torch.equal(weights(again.reflector)[k], v) for k, v in weights(players.reflector).items())
    assert not again.reflector.memory  # what the warm-up wrote is not what this one would


def test_several_processes_are_refused(homes, monkeypatch):
    run = load_rl("reflect_rl_both", more=BOTH)
    players = warm_up(run)
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    with pytest.raises(ReflectRLError, match="in one process"):
        Learner(run, players)


def obedient(run, players, folder):
    """Train the policy to press the colour that a reflection names, whatever the lamp's."""
    labels, actions = players.policy.labels, tuple(f"press {colour}" for colour in COLOURS)
    lines = []
    for lamp, advised in itertools.product(COLOURS, actions):
        prompt = policy_prompt(f"the lamp is {lamp}", "", actions, f"Next: {advised}.", labels.names[:4])
        lines.append({"prompt": prompt, "completion": f" {labels.names[actions.index(advised)]}"})
    pairs = Pairs(lines, players.policy.encode, 1, [])
    fit(players.policy.model, pairs, replace(run.policy, steps=300), folder, 0, "policy")
    players.policy.model.eval()


def test_a_reflector_learns_from_rewards_what_to_say(homes, monkeypatch, tmp_path):
    """The policy obeys and hardly learns; the reflector can speak, and does not know yet which colour to name."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    spec = registry.register(replace(BANDIT, defaults={"rl.env_steps": 10**6}), replace=True)
    more = (
        f"{SMALL} rl.horizon=1 rl.learning_rate=0.000001 rl.reflector_learning_rate=0.002 rl.reflector_kl=0 "
        "reflector.steps=100 reflector.evaluate_every=25 policy.steps=1"
    )
    run = load("smoke", spec.name, "reflect_rl_both", 0, more)
    players = warm_up(run)
    obedient(run, players, tmp_path)
    learner, found = Learner(run, players), []
    for update in range(60):
        setting, episodes = rl.rollouts(run, players, update, 0)
        found.append(sum(e.success for e in episodes) / len(episodes))
        learner.update(episodes, 0.0, setting)
    assert found[0] < 0.5 and sum(found[-5:]) / 5 > 0.75, found
