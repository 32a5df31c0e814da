import math

import pytest
import torch

from reflect_rl.train import objectives

INF = math.inf


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def logs(*probabilities):
    return tensor(*probabilities).log()


def test_policy_gradient_loss_is_the_negative_mean_of_weighted_log_probabilities():
    loss = objectives.policy_gradient_loss(tensor(-1.0, -2.0), tensor(3.0, -0.5))
    assert loss.item() == pytest.approx(-(-3.0 + 1.0) / 2)


def test_policy_gradient_of_a_two_action_softmax_by_hand():
    """d(-A log p_0)/dz = -A (1 - p_0, -p_1), and p = (1/4, 3/4) for logits (0, log 3)."""
    logits = tensor(0.0, math.log(3)).requires_grad_()
    objectives.policy_gradient_loss(logits.log_softmax(-1)[:1], tensor(2.0)).backward()
    assert logits.grad.tolist() == pytest.approx([-2 * 0.75, 2 * 0.75])


def test_policy_gradient_averages_over_steps():
    logits = tensor(0.0, 0.0).requires_grad_()
    log_probs = logits.log_softmax(-1)
    objectives.policy_gradient_loss(log_probs[torch.tensor([0, 1])], tensor(1.0, -1.0)).backward()
    assert logits.grad.tolist() == pytest.approx([-0.5, 0.5])  # both steps favour action 0


@pytest.mark.parametrize(
    ("new", "advantage", "loss", "gradient"),
    [
        (0.5, 2.0, -2.0, -2.0),  # ratio 1: the policy gradient
        (0.54, 2.0, -2.16, -2.16),  # within the range: -ratio A, and its gradient is -ratio A too
        (0.6, 2.0, -2.2, 0.0),  # good action already 20% likelier: clipped at 1.1
        (0.4, 2.0, -1.6, -1.6),  # good action became rarer: not clipped
        (0.6, -2.0, 2.4, 2.4),  # bad action became likelier: not clipped
        (0.4, -2.0, 1.8, 0.0),  # bad action already 20% rarer: clipped at 0.9
    ],
)
def test_ppo_clips_only_what_goes_too_far(new, advantage, loss, gradient):
    log_prob = logs(new).requires_grad_()
    found = objectives.ppo_loss(log_prob, logs(0.5), tensor(advantage), clip=0.1)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert log_prob.grad.item() == pytest.approx(gradient)


def test_first_ppo_ratio_is_one_and_its_gradient_is_the_policy_gradient():
    advantage = tensor(1.0, -2.0, 0.3)
    old = logs(0.2, 0.5, 0.9)
    ppo, pg = old.clone().requires_grad_(), old.clone().requires_grad_()
    loss = objectives.ppo_loss(ppo, old, advantage, clip=0.1)
    assert loss.item() == pytest.approx(-advantage.mean().item())
    loss.backward()
    objectives.policy_gradient_loss(pg, advantage).backward()
    assert ppo.grad.tolist() == pytest.approx(pg.grad.tolist())


def test_clip_fraction_counts_ratios_outside_on_both_sides():
    old = logs(0.5, 0.5, 0.5, 0.5)
    assert objectives.clip_fraction(logs(0.5, 0.54, 0.6, 0.4), old, 0.1).item() == 0.5
    assert objectives.clip_fraction(old, old, 0.1).item() == 0


def test_entropy_by_hand_with_and_without_illegal_actions():
    rows = torch.stack([logs(0.25, 0.25, 0.25, 0.25), logs(0.5, 0.25, 0.25, 0.0), logs(1.0, 0.0, 0.0, 0.0)])
    assert rows[1, 3] == -INF
    expected = [math.log(4), 1.5 * math.log(2), 0.0]
    assert objectives.entropy(rows).tolist() == pytest.approx(expected)


def test_entropy_has_a_finite_gradient_that_ignores_illegal_actions():
    """dH/dz_i = -p_i (log p_i + H); nothing reaches the masked action."""
    logits = tensor(0.0, math.log(3), 5.0).requires_grad_()
    masked = logits.masked_fill(torch.tensor([False, False, True]), -INF)
    entropy = objectives.entropy(masked.log_softmax(-1)[None])
    entropy.sum().backward()
    p = [0.25, 0.75]
    h = -sum(x * math.log(x) for x in p)
    assert entropy.item() == pytest.approx(h)
    assert logits.grad.tolist() == pytest.approx([-x * (math.log(x) + h) for x in p] + [0.0])


def test_entropy_gradient_is_finite_where_only_one_action_is_legal():
    logits = tensor(0.0, 1.0).requires_grad_()
    objectives.entropy(logits.masked_fill(torch.tensor([False, True]), -INF).log_softmax(-1)[None]).sum().backward()
    assert logits.grad.tolist() == [0.0, 0.0]


def test_value_loss_is_half_the_mean_squared_error():
    value = tensor(1.0, 3.0).requires_grad_()
    loss = objectives.value_loss(value, tensor(2.0, 0.0))
    loss.backward()
    assert loss.item() == pytest.approx((1 + 9) / 4)
    assert value.grad.tolist() == pytest.approx([-0.5, 1.5])


def test_kl_by_hand_and_without_what_is_not_legal():
    rows, reference = logs(0.5, 0.5)[None], logs(0.25, 0.75)[None]
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert objectives.kl(rows, reference).item() == pytest.approx(expected)
    padded = torch.cat([rows, tensor(-INF)[None]], 1), torch.cat([reference, tensor(-INF)[None]], 1)
    assert objectives.kl(*padded).item() == pytest.approx(expected)
    assert objectives.kl(rows, rows).item() == 0
