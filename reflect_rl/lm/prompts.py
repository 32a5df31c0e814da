"""The text that the two players read: each legal action listed with a label, or none, where texts are scored."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from transformers import PreTrainedTokenizerBase

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.labels import IN_ORDER, Labels, in_order

MOST = len(IN_ORDER.names)  # legal actions of a state
LETTERS = tuple(a + b for a, b in itertools.product(("", *ascii_uppercase), ascii_uppercase))


@dataclass(frozen=True)
class Texts(Labels):
    """No labels: an action stands for itself, and prompts list none."""

    of: Callable[[Sequence[str]], tuple[str, ...]] = tuple
    names: tuple[str, ...] = ()

    def texts(self, numbers: Sequence[str]) -> list[str]:
        return [*numbers]


def labels_for(tokenizer: PreTrainedTokenizerBase, own: Labels) -> Labels:
    """An environment's own labels where each is one token, as in every tokenizer trained here; else letters in order, on the
    side of their actions that the environment's are.

    Letters are those of `LETTERS` (A, B, ..., AA, AB, ...) that are one token of a pretrained tokenizer, a space before them.

    Raises:
        ReflectRLError: it has fewer than 64 of them.
    """
    if _single(tokenizer, own.names) == list(own.names):
        return own
    found = _single(tokenizer, LETTERS)[:MOST]
    if len(found) < MOST:
        raise ReflectRLError(
            f"the tokenizer has {len(found)} single-token labels of {MOST}; take a model with another tokenizer"
        )
    return replace(in_order(tuple(found)), advice_last=own.advice_last)


def _single(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
    """Those of these labels that are one token."""
    ids = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    return [name for name, tokens in zip(names, ids, strict=True) if len(tokens) == 1]


def reflection_prompt(observation: str, last_action: str) -> str:
    """What the reflector continues with its reflection."""
    return f"{observation}\nLast: {last_action or 'none'}\nReflection:"


def policy_prompt(
    observation: str,
    last_action: str,
    actions: Sequence[str],
    reflection: str | None,
    labels: Sequence[str] | None = None,
) -> str:
    """What the policy answers with the label of one legal action; without a reflection where that is None.

    `labels` are the texts of the actions' labels, by default `[1]`, `[2]`, ...
    """
    names = IN_ORDER.names[: len(actions)] if labels is None else labels
    listed = " ".join(f"{name} {action}" for name, action in zip(names, actions, strict=True))
    thought = "" if reflection is None else f"\nReflection: {reflection}"
    return f"{observation}\nLast: {last_action or 'none'}{thought}\nActions: {listed}\nAnswer:"


def policy_prompt_ending_in_advice(
    observation: str, last_action: str, actions: Sequence[str], reflection: str | None, labels: Sequence[str]
) -> str:
    """Each label behind its action, then the reflection, and nothing behind the advice, not even its full stop: what comes
    next is what stood behind the advised action before."""
    listed = " ".join(f"{action} {name}" for name, action in zip(labels, actions, strict=True))
    end = "Answer:" if reflection is None else f"Reflection: {reflection.removesuffix('.')}"
    return f"{observation}\nLast: {last_action or 'none'}\nActions: {listed}\n{end}"


def policy_prompt_without_list(
    observation: str, last_action: str, actions: Sequence[str], reflection: str | None, labels: Sequence[str]
) -> str:
    """What the policy answers with an action's text."""
    thought = "" if reflection is None else f"\nReflection: {reflection}"
    return f"{observation}\nLast: {last_action or 'none'}{thought}\nAnswer:"


@dataclass(frozen=True)
class Format:
    """How prompts are written: by default as the players are trained to read them."""

    reflection: Callable[[str, str], str] = reflection_prompt
    policy: Callable[..., str] = policy_prompt


PLAIN, ADVICE_LAST = Format(), Format(policy=policy_prompt_ending_in_advice)
WITHOUT_LIST = Format(policy=policy_prompt_without_list)


def format_of(labels: Labels) -> Format:
    """How the prompts of a policy with these labels are written."""
    if isinstance(labels, Texts):
        return WITHOUT_LIST
    return ADVICE_LAST if labels.advice_last else PLAIN
