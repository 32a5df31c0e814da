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


def is_distributed() -> bool:
    """Whether there is more than one process."""
    return _state().num_processes > 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return _state().is_main_process


def shard(items: Sequence[T]) -> Sequence[T]:
    """This process's part of the items: every n-th."""
    return items[_state().process_index :: _state().num_processes]


def gather(parts: Sequence[T]) -> list[T]:
    """All items, in their order, from the parts that `shard` made of them."""
    if not is_distributed():
        return list(parts)
    n = _state().num_processes
    gathered = gather_object([(_state().process_index + n * i, part) for i, part in enumerate(parts)])
    return [part for _, part in sorted(gathered, key=lambda pair: pair[0])]


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the processes."""
    return reduce(tensor, "sum") if is_distributed() else tensor


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Put the sum over the processes into every gradient; one that a process lacks counts as zero."""
    if is_distributed():
        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = all_reduce(own)


def broadcast(value: T) -> T:
    """The main process's value."""
    if not is_distributed():
        return value
    held = [value]
    broadcast_object_list(held)
    return held[0]


def barrier() -> None:
    """Wait until all processes are here."""
    _state().wait_for_everyone()
