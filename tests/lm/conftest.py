import dataclasses

import pytest
from grid_game import PROMPTS, QUESTIONS, SIZE, large_weights
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl.core.config import ModelConfig
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.scratch import from_scratch
from reflect_rl.lm.tokenizers import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(PROMPTS + QUESTIONS, IN_ORDER.names, SIZE, r"\|[^\n]*\n?")


@pytest.fixture(scope="session", params=[0, 1], ids=["gpt2", "lfm2"])
def model(tokenizer, request):
    return large_weights(from_scratch(dataclasses.replace(SIZE, n_conv=request.param), tokenizer, seed=0).eval())


@pytest.fixture(scope="session")
def base(tokenizer, tmp_path_factory):
    """A folder as `save_pretrained` makes it: a random GPT-2 and its tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    with seeded(0):
        settings = GPT2Config(vocab_size=len(tokenizer), n_positions=176, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def on_base(base):
    """Settings of players on that base."""
    return ModelConfig(base=str(base), dtype="float32", context=176, max_new_tokens=64, lora="4/8/0")
