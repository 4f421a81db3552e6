"""Matrix products in float32, bfloat16 and int8, by MKL and by oneDNN."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.bench.machine.probe import Probe, Way

SHAPES = (
    (256, 256, 256),
    (2048, 512, 512),
    (1024, 1024, 1024),
    (4096, 1024, 1024),
    (4096, 2048, 2048),
)
"""m, k, n, smaller products first. The first says whether the others are worth the time."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def probes(threads: Sequence[int]) -> Iterator[Probe]:
    """Return what measures products, named e.g. `bf16 2`.

    Args:
        threads: Numbers of threads.

    """
    for name, dtype in DTYPES.items():
        numbers = _numbers(dtype)
        for each in threads:
            yield Probe(f"{name} {each}", each, list(_ways(numbers)))


def _numbers(dtype: torch.dtype) -> Tensor:
    """Return as many random numbers as the largest operand has."""
    count = max(max(m * k, k * n) for m, k, n in SHAPES)
    drawn = torch.Generator().manual_seed(0)
    if dtype == torch.int8:
        return torch.randint(-128, 128, (count,), generator=drawn, dtype=dtype)
    return torch.randn(count, generator=drawn).to(dtype)


def _ways(numbers: Tensor) -> Iterator[Way]:
    """Yield products whose operands are pieces of the same numbers."""
    kinds = _int8 if numbers.dtype == torch.int8 else _floating
    for m, k, n in SHAPES:
        a, b, b_t = (numbers[: r * c].view(r, c) for r, c in ((m, k), (k, n), (n, k)))
        for kind, run in kinds(a, b, b_t).items():
            yield Way(kind, 2 * m * k * n, run)


def _floating(a: Tensor, b: Tensor, b_t: Tensor) -> dict[str, Callable[[], Tensor]]:
    kinds = {"matmul": lambda: a @ b, "linear": lambda: F.linear(a, b_t)}
    if torch.backends.mkldnn.is_available():
        # For float32 torch asks MKL; this asks oneDNN, which is faster on some CPUs.
        onednn = torch.ops.mkldnn._linear_pointwise
        kinds["onednn"] = lambda: onednn(a, b_t, None, "none", [], "")
    return kinds


def _int8(a: Tensor, b: Tensor, b_t: Tensor) -> dict[str, Callable[[], Tensor]]:
    multiply = torch.ops.aten._int_mm
    return {"rows": lambda: multiply(a, b), "columns": lambda: multiply(a, b_t.t())}
