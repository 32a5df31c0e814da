"""A critic: a network of its own that reads the policy's hidden state and sends no gradient into it."""

import torch

from reflect_rl.lm.arithmetic import seeded


class Critic(torch.nn.Module):
    """The discounted return that is still to come, from the hidden state `(B, D)` at a prompt's last position."""

    def __init__(self, width: int, seed: int, hidden: int = 128):
        super().__init__()
        with seeded(seed):
            self.body = torch.nn.Sequential(
                torch.nn.LayerNorm(width), torch.nn.Linear(width, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, 1)
            )
        torch.nn.init.zeros_(self.body[-1].weight)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(B, D)` -> `(B,)` values."""
        return self.body(states.detach().float())[:, 0]
