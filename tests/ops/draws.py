"""Random inputs for kernels, and what the oracle makes of them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

UNROLLED = (8, 10, 16, 32, 64, 128)
IN_PARTS = (12, 24, 40, 48, 100)
"""Dimensions that consist of vectors of several lengths."""
Kind = Literal["fp32", "bf16", "split"]


def dims(seed: int, count: int = 14) -> list[int]:
    """The dimensions that are unrolled, common others, the ends, and some that the seed draws."""
    return [*UNROLLED, *IN_PARTS, 1, 4, 130, *random.Random(seed).sample(range(2, 130), count)]


@dataclass
class Draw:
    """Looked-up rows of one weight with a gradient for each."""

    generator: torch.Generator
    weight: Tensor
    rows: Tensor
    grad: Tensor

    def state(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)


def draw(seed: int, dim: int, *, rows: int | None = None, count: int | None = None) -> Draw:
    """A weight and rows with many duplicates; the first and the last row are always looked up."""
    generator = torch.Generator().manual_seed(seed)
    pick = random.Random(seed)
    rows = rows or pick.choice([1, 2, 7, 50, 3000])
    count = count if count is not None else pick.choice([2, 63, 255, 257, 2000])
    weight = torch.randn(rows, dim, generator=generator)
    # Half of the draws are squared, so that a few rows come often.
    uniform = torch.rand(count, generator=generator)
    uniform[::2] = uniform[::2] ** 4
    at = (uniform * rows).long().clamp(max=rows - 1)
    at[:1], at[1:2] = 0, rows - 1
    return Draw(generator, weight, at, torch.randn(count, dim, generator=generator))


def bags(seed: int, count: int, longest: int = 100) -> Tensor:
    """Offsets of so many bags, many of them empty."""
    pick = random.Random(seed)
    lengths = [pick.choice([0, 0, 1, 2, pick.randint(0, longest)]) for _ in range(count)]
    return torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()])


def assert_same_bits_on_threads(kernel: Callable[[], Sequence[Tensor]]) -> None:
    """A kernel on fresh inputs returns the same bits on one thread and on several."""
    outcomes = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)  # the fixture `one_thread` takes it back
        outcomes.append(kernel())
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))
