"""Eager PyTorch with this project's own kernels, from a safetensors file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.nn.mlp import freeze
from dlrm.ops import describe
from dlrm.runtimes.runtime import Options, Runtime, Session
from dlrm.runtimes.trained import TrainedModel


class TorchEager(Runtime):
    """The project's own path: what `Predictor` runs."""

    name, title, suffix = "eager", "PyTorch eager", ".safetensors"

    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write the description of the model; see `Runtime.prepare`."""
        trained.save(path)

    def open(self, path: Path, options: Options) -> "EagerSession":
        """Open the description of a model; see `Runtime.open`."""
        return EagerSession(TrainedModel.load(path))


class EagerSession(Session):
    """The model itself, its MLPs packed."""

    def __init__(self, trained: TrainedModel):
        super().__init__(trained.schema)
        freeze(trained.net)
        self._net, self._dtype = trained.net, trained.dtype
        self.reduced = None if trained.dtype == "fp32" else trained.dtype

    def _inputs(self, batch: Batch) -> Batch:
        return batch

    def run(self, inputs: Batch) -> NDArray[np.float32]:
        """Return the logits (B, K); see `Session.run`."""
        with torch.inference_mode():
            return self._net(inputs).float().numpy()

    def describe(self) -> dict[str, Any]:
        """Return version, threads, precision and kernels."""
        return {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": self._dtype,
            "kernels": describe(),
        }
