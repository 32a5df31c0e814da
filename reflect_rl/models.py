"""The language models behind the players: a small one from scratch with its own tokenizer, or LoRA on a pretrained base."""

import contextlib
import importlib.util
import os
import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.lfm2.modeling_lfm2 import Lfm2DecoderLayer, rotate_half

from reflect_rl import pretrained, ranks
from reflect_rl.config import ModelConfig, lora
from reflect_rl.errors import ReflectRLError
from reflect_rl.paths import writing

# Right-padded causal models need no mask, and a saved two-layer model no bar: the warnings would only hide others.
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

PLAYERS = ("reflector", "policy")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run code that draws from the global generators (model initialisation, `Trainer`) from `seed` on.

    The generators are left as they were found, so that nothing outside notices.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


def train_tokenizer(texts: Sequence[str], labels: Sequence[str], config: ModelConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of these texts in which every label is one token.

    A row of a grid and a name with its number (`cabinet 12`) can become one token each.
    """
    tokenizer = Tokenizer(models.BPE())
    word = pre_tokenizers.Split(Regex(r"\|[^\n]*\n?|\n| ?[a-z]+ to(?= )| ?[a-z]+ \d+| ?[^\s]+| "), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([word, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<eos>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([f" {label}" for label in labels])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


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
    return model


class TopLayer(Lfm2DecoderLayer):
    """The uppermost attention layer, which computes the positions that are asked for and no others.

    Below it every position is needed; of its own outputs a policy needs one a prompt, a reflector's loss one in five.
    """

    def forward(self, hidden_states, position_embeddings=None, asked: torch.Tensor | None = None, **kwargs):
        """`(B, T, D)` -> `(B, C, D)` at the positions `asked` `(B, C)`; without them as the layer above all positions."""
        if asked is None:
            return super().forward(hidden_states, position_embeddings, **kwargs)
        attention, normed = self.self_attn, self.operator_norm(hidden_states)
        rows, heads = torch.arange(len(asked))[:, None], (-1, attention.head_dim)
        query = attention.q_layernorm(attention.q_proj(normed[rows, asked]).unflatten(-1, heads))
        key = attention.k_layernorm(attention.k_proj(normed).unflatten(-1, heads))
        value = attention.v_proj(normed).unflatten(-1, heads)
        cos, sin = (part[0, :, None] for part in position_embeddings)  # (T, 1, head_dim)
        query = query * cos[asked] + rotate_half(query) * sin[asked]
        key = key * cos + rotate_half(key) * sin
        seen = torch.arange(hidden_states.shape[1], device=asked.device) <= asked[:, None, :, None]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        states = hidden_states[rows, asked] + attention.out_proj(found.transpose(1, 2).flatten(2))
        return states + self.feed_forward(self.ffn_norm(states))


def load_tokenizer(config: ModelConfig, trained: Path | None = None) -> PreTrainedTokenizerBase:
    """The base's own tokenizer, or the one trained for a model from scratch."""
    if not config.base:
        try:
            backend = Tokenizer.from_file(str(trained))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ReflectRLError(
                f"{trained} cannot be read ({error}); delete {trained.parent} to make the data anew"
            ) from error
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            pad_token="<pad>",
            eos_token="<eos>",
            clean_up_tokenization_spaces=False,
        )
    tokenizer = _load(AutoTokenizer, config)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(auto_class, config: ModelConfig, **options):
    """A base's model or tokenizer: from this machine, or where `$REFLECT_RL_DOWNLOAD` is set from the hub."""
    download = os.environ.get("REFLECT_RL_DOWNLOAD", "") not in ("", "0")
    place = pretrained.find(config.base)
    if options.get("dtype") == torch.bfloat16 and (Path(place) / pretrained.HALF).is_dir():
        options["subfolder"] = pretrained.HALF
    try:
        return auto_class.from_pretrained(
            place, revision=config.revision or None, local_files_only=not download, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ReflectRLError(
            f"no pretrained model at model.base={config.base!r} ({reason}); give a folder made by save_pretrained, a GGUF "
            f"file, one of {', '.join(pretrained.PACKAGED)}, or a hub id: a cached one, or with REFLECT_RL_DOWNLOAD=1 any"
        ) from error


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
    device, options = ranks.device(), {}  # a process's own GPU is the current one from here on
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
    model = _load(AutoModelForCausalLM, config, dtype=computing_dtype(config), **options)
    if not options:
        model = model.to(device)
    model.generation_config = GenerationConfig()  # its own may ask for sampling, or for penalties
    # from the last positions of a batch, a strided view, torch would copy the head's weights once a row
    model.get_output_embeddings().register_forward_pre_hook(lambda _, states: (states[0].contiguous(),))
    return model


def _check_fits(config: ModelConfig) -> None:
    """Raise ReflectRLError where a base's weights alone exceed the memory that is free, or it reads too little."""
    settings = _load(AutoConfig, config)
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


def from_pretrained(config: ModelConfig, seed: int) -> PeftModel:
    """A pretrained base with one fresh LoRA adapter a player: one copy of the base's weights."""
    adapter, targets = lora(config.lora), config.lora_targets
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets.split(",") if "," in targets else targets or None,
        task_type="CAUSAL_LM",
    )
    first, *others = PLAYERS
    base = load_base(config)
    with seeded(seed):
        model = get_peft_model(base, settings, adapter_name=first)
        for name in others:
            model.add_adapter(name, settings)
    return model.eval()  # peft's modules start in training, where dropout makes two passes differ


