"""What is shared between processes is the identity in one."""

import torch

from reflect_rl.lm import distributed


def test_alone_it_is_the_identity():
    values = torch.tensor([1.0, 2.0])
    parameter = torch.nn.Parameter(values.clone())
    parameter.grad = values.clone()
    distributed.all_reduce_gradients([parameter])
    assert torch.equal(parameter.grad, values) and torch.equal(distributed.all_reduce(values), values)
    assert distributed.is_main() and not distributed.is_distributed()
    assert distributed.gather(distributed.shard([3, 1, 2])) == [3, 1, 2] and distributed.broadcast("x") == "x"
