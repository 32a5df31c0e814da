"""Texts of a made-up grid game, and models for them."""

import random

import torch

from reflect_rl.core.config import ModelConfig
from reflect_rl.lm import models
from reflect_rl.lm.prompts import policy_prompt, reflection_prompt

SIZE = ModelConfig(n_layer=2, n_head=4, d_model=32, context=96, vocab_size=400)


def grid(i: int) -> str:
    """Five rows with a player, and where to go."""
    draw = random.Random(i)
    places = [draw.choice(" :") for _ in range(25)]
    places[draw.randrange(25)] = "T"
    rows = ["|" + "".join(places[r : r + 5]) + "|" for r in range(0, 25, 5)]
    return "\n".join([*rows, f"goal {draw.choice('RGYB')}"])


GRIDS = [grid(i) for i in range(40)]
MOVES = ("move south", "move north", "move east", "move west", "pick up", "drop off")
ACTIONS = [MOVES, MOVES[:3], MOVES[:1], MOVES[:5]]
PROMPTS = [  # of different lengths, with 6, 3, 1 and 5 legal actions
    policy_prompt(grid, "move east" if i % 3 else "", ACTIONS[i % 4], "Go on. " * (i % 5) if i % 2 else None)
    for i, grid in enumerate(GRIDS[:12])
]
LEGAL = [tuple(range(len(ACTIONS[i % 4]))) for i in range(12)]
QUESTIONS = [reflection_prompt(grid, ["", "move east", "drop off"][i % 3]) for i, grid in enumerate(GRIDS)]


def large_weights(model):
    """Weights large enough that distributions and greedy choices differ from prompt to prompt."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "lm_head" not in name:
                weight.mul_(6)
    return model


def adapter(model, player):
    return {k: v.detach().clone() for k, v in models.weights(model, player).items()}


@torch.no_grad()
def shake(model, player):
    """LoRA begins at zero (B = 0); give an adapter an effect."""
    generator = torch.Generator().manual_seed(1)
    for weight in models.weights(model, player).values():
        weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
