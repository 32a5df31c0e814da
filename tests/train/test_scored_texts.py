"""A policy that scores the texts of actions, through the warm-up, online RL and evaluation."""

import pytest
import torch
from train_helpers import PG, PPO, Killed, dies, load_rl

from reflect_rl.core.identity import stage_dir, stage_key
from reflect_rl.envs.taxi.env import ACTIONS
from reflect_rl.evaluate.panels import evaluate
from reflect_rl.lm.prompts import Texts
from reflect_rl.lm.scoring import ScoringPolicy
from reflect_rl.train import data, rl
from reflect_rl.train.learner import Batch, Learner
from reflect_rl.train.rollout import ActiveEpisode, Decision, Episode, PlayersAgent, Transition
from reflect_rl.train.warmup import new_players, warm_up

SMALL = "reflector.steps=2 reflector.evaluate_every=2 evaluation.tasks=3 evaluation.repeats=1"


def test_what_it_is_trained_on_are_texts(homes):
    run = load_rl("reflect_rl_texts", more=SMALL)
    lines = data.read(run, "policy")
    assert {line["completion"] for line in lines} <= {f" {action}" for action in ACTIONS}
    assert not any("Actions:" in line["prompt"] for line in lines) and all(
        "Reflection:" in line["prompt"] for line in lines
    )


def test_its_warm_up_makes_the_experts_text_likely(homes):
    run = load_rl("reflect_rl_texts", more=f"{SMALL} policy.steps=300 policy.learning_rate=0.005")
    players, lines = warm_up(run), data.read(run, "policy")[:40]
    assert isinstance(players.policy, ScoringPolicy)
    actions = sorted({line["completion"].strip() for line in data.read(run, "policy")})
    with torch.no_grad():
        found = players.policy.log_probs([line["prompt"] for line in lines], [tuple(actions)] * 40)
    right = [actions[int(row.argmax())] == line["completion"].strip() for row, line in zip(found, lines, strict=True)]
    assert sum(right) / 40 > 0.7 and players.policy.labels == Texts()


@pytest.mark.parametrize("more", [PG, PPO], ids=["pg", "ppo"])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(homes, more):
    run = load_rl("reflect_rl_texts", more=f"{more} {SMALL} rl.episodes_per_update=20")
    learner = Learner(run, warm_up(run))
    _, episodes = rl.rollouts(run, learner.players, 0, 0)
    batch, gradients = learner._judged(Batch.of(episodes, learner.policy.labels)), []
    for rows in (0, 13):
        learner.rows = rows
        learner.optimizer.zero_grad()
        parts = learner._parts(batch, torch.arange(len(batch.prompts)))
        assert (len(parts) > 3) == bool(rows) and torch.cat(parts).tolist() == [*range(len(batch.prompts))]
        for part in parts:
            learner._loss(batch, part, 0.02, torch.tensor(len(batch.row)))[0].backward()
        gradients.append([p.grad.clone() for p in learner.policy.model.parameters() if p.grad is not None])
    for whole, of_parts in zip(*gradients, strict=True):
        torch.testing.assert_close(of_parts, whole, rtol=1e-3, atol=1e-5)


LEGAL = [ACTIONS, ACTIONS[:3], ACTIONS[2:0:-1], ACTIONS]  # of four states with one prompt, which lists none of them


def test_a_batch_keeps_equal_prompts_with_other_legal_actions_apart():
    steps = [Transition("here", actions, Decision(0, "a prompt"), 0.0) for actions in LEGAL]
    batch = Batch.of([Episode("a task", steps)], Texts())
    assert batch.prompts == ["a prompt"] * 3 and batch.legal == LEGAL[:3] and batch.row.tolist() == [0, 1, 2, 0]


def test_an_agent_keeps_equal_prompts_with_other_legal_actions_apart(homes):
    policy = new_players(load_rl("reflect_rl_texts", more=SMALL)).policy
    agent = PlayersAgent(policy, None, greedy=True)
    decisions = agent.decide([ActiveEpisode(None, None, "here", actions) for actions in LEGAL])
    (prompt,) = {decision.prompt for decision in decisions}
    for actions, decision in zip(LEGAL, decisions, strict=True):
        with torch.no_grad():
            expected = policy.log_probs([prompt], [actions])[0].tolist()
        assert agent.log_probs(prompt, actions).tolist() == pytest.approx(expected, abs=1e-5)
        assert decision.log_prob == pytest.approx(max(expected), abs=1e-5)


def test_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(homes, monkeypatch):
    run, names = (
        load_rl("reflect_rl_texts", more=f"{PPO} {SMALL} rl.env_steps=150"),
        ("metrics.csv", "policy.safetensors"),
    )
    homes("uninterrupted")
    rl.train(run)
    whole, played = {name: (stage_dir(run, "rl") / name).read_bytes() for name in names}, evaluate(run)
    homes("killed")
    with monkeypatch.context() as patch:
        patch.setattr(rl, "_update", dies(3, rl._update))
        with pytest.raises(Killed):
            rl.train(run)
    rl.train(run)
    assert {name: (stage_dir(run, "rl") / name).read_bytes() for name in names} == whole
    assert evaluate(run).equals(played) and set(played["variant"]) == {"reflect_rl_texts"}


def test_it_shares_data_and_reflector_but_not_the_policy(homes):
    of = {name: load_rl(name, more=SMALL) for name in ("reflect_rl", "reflect_rl_texts", "reflect_sft_texts")}
    for stage in ("data", "reflector", "reflections", "policy"):
        labels, texts, before = (stage_key(run, stage) for run in of.values())
        assert (labels == texts) == (stage != "policy") and texts == before, stage


def test_before_rl_its_policy_is_the_one_that_rl_begins_with(homes):
    before, trained = (load_rl(name, more=SMALL) for name in ("reflect_sft_texts", "reflect_rl_texts"))
    played, warmed = evaluate(before), stage_dir(trained, "policy") / "weights.safetensors"
    assert set(played["decoding"]) == {"sampled", "greedy"} and set(played["variant"]) == {"reflect_sft_texts"}
    made = warmed.stat().st_mtime_ns
    rl.train(trained)
    assert warmed.stat().st_mtime_ns == made and stage_dir(before, "policy") == warmed.parent


def test_how_scores_are_normalised_decides_where_texts_are_scored_and_no_warm_up(homes):
    texts = {"reflect_rl_texts": ("rl", "evaluation"), "reflect_sft_texts": ("rl", "evaluation")}
    for name, changes in ({"reflect_rl": (), "reflect_sft": ()} | texts).items():
        ways = [load_rl(name, more=f"{SMALL} model.normalisation={way}") for way in ("sum", "word")]
        for stage in ("data", "reflector", "reflections", "policy", "rl", "evaluation"):
            assert (stage_key(ways[0], stage) != stage_key(ways[1], stage)) == (stage in changes), (name, stage)
