"""The original's command line with JAX as the framework: its flags, data and printed lines.

The original came in PyTorch and in Caffe2, so that frameworks could be set against each other; this
is the second one today. Parameters are drawn, and files are written and read, as with PyTorch.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

from dlrm.batch import Batch
from dlrm.compat import dlrm_s_pytorch
from dlrm.compat.engine import PyTorch, bounded, rate
from dlrm.compat.flags import Flags
from dlrm.compat.saved_model import State
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.parallel.world import World
from dlrm.runtimes.jax.runtime import JAX as RUNTIME

PROGRAM = "dlrm_s_jax"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; see `dlrm_s_pytorch.main`."""
    return dlrm_s_pytorch.main(arguments, JAX, PROGRAM)


class JAX:
    """The engine of `dlrm_s_jax`, on one process; see `dlrm.compat.engine.Engine`.

    Raises:
        MissingExtraError: JAX is not installed.
        ConfigError: A flag asks for what JAX does not do here; says what to take instead.

    """

    def __init__(self, flags: Flags, model: DLRM, rng: RandomState, world: World):
        RUNTIME().require()
        from dlrm.runtimes.jax.inference import JaxModel
        from dlrm.runtimes.jax.losses import original_loss
        from dlrm.runtimes.jax.step import JaxStep

        for asked, what in (
            (world.size > 1, "several processes"),
            (flags.qr_flag, "--qr-flag"),
            (flags.mlperf_logging and flags.mlperf_grad_accum_iter > 1, "--mlperf-grad-accum-iter"),
            (flags.quantize_mlp_with_bit < 32, "--quantize-mlp-with-bit"),
        ):
            if asked:
                raise ConfigError(f"{PROGRAM} does without {what}: take dlrm_s_pytorch")
        self._flags = flags
        self._torch = PyTorch(flags, model, rng, world)
        self.loaded = self._torch.loaded
        self._model = self._step = None
        if self._torch.optimizer is None:
            self._model = JaxModel(model)
            return
        self._step = JaxStep(
            model,
            self._torch.optimizer,
            original_loss(flags.loss_function, flags.loss_weights, flags.loss_threshold),
            rate=lambda number: rate(flags, number),
            steps=self.loaded.steps if self.loaded else 0,
            samples=flags.mini_batch_size,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps since the start of training."""
        assert self._step is not None
        return self._step.steps

    def step(self, batch: Batch) -> float:
        """Train on a batch and return its mean loss."""
        assert self._step is not None
        return self._step(batch).item()

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (B, 1) of a batch, within --loss-threshold."""
        if self._step is not None:
            return bounded(self._flags, self._step.predict(batch))
        assert self._model is not None
        return bounded(self._flags, torch.from_numpy(self._model.logits(batch)))

    def parameters(self) -> list[NDArray[np.float32]]:
        """Return all parameters: those of each table, then weight and bias of each layer."""
        if self._step is not None:
            self._step.write_back()
        return self._torch.parameters()

    def save(self, state: State) -> None:
        """Write the file of `--save-model`, which either framework goes on from."""
        self._torch.save(state)


if __name__ == "__main__":
    sys.exit(main())
