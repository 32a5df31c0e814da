"""The models behind the players: building them, letting one speak as a player, and its weights.

Equal settings and seeds give equal digits on one kind of CPU with one number of threads. On a GPU that is not promised:
its kernels add up in no fixed order, and deterministic ones are not asked for.
"""

import contextlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import writing
from reflect_rl.lm import distributed
from reflect_rl.lm.arithmetic import fix_arithmetic
from reflect_rl.lm.bases import adapters
from reflect_rl.lm.scratch import from_scratch
from reflect_rl.lm.top_layer import TopLayer

fix_arithmetic()  # the number of threads changes a model's last digits, so it is the library's and not the shell's

# Right-padded causal models need no mask, and a saved two-layer model no bar: the warnings would only hide others.
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

PLAYERS = ("reflector", "policy")
ON_CPU = 2048  # tokens that go forward and backward at a time, with all that is kept in between


def build(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, PreTrainedModel | PeftModel]:
    """The model behind each player: two small ones from scratch, or one base with two adapters."""
    if config.base:
        return dict.fromkeys(PLAYERS, adapters(config, PLAYERS, seed))
    return {
        name: from_scratch(config, tokenizer, seed * len(PLAYERS) + i).to(distributed.device())
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
    model: PreTrainedModel | PeftModel, ids: torch.Tensor, positions: torch.Tensor, **options
) -> torch.Tensor:
    """`(B, C, D)` last hidden states of right-padded `ids` `(B, T)` at `positions` `(B, C)`."""
    body = causal_lm(model).base_model
    if isinstance(getattr(body, "layers", [None])[-1], TopLayer):
        return body(input_ids=ids, positions=positions, **options).last_hidden_state
    return body(input_ids=ids, **options).last_hidden_state[torch.arange(len(ids))[:, None], positions]


def last_states(
    model: PreTrainedModel | PeftModel, rows: Sequence[Sequence[int]], pad_id: int, **options
) -> torch.Tensor:
    """`(B, D)` last hidden states at the end of each row of token ids, in one forward pass."""
    ids = pad(rows, pad_id).to(model.device)
    last = torch.tensor([[len(row) - 1] for row in rows], device=ids.device)
    return hidden_states(model, ids, last, **options)[:, 0]


def logits(
    model: PreTrainedModel | PeftModel, hidden: torch.Tensor, rows: torch.Tensor | slice = slice(None)
) -> torch.Tensor:
    """`(..., D)` hidden states -> `(..., V)` logits of those rows of the head, in float32: bfloat16 rounds to 1/16."""
    head = causal_lm(model).get_output_embeddings()
    found = hidden.float() @ head.weight[rows].float().T
    return found if getattr(head, "bias", None) is None else found + head.bias[rows].float()


def completions(
    model: PreTrainedModel | PeftModel, starts: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a model says of R texts after their prompts, both as token ids, in one forward pass.

    Returns:
        `(R, D)` hidden states at the end of each prompt; then of all K tokens of the texts, one text after the other,
        `(K, V)` log-probabilities of what might stand there, `(K,)` those of the tokens themselves, `(K,)` their rows.
    """
    ids = pad([[*start, *end] for start, end in zip(starts, ends, strict=True)], pad_id).to(model.device)
    targets = pad(ends, -1).to(ids.device)
    last = torch.tensor([[len(start) - 1] for start in starts], device=ids.device)
    positions = (last + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
    hidden, real = hidden_states(model, ids, positions, use_cache=False), targets >= 0
    log_probs = logits(model, hidden[real]).log_softmax(-1)
    return hidden[:, 0], log_probs, log_probs.gather(1, targets[real][:, None])[:, 0], real.nonzero()[:, 0]


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-padded `(B, T)` tensor. A causal model's outputs at a row's own positions do not see the padding."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def rows_that_fit(model: PreTrainedModel | PeftModel, tokens: int, most: int, backward: bool = False) -> int:
    """Prompts of `tokens` tokens that a model can take at a time: 8 in main memory, with `backward` of `ON_CPU` tokens together,
    where more are no quicker.

    On a GPU a power of two up to `most` that takes half of the memory that is free now. What one prompt takes is
    measured: its keys and values, or with `backward` what is kept for the backward pass.
    """
    device = model.device
    if device.type != "cuda":
        return min(8, most, max(1, ON_CPU // tokens) if backward else 8)
    before = torch.cuda.memory_allocated(device)
    with torch.set_grad_enabled(backward):
        ids = torch.zeros((1, tokens), dtype=torch.long, device=device)
        held = causal_lm(model).base_model(input_ids=ids, use_cache=not backward)
    one = torch.cuda.memory_allocated(device) - before
    del held
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fit = (torch.cuda.mem_get_info(device)[0] + unused) // (2 * one)
    return 2 ** (max(1, min(most, fit)).bit_length() - 1)


def weights(model: PreTrainedModel | PeftModel, player: str) -> dict[str, torch.nn.Parameter]:
    """A player's own parameters by name: all of a model from scratch, or its adapter."""
    named = dict(model.named_parameters())
    return {k: p for k, p in named.items() if f".{player}." in k} if isinstance(model, PeftModel) else named


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
    _copy(tensors, own)


@torch.no_grad()
def _copy(tensors: dict[str, torch.Tensor], parameters: dict[str, torch.nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def copies(model: PreTrainedModel | PeftModel, player: str) -> dict[str, torch.Tensor]:
    """Copies of a player's own parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in weights(model, player).items()}


@contextlib.contextmanager
def holding(model: PreTrainedModel | PeftModel, player: str, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    """Let a player have other weights, as `copies` has them, until the end of the block or an error in it."""
    own, now = weights(model, player), copies(model, player)
    try:
        _copy(tensors, own)
        yield
    finally:
        _copy(now, own)


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
