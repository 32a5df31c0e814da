"""A pretrained base for the tests: a folder as `save_pretrained` makes it, with a random GPT-2 and its tokenizer."""

from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl.core.config import ModelConfig
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.envs.taxi import env as taxi
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.prompts import policy_prompt, reflection_prompt
from reflect_rl.lm.tokenizers import train_tokenizer

GRIDS = [taxi.grid(state, False) for state in taxi.starts("full", "train")[:40]]
QUESTIONS = [reflection_prompt(grid, ["", "move east", "drop off"][i % 3]) for i, grid in enumerate(GRIDS)]
PROMPTS = [policy_prompt(grid, "", taxi.ACTIONS, "Go on. Next: move south.") for grid in GRIDS]
LEGAL = [tuple(range(6))] * len(PROMPTS)
ON_BASE = "model.context=176 model.max_new_tokens=60 model.lora=4/8/0 model.dtype=float32"


def make_base(folder):
    tokenizer = train_tokenizer(PROMPTS + QUESTIONS, IN_ORDER.names, ModelConfig(vocab_size=400), r"\|[^\n]*\n?")
    with seeded(0):
        settings = GPT2Config(vocab_size=len(tokenizer), n_positions=176, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