def build(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, PreTrainedModel | PeftModel]:
    """The model behind each player: two small ones from scratch, or one base with two adapters."""
    if config.base:
        return dict.fromkeys(PLAYERS, from_pretrained(config, seed))
    return {
        name: from_scratch(config, tokenizer, seed * len(PLAYERS) + i).to(ranks.device())
        for i, name in enumerate(PLAYERS)
    }


def activate(model: PreTrainedModel | PeftModel, player: str) -> None:
    """Let the model speak, and learn, as one of the players; nothing to do where the player has a model of its own."""
    if isinstance(model, PeftModel) and model.active_adapter != player:
        model.set_adapter(player)


def causal_lm(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The causal LM itself, with the adapters inside where there are any."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_states(
    model: PreTrainedModel | PeftModel, ids: torch.Tensor, asked: torch.Tensor, **options
) -> torch.Tensor:
    """`(B, C, D)` last hidden states of right-padded `ids` `(B, T)` at the positions `asked` `(B, C)`."""
    body = causal_lm(model).base_model
    if isinstance(getattr(body, "layers", [None])[-1], TopLayer):
        return body(input_ids=ids, asked=asked, **options).last_hidden_state
    return body(input_ids=ids, **options).last_hidden_state[torch.arange(len(ids))[:, None], asked]


def weights(model: PreTrainedModel | PeftModel, player: str) -> dict[str, torch.nn.Parameter]:
    """A player's own parameters by name: all of a model from scratch, or its adapter."""
    named = dict(model.named_parameters())
    return {k: p for k, p in named.items() if f".{player}." in k} if isinstance(model, PeftModel) else named


@torch.no_grad()
def set_weights(
    model: PreTrainedModel | PeftModel, player: str, tensors: dict[str, torch.Tensor], source: Path
) -> None:
    """Copy saved tensors into a player.

    Raises:
        ReflectRLError: names or shapes are those of another model; `source` says where they came from.
    """
    own = weights(model, player)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()}:
        raise ReflectRLError(f"{source} holds the weights of another model; delete it to train anew")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names and contents; a flipped bit in a safetensors file would pass unnoticed."""
    digest = sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(model: PreTrainedModel | PeftModel, player: str, path: Path) -> None:
    """A player's own parameters as safetensors, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().contiguous() for k, v in weights(model, player).items()}
        save_file(tensors, temporary, metadata={"sha256": _checksum(tensors)})
        temporary.replace(path)


def load_weights(model: PreTrainedModel | PeftModel, player: str, path: Path) -> None:
    """The inverse of `save_weights`; raises ReflectRLError where the file is damaged or another model's."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError) as error:
        raise ReflectRLError(f"{path} is damaged ({error}); delete it to train anew") from error
    if checksum != _checksum(tensors):
        raise ReflectRLError(f"{path} is damaged (its checksum differs); delete it to train anew")
    set_weights(model, player, tensors, path)
