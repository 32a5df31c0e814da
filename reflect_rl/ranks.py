"""One run on several processes: who does what, and putting it together.

Started by `python -m torch.distributed.run --nproc-per-node 4 -m reflect_rl train`, or by accelerate's own launcher.

In a process of its own everything here is the identity.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce

T = TypeVar("T")


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())


def device() -> torch.device:
    """Where this process's models live: a GPU of its own, else main memory."""
    return _state().device


def several() -> bool:
    """Whether there is more than one process."""
    return _state().num_processes > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return _state().is_main_process


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of the items: every n-th."""
    return items[_state().process_index :: _state().num_processes]


def together(parts: Sequence[T]) -> list[T]:
    """All items, in their order, from the parts that `share` made of them."""
    if not several():
        return list(parts)
    n = _state().num_processes
    gathered = gather_object([(_state().process_index + n * i, part) for i, part in enumerate(parts)])
    return [part for _, part in sorted(gathered, key=lambda pair: pair[0])]


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the processes."""
    return reduce(tensor, "sum") if several() else tensor


def add_up_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Put the sum over the processes into every gradient; one that a process lacks counts as zero."""
    if several():
        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = add_up(own)


def from_first(value: T) -> T:
    """The first process's value."""
    if not several():
        return value
    held = [value]
    broadcast_object_list(held)
    return held[0]


def wait() -> None:
    """Until all processes are here."""
    _state().wait_for_everyone()
