"""Objectives of online RL as pure functions of tensors; every loss is to be minimised.

`(N,)` tensors run over the steps of a batch, `(N, A)` tensors over steps and legal actions.
"""

import torch


def policy_gradient_loss(log_prob: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """-E[log pi(a|s) (G - b)]; all arguments `(N,)` (paper, policy gradient; Williams 1992)."""
    return -(log_prob * advantage).mean()


def ppo_loss(log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """Clipped surrogate of PPO; all tensors `(N,)` (Schulman et al. 2017, eq. 7)."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def clip_fraction(log_prob: torch.Tensor, old_log_prob: torch.Tensor, clip: float) -> torch.Tensor:
    """Share of the steps whose probability ratio lies outside PPO's clipping range."""
    return (((log_prob - old_log_prob).exp() - 1).abs() > clip).float().mean()


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of each row of `(N, A)` log-probabilities; -inf marks actions that are not legal. `(N,)`."""
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0)).sum(-1)


def kl(log_probs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL divergence in nats from a reference, of each row of `(N, A)` log-probabilities, exact over the legal actions."""
    legal = log_probs > -torch.inf
    difference = (log_probs - reference).masked_fill(~legal, 0)
    return (log_probs.exp() * difference).sum(-1)


def value_loss(value: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """Half the mean squared error of a critic; both `(N,)`."""
    return 0.5 * (value - returns).pow(2).mean()
