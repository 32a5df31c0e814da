"""A critic: a network of its own that reads a player's hidden state and sends no gradient into it."""

import torch

from reflect_rl.lm.arithmetic import seeded
from reflect_rl.train.objectives import value_loss


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

    def fit(self, states: torch.Tensor, row: torch.Tensor, targets: torch.Tensor, rate: float, steps: int) -> None:
        """`steps` of AdamW towards `(N,)` targets: `(U, D)` hidden states, `(N,)` which of them each target is of."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.0)
        for _ in range(steps):
            optimizer.zero_grad()
            value_loss(self(states)[row], targets).backward()
            optimizer.step()
