"""Which label stands before a legal action in the policy's prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from zlib import crc32

from reflect_rl.core.errors import ReflectRLError


@dataclass(frozen=True)
class Labels:
    """A rule for the labels of legal actions, or (`lm.prompts.Texts`) for their texts where these are scored."""

    of: Callable[[Sequence[str]], tuple[int, ...]]  #: legal actions -> the numbers of their labels, all different
    names: tuple[str, ...]  #: the text of each label; numbers are below their count
    #: whether labels stand behind their actions, and the policy's prompt ends in the reflection, whose last words are then the
    #: advised action: a small model from scratch soon learns to go on with what stood behind these words in the list
    advice_last: bool = False

    def texts(self, numbers: Sequence[int]) -> list[str]:
        return [self.names[number] for number in numbers]


def bracketed(most: int) -> tuple[str, ...]:
    """`[1]`, `[2]`, ...: one token each of the tokenizers that are trained here."""
    return tuple(f"[{i + 1}]" for i in range(most))


def in_order(names: tuple[str, ...]) -> Labels:
    """The first label for the first action, and so on."""
    return Labels(lambda actions: tuple(range(len(actions))), names)


IN_ORDER = in_order(bracketed(64))


def by_name(label_key: Callable[[str], str], most: int) -> Labels:
    """Labels that an action keeps from state to state: a hash of its `label_key`, the part that tells it from others.

    Where two legal actions meet, the later one takes the next free label. A small model from scratch learns which label
    a name has much sooner than to look it up in a list of dozens; a pretrained one may not need it.
    """
    return Labels(partial(_by_name, label_key, most), bracketed(most))


def _by_name(label_key: Callable[[str], str], most: int, actions: Sequence[str]) -> tuple[int, ...]:
    if len(actions) > most:
        raise ReflectRLError(f"{len(actions)} legal actions have {most} labels; give the environment more labels")
    taken: dict[int, None] = {}
    for action in actions:
        number = _hashed(label_key, action) % most
        while number in taken:
            number = (number + 1) % most
        taken[number] = None
    return tuple(taken)


@cache
def _hashed(label_key: Callable[[str], str], action: str) -> int:
    return crc32(label_key(action).encode())
