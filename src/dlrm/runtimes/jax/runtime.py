"""The runtime `jax`: a trained model by `jax.jit`, from the description of it as an artefact.

JAX itself is imported where an artefact is opened, so that everything can ask whether it is there.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.runtimes.runtime import Options, Runtime, Session
from dlrm.runtimes.trained import TrainedModel


class JAX(Runtime):
    """JAX on the CPU, in float32; tables that are compressed or of fewer bits become whole."""

    name = "jax"
    title = "JAX"
    suffix = ".jax.safetensors"
    packages = ("jax",)
    extra = "jax"

    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write the description of the model; see `Runtime.prepare`."""
        self.require()
        from dlrm.runtimes.jax.models import check

        if options.external:
            raise ConfigError("JAX reads weights out of one file: leave them inside, or take onnx")
        check(trained.net)
        trained.save(path)

    def open(self, path: Path, options: Options) -> "JaxSession":
        """Open what `prepare` wrote; see `Runtime.open`."""
        self.require()
        return JaxSession(TrainedModel.load(path))


class JaxSession(Session):
    """A trained model whose function is compiled anew for each power of two of samples and ids."""

    def __init__(self, trained: TrainedModel):
        super().__init__(trained.schema)
        from dlrm.runtimes.jax.inference import JaxModel

        self._model = JaxModel(trained.net)

    def _inputs(self, batch: Batch) -> Any:
        return self._model.inputs(batch)

    def run(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits (B, K), or the predictions of a regression."""
        return self._model.run(inputs)

    def describe(self) -> dict[str, Any]:
        """Return what computes; XLA takes all CPUs of the process, whatever is asked of it."""
        from jax import __version__

        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        return {
            "version": __version__,
            "threads": threads or os.cpu_count(),
            "precision": "fp32",
        }
