"""Pretrained bases: loading one that fits this machine, and an adapter for each player on it."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from reflect_rl.core.config import ModelConfig, lora
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import distributed, pretrained
from reflect_rl.lm.arithmetic import seeded


def computing_dtype(config: ModelConfig) -> torch.dtype:
    """The type that a base computes in: with `auto` bfloat16 where the hardware has it."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        can = torch.cpu.get_capabilities()
        has = can.get("avx512_bf16") or can.get("amx_bf16")
    return torch.bfloat16 if has else torch.float32


def load_base(config: ModelConfig) -> PreTrainedModel:
    """A pretrained causal LM on this process's accelerator, or in main memory.

    Raises:
        ReflectRLError: it is not there, too large for the memory, reads less than `config.context`, or is asked for in 8
            or 4 bits where that cannot be.
    """
    device, options = distributed.device(), {}  # a process's own GPU is the current one from here on
    if config.quantization != "none":
        if not (torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes")):
            raise ReflectRLError(
                f"model.quantization={config.quantization} needs a GPU and bitsandbytes (pip install -e '.[quantized]'); "
                "set it to none"
            )
        options["quantization_config"] = BitsAndBytesConfig(
            **{f"load_in_{config.quantization}": True},
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=computing_dtype(config),
        )
    _check_fits(config)
    model = pretrained.load(AutoModelForCausalLM, config, dtype=computing_dtype(config), **options)
    if not options:
        model = model.to(device)
    model.generation_config = GenerationConfig()  # its own may ask for sampling, or for penalties
    # from the last positions of a batch, a strided view, torch would copy the head's weights once a row
    model.get_output_embeddings().register_forward_pre_hook(lambda _, states: (states[0].contiguous(),))
    return model


def _check_fits(config: ModelConfig) -> None:
    """Raise ReflectRLError where a base's weights alone exceed the memory that is free, it reads too little, or has too few layers."""
    settings = pretrained.load(AutoConfig, config)
    of_all = pretrained.load(AutoConfig, replace(config, layers=0)).num_hidden_layers
    if config.layers > of_all:
        raise ReflectRLError(f"model.base={config.base!r} has {of_all} layers, fewer than model.layers={config.layers}")
    longest = getattr(settings, "max_position_embeddings", config.context)
    if config.context > longest:
        raise ReflectRLError(
            f"model.base={config.base!r} reads {longest} tokens, fewer than the context of {config.context}; lower "
            "model.context, or prompted.context for a prompted model"
        )
    with torch.device("meta"):
        count = AutoModelForCausalLM.from_config(settings).num_parameters()
    size = {"8bit": 1.0, "4bit": 0.5}.get(config.quantization, computing_dtype(config).itemsize)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else pretrained.free_memory()
    if count * size > free:
        raise ReflectRLError(
            f"model.base={config.base!r} needs {count * size / 1e9:.1f} GB for {count / 1e6:,.0f} million parameters, "
            f"{free / 1e9:.1f} GB are free; take a smaller one, model.dtype=bfloat16, or on a GPU model.quantization=4bit"
        )


def adapters(config: ModelConfig, players: Sequence[str], seed: int) -> PeftModel:
    """A pretrained base with one fresh LoRA adapter a player, by name: one copy of the base's weights."""
    adapter, targets = lora(config.lora), config.lora_targets
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets.split(",") if "," in targets else targets or None,
        task_type="CAUSAL_LM",
    )
    first, *others = players
    base = load_base(config)
    with seeded(seed):
        model = get_peft_model(base, settings, adapter_name=first)
        for name in others:
            model.add_adapter(name, settings)
    return model.eval()  # peft's modules start in training, where dropout makes two passes differ
