"""Where a run computes: on the CPU, or on a GPU."""

from itertools import chain
from typing import Literal, get_args

import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError, unknown
from dlrm.nn.embedding import embeddings_of

DeviceName = Literal["auto", "cpu", "cuda"]
"""auto is a GPU where torch has one, else the CPU."""


def resolve_device(name: str = "auto", local_rank: int = 0, local_size: int = 1) -> torch.device:
    """Return the device of a name.

    Args:
        name: One of `DeviceName`, or what else torch calls a device that it has, such as `xpu`.
        local_rank: Number of this process on its host; each takes the GPU of its number.
        local_size: Processes on this host: they compute on GPUs together, or none of them does.

    Raises:
        ConfigError: There is no such device; or it is `cuda`, and torch has none, or fewer than
            processes.

    """
    if name not in get_args(DeviceName):
        return _other(name)
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if max(local_rank, local_size - 1) < count:
        return torch.device("cuda", local_rank)
    if name == "auto":
        return torch.device("cpu")
    if count:
        raise ConfigError(
            f"device is cuda, but this is process {local_rank} of its machine, which has {count} "
            f"CUDA device{'s' if count > 1 else ''}: start at most one process for each"
        )
    raise ConfigError(
        f"device is cuda, but torch {torch.__version__} has no CUDA device here: "
        + (
            "it is built for CPUs alone; on Linux `pip install torch`, without constraints.txt, "
            "installs one that is not"
            if torch.version.cuda is None
            else "the machine has no NVIDIA GPU, or its driver is missing"
        )
    )


def _other(name: str) -> torch.device:
    """Return a device that torch knows by another name; a backend of one's own may be registered.

    Raises:
        ConfigError: Torch does not know it; lists the choices.

    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, NotImplementedError, AssertionError):
        raise unknown("device", name, get_args(DeviceName)) from None
    return device


def device_of(model: nn.Module) -> torch.device:
    """Return the device that a model is on: that of its first parameter or buffer."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


class Transfer:
    """Takes batches to where a model is, their ids known to be in range.

    On a CPU embeddings check ids as they look them up. Elsewhere to look at ids is to wait for the
    device, so they are checked before they go there.

    Args:
        model: Whose embeddings say what is in range.
        device: Where it is; None asks its parameters.

    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None):
        self.device = device_of(model) if device is None else torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._layouts = [] if on_cpu else [e.layout for e in embeddings_of(model) if not e.derived]

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch on the device; one that is there already is taken as it is.

        Raises:
            IdError: An id is out of range; names the feature.

        """
        if batch.labels.device == self.device:
            return batch
        for layout in self._layouts:
            layout.check(batch)
        return batch.to(self.device, non_blocking=True)
