"""Action-prompt normalisation: a distribution over the texts of the legal actions."""

import math

import pytest
import torch
from grid_game import ACTIONS, GRIDS, PROMPTS

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm.prompts import Texts, format_of
from reflect_rl.lm.scoring import ScoringPolicy

LEGAL = [ACTIONS[i % 4] for i in range(12)]
ASKED = [
    format_of(Texts()).policy(grid, "move east", LEGAL[i], "Go on." * (i % 3) or None, LEGAL[i])
    for i, grid in enumerate(GRIDS[:12])
]


def likelihood(model, tokenizer, prompt, action):
    """Log-probability of the action's tokens one by one, and how many tokens and words it has."""
    start, end = tokenizer(prompt)["input_ids"], tokenizer(f" {action}", add_special_tokens=False)["input_ids"]
    end.append(tokenizer.eos_token_id)
    logits = model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1].log_softmax(-1)
    return sum(logits[i, token] for i, token in enumerate(end)), len(end), len(action.split())


@torch.no_grad()
@pytest.mark.parametrize("rows", [64, 7])
@pytest.mark.parametrize(("by", "divisor"), [("sum", None), ("token", 1), ("word", 2)])
def test_scores_are_likelihoods_of_the_texts(model, tokenizer, monkeypatch, by, divisor, rows):
    monkeypatch.setattr(ScoringPolicy, "ROWS", rows)
    policy = ScoringPolicy(model, tokenizer, 96, 12, by)
    found = policy.log_probs(ASKED, LEGAL)
    assert found.shape == (12, 6)
    for prompt, actions, row in zip(ASKED, LEGAL, found, strict=True):
        parts = [likelihood(model, tokenizer, prompt, action) for action in actions]
        scores = torch.tensor([part[0] / (part[divisor] if divisor else 1) for part in parts])
        torch.testing.assert_close(row[: len(actions)], scores.log_softmax(0), rtol=0, atol=2e-5)
        assert row[len(actions) :].tolist() == [-math.inf] * (6 - len(actions))


@torch.no_grad()
def test_states_are_those_at_the_end_of_the_prompt(model, tokenizer):
    policy = ScoringPolicy(model, tokenizer, 96, 12, "sum")
    states, _ = policy.states_and_log_probs(ASKED, LEGAL)
    torch.testing.assert_close(states, policy.hidden(ASKED), rtol=0, atol=1e-5)


def test_gradient_is_that_of_the_likelihoods(model, tokenizer):
    policy, gradients = ScoringPolicy(model, tokenizer, 96, 12, "token"), []
    for by_hand in (False, True):
        model.zero_grad()
        if by_hand:
            for prompt, actions in zip(ASKED, LEGAL, strict=True):
                parts = [likelihood(model, tokenizer, prompt, action) for action in actions]
                torch.stack([score / count for score, count, _ in parts]).log_softmax(0)[0].backward()
        else:
            policy.log_probs(ASKED, LEGAL)[:, 0].sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and any(gradient.any() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_prompts_list_no_actions():
    for prompt, actions in zip(ASKED, LEGAL, strict=True):
        assert not any(action in prompt for action in actions if action != "move east")  # which was the last action
    assert all("Actions:" in prompt for prompt in PROMPTS) and not any("Actions:" in prompt for prompt in ASKED)


@torch.no_grad()
def test_an_action_and_a_longer_one_share_the_probability_of_what_they_begin_with(model, tokenizer):
    """With their ends they exclude each other; without, the shorter one alone would have all of it."""
    policy = ScoringPolicy(model, tokenizer, 96, 12, "sum")
    starts = policy.encode(ASKED)
    sums = [policy._score(starts, policy._encode([action] * 12))[1].exp() for action in ("move", "move north")]
    begun = policy._score(starts, [tokenizer(" move", add_special_tokens=False)["input_ids"]] * 12)[1].exp()
    assert (sum(sums) < begun).all() and (begun > 0).all()


@torch.no_grad()
def test_an_action_without_words_counts_as_one(model, tokenizer):
    found = [
        ScoringPolicy(model, tokenizer, 96, 12, by).log_probs(ASKED[:1], [("  ", "east")]) for by in ("sum", "word")
    ]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_an_unknown_normalisation_is_named(model, tokenizer):
    with pytest.raises(ReflectRLError, match="unknown normalisation of scores 'mean'; choose one of: sum, token, word"):
        ScoringPolicy(model, tokenizer, 96, 12, "mean")


def test_an_action_that_is_too_long_is_named(model, tokenizer):
    policy = ScoringPolicy(model, tokenizer, 96, 4, "sum")
    with pytest.raises(ReflectRLError, match=r"'go .*' has \d+ tokens; raise model.max_new_tokens=4"):
        policy.log_probs(ASKED[:1], [("move north", "go north and then east and then south again")])
