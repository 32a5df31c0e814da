"""Small models from scratch: a GPT-2, or an LFM2 with short convolutions below its attention layers."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reflect_rl.core.config import ModelConfig
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.top_layer import TopLayer

SMALL = 0.1  # of the feed-forward layers' output at a start that looks up
CONVOLUTION = 4  # tokens that a short convolution sees


def from_scratch(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A GPT-2, or where `config.n_conv` asks for convolutions an LFM2, with fresh weights drawn from `seed`."""
    common = {
        "vocab_size": len(tokenizer),
        "initializer_range": config.init_std,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with seeded(seed):
        return _lfm2(config, common) if config.n_conv else _gpt2(config, common)


def _gpt2(config: ModelConfig, common: dict) -> GPT2LMHeadModel:
    settings = GPT2Config(
        n_positions=config.context,
        n_embd=config.d_model,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, as one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **common,
    )
    return GPT2LMHeadModel(settings)


def _lfm2(config: ModelConfig, common: dict) -> Lfm2ForCausalLM:
    settings = Lfm2Config(
        hidden_size=config.d_model,
        intermediate_size=2 * config.d_model,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=config.n_conv + config.n_layer,
        layer_types=["conv"] * config.n_conv + ["full_attention"] * config.n_layer,
        conv_L_cache=CONVOLUTION,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_head,
        max_position_embeddings=config.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        **common,
    )
    model = Lfm2ForCausalLM(settings)
    top = TopLayer(settings, len(model.model.layers) - 1)
    top.load_state_dict(model.model.layers[-1].state_dict())
    model.model.layers[-1] = top
    if config.start == "lookup":
        _look_up(model)
    return model


@torch.no_grad()
def _look_up(model: Lfm2ForCausalLM) -> None:
    """Attention that begins with equal queries and keys, so that a position finds those like it, and passes on what it
    finds as it is; the feed-forward layers begin small beside that."""
    for layer in model.model.layers:
        layer.feed_forward.w2.weight *= SMALL
        if hasattr(layer, "self_attn"):
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.out_proj.weight.copy_(attention.v_proj.weight.T)
