"""Gradients of what every process has: the sums over processes, whatever each of them computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlrm.parallel import gradients
from dlrm.parallel.gradients import GradientSums
from dlrm.parallel.world import World

from .ranks import Ranks


class Net(nn.Module):
    """Three layers, of which some batches use only two."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 40), nn.Linear(40, 40), nn.Linear(40, 1)
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor, *, all_layers: bool = True) -> Tensor:
        x = self.first(x).tanh()
        if all_layers:
            x = self.second(x).tanh()
        return self.last(x) * self.fixed * self.scale


def inputs(rank: int, step: int) -> Tensor:
    return torch.randn(4 + rank, 3, generator=torch.Generator().manual_seed(10 * step + rank))


def backward(world: World, bucket_bytes: int, uses: tuple[bool, ...], set_to_none: bool):
    """Return the gradients of two steps, with as many of all processes as of this one alone."""
    torch.manual_seed(world.rank)
    net = Net()
    before = gradients.FIRST_BUCKET_BYTES, gradients.BUCKET_BYTES
    gradients.FIRST_BUCKET_BYTES = gradients.BUCKET_BYTES = bucket_bytes
    try:
        sums = GradientSums(net.parameters(), world.group)
    finally:
        gradients.FIRST_BUCKET_BYTES, gradients.BUCKET_BYTES = before
    found, expected = [], []
    for step in range(2):
        own = Net()
        own.load_state_dict(net.state_dict())
        for rank in range(world.size):
            own(inputs(rank, step), all_layers=uses[rank]).square().sum().backward()
        expected.append({name: p.grad for name, p in own.named_parameters()})
        output = sums.of(net(inputs(world.rank, step), all_layers=uses[world.rank]))
        output.square().sum().backward()
        found.append({name: None if p.grad is None else p.grad.clone()
                      for name, p in net.named_parameters()})  # fmt: skip
        net.zero_grad(set_to_none=set_to_none)
    return net.state_dict(), found, expected


@pytest.mark.parametrize("bucket_bytes", [1, 200, 1 << 20])
@pytest.mark.parametrize("uses", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_are_sums_over_processes(ranks: Ranks, bucket_bytes, uses, set_to_none):
    answers = ranks.run(backward, bucket_bytes, uses, set_to_none, world=3)
    for state, found, expected in answers:
        # Parameters start as those of the first process.
        assert all(state[name].equal(tensor) for name, tensor in answers[0][0].items())
        for mine, wanted in zip(found, expected, strict=True):
            assert mine["fixed"] is None
            for name, gradient in wanted.items():
                if gradient is not None:
                    torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-6)


def accumulated(world: World) -> list[dict[str, Tensor | None]]:
    """Return the gradients of two backward passes together, and those of one process."""
    torch.manual_seed(0)
    net, own = Net(), Net()
    own.load_state_dict(net.state_dict())
    sums = GradientSums(net.parameters(), world.group)
    for step in range(2):
        sums.of(net(inputs(world.rank, step))).square().sum().backward()
        for rank in range(world.size):
            own(inputs(rank, step)).square().sum().backward()
    return [{name: p.grad for name, p in each.named_parameters()} for each in (net, own)]


def test_gradients_of_several_backward_passes_add_up(ranks: Ranks):
    for sums, expected in ranks.run(accumulated, world=2):
        torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-6)


def unused(world: World) -> tuple[Tensor | None, Tensor | None]:
    net = Net()
    sums = GradientSums(net.parameters(), world.group)
    sums.of(net(inputs(world.rank, 0), all_layers=False)).sum().backward()
    with torch.no_grad():
        assert not net(inputs(0, 0)).requires_grad
    of_nothing = net.second.bias.grad
    # What does not come from the model as a whole is not summed.
    net.zero_grad()
    net(torch.ones(1, 3)).sum().backward()
    return of_nothing, net.last.bias.grad


def test_what_no_process_uses_has_a_gradient_of_zero(ranks: Ranks):
    for of_nothing, gradient in ranks.run(unused, world=2):
        assert of_nothing is not None
        assert not of_nothing.any()
        assert gradient is not None
        assert gradient.item() == 1.0
