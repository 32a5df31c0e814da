"""Tokenizers: one trained on an environment's own texts for models from scratch, or that of a pretrained base."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import pretrained

GENERAL = r"\n| ?[^\s]+| "  # a line's end, a word with the space before it, a space


def train_tokenizer(
    texts: Sequence[str], labels: Sequence[str], config: ModelConfig, pattern: str = ""
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of these texts in which every label is one token.

    Args:
        pattern: regular expression of what else may become one token, such as ` ?[a-z]+ \\d+` for a name with its number
            (`cabinet 12`); tried before the general pattern of words.
    """
    tokenizer = Tokenizer(models.BPE())
    word = pre_tokenizers.Split(Regex(f"{pattern}|{GENERAL}" if pattern else GENERAL), behavior="isolated")
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
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def load_tokenizer(config: ModelConfig, trained: Path | None = None) -> PreTrainedTokenizerBase:
    """The base's own tokenizer, or the one trained for a model from scratch."""
    if config.base:
        tokenizer = pretrained.load(AutoTokenizer, config)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer
    try:
        return _wrapped(Tokenizer.from_file(str(trained)))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ReflectRLError(
            f"{trained} cannot be read ({error}); delete {trained.parent} to make the data anew"
        ) from error
