"""The reflector trained online: what it samples, what an update does to it, and that it alone can solve a game."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_rl_solves import BANDIT, COLOURS, SMALL
from train_helpers import PPO, Killed, dies, load_rl

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir, stage_key
from reflect_rl.envs import registry
from reflect_rl.envs.settings import load
from reflect_rl.lm import distributed, models
from reflect_rl.lm.prompts import policy_prompt, reflection_prompt
from reflect_rl.train import rl
from reflect_rl.train.learner import Learner
from reflect_rl.train.release import release
from reflect_rl.train.rollout import Decision, Episode, Transition
from reflect_rl.train.sft import Pairs, fit
from reflect_rl.train.warmup import warm_up

BOTH = PPO + " reflector.steps=60 reflector.evaluate_every=60 rl.reflector_learning_rate=0.003"


def learner_of(run):
    learner = Learner(run, warm_up(run))
    return learner, learner.reflector, learner.players.reflector


def weights(reflector):
    return models.copies(reflector.model, "reflector")


def test_samples_are_drawn_from_the_model(homes):
    """Shares of first tokens among many samples are their probabilities; a seed gives its own texts, and no memory."""
    _, _, reflector = learner_of(load_rl("reflect_rl_both", more=BOTH))
    prompt = "taxi at row 1\nLast: none\nReflection:"
    found = reflector.sample([prompt] * 1000, 1)
    assert found == reflector.sample([prompt] * 1000, 1) != reflector.sample([prompt] * 1000, 2)
    padded = reflector.sample([f"{prompt} {prompt}", *[prompt] * 1000], 1)[1:]
    assert not reflector.memory and len({tuple(ids) for _, ids in found}) > 100
    start, end = reflector.tokenizer(prompt)["input_ids"], reflector.tokenizer.eos_token_id
    assert all(of == start and end not in ids[:-1] and 0 < len(ids) <= 24 for of, ids in found)
    assert all(len(ids) == 24 or ids[-1] == end for _, ids in found)
    with torch.no_grad():
        probabilities = reflector.model(torch.tensor([start])).logits[0, -1].softmax(-1)
    likely = int(probabilities.argmax())
    expected = float(probabilities[likely])
    for drawn in (found, padded):
        share = sum(ids[0] == likely for _, ids in drawn) / 1000
        assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 1000))


class Asked:
    """Notes what a learning reflector is asked, and what it wrote."""

    def __init__(self, online):
        self.online, self.seen = online, []

    def reflect(self, prompts):
        texts = self.online.reflect(prompts)
        self.seen += zip(prompts, texts, strict=True)
        return texts


def played(learner, run, update=0):
    """Episodes of an update, and of each step in order the prompt of the reflector and its text."""
    players, note = learner.playing(update), Asked(learner.reflector)
    _, episodes = rl.rollouts(run, replace(players, reflector=note), update, 0)
    return episodes, note.seen


def taken(episode):
    """What was done before each step of an episode."""
    return ["", *(t.actions[t.decision.action] for t in episode.transitions[:-1])]


def test_what_is_learnt_from_is_what_was_written_where_it_was_written(homes):
    run = load_rl("reflect_rl_both", more=BOTH)
    learner, online, reflector = learner_of(run)
    episodes, seen = played(learner, run)
    rows = online._rows(episodes)
    assert len(rows) == sum(map(len, episodes)) == len(seen)
    found = [(reflector.tokenizer.decode(start), reflector.text_of(ids)) for start, ids in rows]
    assert sorted(found) == sorted(seen)
    steps = [(t, last) for e in episodes for t, last in zip(e.transitions, taken(e), strict=True)]
    asked = [reflection_prompt(t.observation, last) for t, last in steps]
    assert found == [(prompt, t.decision.reflection) for prompt, (t, _) in zip(asked, steps, strict=True)]


def weighed(reflector, rows, advantage):
    """Mean over texts of advantage times log-probability, by the whole model, a text at a time."""
    total = 0.0
    for (start, ids), worth in zip(rows, advantage, strict=True):
        logits = reflector.model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1].log_softmax(-1)
        total = total + worth * sum(logits[i, token] for i, token in enumerate(ids))
    return total / len(rows)


def test_a_step_is_the_gradient_of_what_was_written_and_of_the_divergence(homes, monkeypatch):
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.reflector_kl=0.5 rl.max_grad_norm=1000")
    learner, online, reflector = learner_of(run)
    own = models.weights(reflector.model, "reflector")
    with torch.no_grad():
        for weight in own.values():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    episodes = played(learner, run)[0][:4]
    rows = online._rows(episodes)
    advantage = torch.linspace(-1, 2, len(rows))
    monkeypatch.setattr(online, "_advantage", lambda *_: advantage)

    def log_probs_of():
        for start, ids in rows:
            yield reflector.model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1].log_softmax(-1)

    with torch.no_grad(), models.holding(reflector.model, "reflector", online.reference):
        former = [*log_probs_of()]
    reflector.model.zero_grad()
    each = [(found.exp() * (found - then)).sum() for found, then in zip(log_probs_of(), former, strict=True)]
    kl = sum(each) / sum(len(ids) for _, ids in rows)
    (0.5 * kl - weighed(reflector, rows, advantage)).backward()
    expected = {name: weight.grad.clone() for name, weight in own.items()}
    monkeypatch.setattr(online.optimizer, "step", lambda: None)
    assert online.update(episodes, 0.0) == pytest.approx(kl.item(), rel=1e-3)
    for name, weight in own.items():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_an_update_makes_what_paid_likelier_and_leaves_the_policy_alone(homes, monkeypatch):
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.reflector_kl=0")
    learner, online, reflector = learner_of(run)
    episodes, _ = played(learner, run)
    rows = online._rows(episodes)
    advantage = torch.linspace(-1, 1, len(rows))
    monkeypatch.setattr(online, "_advantage", lambda *_: advantage)
    policy = {k: v.clone() for k, v in models.weights(learner.policy.model, "policy").items()}
    reflector.memory["kept"] = "from before the update"
    before = weighed(reflector, rows, advantage).item()
    assert online.update(episodes, 0.0) == pytest.approx(0, abs=1e-6)
    assert weighed(reflector, rows, advantage).item() > before and not reflector.memory
    assert online.update(episodes, 0.0) > 1e-5  # measured before this step, after the first
    assert all(torch.equal(policy[k], v) for k, v in models.weights(learner.policy.model, "policy").items())


def test_a_good_reflection_is_worth_more_than_a_bad_one_in_the_same_state(homes):
    """By a critic that reads the state alone, however well it is fitted."""
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.critic_steps=300 rl.discount=1")
    learner, online, _ = learner_of(run)
    step = Transition("one state", ("go", "stay"), Decision(0, "", 0.0, "good"), 1.0)
    other = replace(step, decision=replace(step.decision, reflection="bad"), reward=0.0)
    episodes = [Episode("t", [each]) for each in (step, other) * 20]
    rows = [([5, 6, 7], [8]), ([5, 6, 7], [9])] * 20
    for _ in range(3):
        found = online._advantage(episodes, rows)
    assert found[0] > 0.5 and found[1] < -0.5


def test_a_reflection_is_credited_with_what_came_after_it_in_its_episode(homes):
    """The first of two is paid at the second step, and what was paid before the second is not its own."""
    run = load_rl("reflect_rl_both", more=f"{BOTH} rl.critic_steps=1 rl.gae_lambda=1 rl.discount=1 rl.normalise=false")
    _, online, _ = learner_of(run)
    first = Transition("one state", ("go", "stay"), Decision(0, "", 0.0, "good"), 0.0)
    episodes = [Episode("t", [first, replace(first, reward=5.0)]), Episode("t", [replace(first, reward=3.0), first])]
    found = online._advantage(episodes, [([5, 6, 7], [8])] * 4)
    assert (found - found[0]).tolist() == pytest.approx(
        [0, 0, -2, -5], abs=1e-4
    )  # in one state the critic says one value


def test_the_critic_reads_each_distinct_prompt_at_its_end(homes):
    _, online, reflector = learner_of(load_rl("reflect_rl_both", more=f"{BOTH} model.micro_batch=2"))
    prompts = [reflection_prompt(f"taxi at row {i % 3}", "move north" * (i % 2)) for i in range(9)]
    starts = reflector.encode(prompts)
    states, row = online._states(starts)
    assert len(states) == len(set(prompts)) == 6 and row.shape == (9,)
    for start, number in zip(starts, row, strict=True):
        with torch.no_grad():
            whole = reflector.model.base_model(torch.tensor([start]), use_cache=False).last_hidden_state[0, -1]
        torch.testing.assert_close(states[number], whole, rtol=0, atol=1e-5)


def test_with_a_learning_rate_of_0_the_reflector_samples_and_stays(homes):
    run = load_rl("reflect_rl_both", more=BOTH + " rl.reflector_learning_rate=0")
    players, warmed = rl.train(run), warm_up(run)
    before = weights(warmed.reflector)
    assert all(torch.equal(before[k], v) for k, v in weights(players.reflector).items())
    policy = models.copies(warmed.policy.model, "policy")
    assert any(not torch.equal(policy[k], v) for k, v in models.weights(players.policy.model, "policy").items())
    diverged = pd.read_csv(stage_dir(run, "rl") / "metrics.csv").reflector_kl[1:]
    assert len(diverged) > 2 and diverged.to_numpy() == pytest.approx(0, abs=1e-6)


def test_a_gradient_that_is_not_finite_is_not_taken(homes, monkeypatch):
    run = load_rl("reflect_rl_both", more=BOTH)
    learner, online, reflector = learner_of(run)
    episodes, _ = played(learner, run)
    monkeypatch.setattr(online, "_advantage", lambda episodes, rows: torch.full((len(rows),), torch.nan))
    before = weights(reflector)
    assert math.isnan(learner.update(episodes, 0.0, "full")["loss"])
    assert all(torch.equal(before[k], v) for k, v in weights(reflector).items())


def test_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(homes, monkeypatch, tmp_path):
    run, names = load_rl("reflect_rl_both", more=BOTH), ("metrics.csv", "reflector.safetensors", "policy.safetensors")
    homes("uninterrupted")
    players = rl.train(run)
    whole = {name: (stage_dir(run, "rl") / name).read_bytes() for name in names}
    assert whole["metrics.csv"].splitlines()[0].decode() == ",".join([*rl.METRICS, "reflector_kl"])
    warmed = weights(warm_up(run).reflector)
    assert any(not torch.equal(warmed[k], v) for k, v in weights(players.reflector).items())
    homes("killed")
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    again = rl.train(run)
    assert {name: (stage_dir(run, "rl") / name).read_bytes() for name in names} == whole
    assert all(torch.equal(weights(again.reflector)[k], v) for k, v in weights(players.reflector).items())
    assert not again.reflector.memory  # what the warm-up wrote is not what this one would
    monkeypatch.setattr(paths, "weights", lambda: tmp_path / "weights")
    released = release(run) / "reflector.safetensors"
    assert released.read_bytes() == whole["reflector.safetensors"]


def test_settings_of_the_reflectors_rl_decide_nothing_without_it(homes):
    for name, changes in (("reflect_rl", False), ("sft_rl", False), ("reflect_rl_both", True)):
        keys = [stage_key(load_rl(name, more=more), "rl") for more in ("", "rl.reflector_kl=0.7")]
        assert (keys[0] != keys[1]) == changes, name


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
        setting, episodes = rl.rollouts(run, learner.playing(update), update, 0)
        found.append(sum(e.success for e in episodes) / len(episodes))
        learner.update(episodes, 0.0, setting)
    assert found[0] < 0.5 and sum(found[-5:]) / 5 > 0.75, found
