"""The training step in JAX, in place of `dlrm.training.step.TrainStep`.

    batch -> inputs of few shapes -> rows gathered -> forward, loss, gradients -> clip -> update

Tables stay outside of what is differentiated: gradients are of the rows that were gathered, and
their updates are scattered into the tables, whose memory is donated and changed in place.

The numbers are JAX's from the first step on. The torch model and its optimizer, which evaluations
and checkpoints read, get them whenever somebody asks these for their numbers or for logits.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.standardized import Standardized
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.optim import SparseOptimizer
from dlrm.runtimes.jax.feed import Feed, Inputs, embeddings_by_name
from dlrm.runtimes.jax.layers import Params
from dlrm.runtimes.jax.losses import Loss, loss_function
from dlrm.runtimes.jax.models import check, gathered, logits
from dlrm.runtimes.jax.updates import (
    State,
    adds_up,
    rates,
    summed,
    update_dense,
    update_of,
    update_table,
)
from dlrm.training.loop import Loop


class JaxStep:
    """`step(batch) -> loss`, for a model of the catalogue with plain tables in float32, on the CPU.

    Args:
        model: `forward(batch) -> logits (B, K)`; its parameters are where training starts.
        optimizer: Of its parameters, and of `dlrm.optim`.
        loss: Of each sample and label.
        rate: Number of a step, from 1 -> its learning rate; None leaves that of the optimizer.
        clip: Largest norm of all gradients together; 0 for any.
        steps: Taken before.
        draws: Says which units are dropped, by JAX's random numbers, where the model drops any.
        samples: Of a whole batch, to which the last of an epoch is padded; 0 pads each to a power
            of two.

    Raises:
        ConfigError: The model, its tables or its optimizer are none that JAX trains; says what to
            take instead.

    """

    logits: Tensor
    """(B, K), of the last step, before its update"""

    def __init__(
        self,
        model: nn.Module,
        optimizer: SparseOptimizer,
        loss: Loss,
        *,
        rate: Callable[[int], float] | None = None,
        clip: float = 0.0,
        steps: int = 0,
        draws: torch.Generator | None = None,
        samples: int = 0,
    ):
        self._draws, mlps = draws, model.named_modules()
        self._dropped = [name for name, m in mlps if isinstance(m, MLP) and m.dropout]
        """Names of MLPs with dropout."""
        self.optimizer, self.rate, self.steps = optimizer, rate, steps
        self._model, self._loss, self._clip = model, loss, clip
        self._update = update_of(optimizer)
        _check(model)
        self._feed = Feed(model, samples=samples, distinct=bool(clip) or adds_up(optimizer))
        groups = {id(p): n for n, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self._groups = {name: groups[id(p)] for name, p in model.named_parameters()}
        """Name of a parameter -> number of its group."""
        self._tables = {f"{name}.weight": name for name in self._feed.embeddings}
        """Name of a table's parameter -> that of its embeddings."""
        self._weights = {name: self._array(p) for name, p in model.named_parameters()}
        self._state = {
            name: {
                key: self._array(optimizer.state[p][key])
                for key in optimizer.state[p]
                if key != "step"
            }
            for name, p in model.named_parameters()
        }
        buffers = model.state_dict().items()
        self._buffers = {name: self._array(b) for name, b in buffers if name not in self._weights}
        self._compiled = jax.jit(self._step, donate_argnums=(0, 1))
        self._predict = jax.jit(self._forward)
        self.compiled = 0
        """How often the step was compiled: once for each shape of its inputs."""
        self._newer = False
        # Whoever reads numbers of the model asks for its state dict, or for logits; and what is
        # loaded into it meanwhile must not be overwritten by an older step.
        for register in (
            model.register_state_dict_pre_hook,
            model.register_load_state_dict_pre_hook,
            model.register_forward_pre_hook,
        ):
            register(lambda *_: self.write_back())

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch and return its mean loss, a scalar.

        Raises:
            IdError: An id is out of range; names the feature.

        """
        self.steps += 1
        inputs = self._feed(batch)
        scalars = []
        for group in self.optimizer.param_groups:
            if self.rate is not None:
                group["lr"] = self.rate(self.steps)
            self.optimizer.start_step(group)
            scalars.append(rates(self.optimizer, group))
        # Nothing is drawn for others, so that their generator stands where PyTorch's does.
        seed = int(torch.randint(2**31, (), generator=self._draws)) if self._dropped else 0
        loss, logits, self._weights, self._state = self._compiled(
            self._weights, self._state, inputs, scalars, np.uint32(seed)
        )
        self._newer = True
        jax.block_until_ready(self._weights)
        self.logits = torch.from_dlpack(logits)[: len(batch)]
        return torch.from_dlpack(loss)

    @torch.no_grad()
    def write_back(self) -> None:
        """Let the torch model and its optimizer have the numbers of the last step."""
        if not self._newer:
            return
        self._newer = False
        for name, parameter in self._model.named_parameters():
            parameter.copy_(torch.from_dlpack(self._weights[name]))
            for key, value in self._state[name].items():
                self.optimizer.state[parameter][key].copy_(torch.from_dlpack(value))

    def predict(self, batch: Batch) -> Tensor:
        """Return the logits (B, K) of a batch with the parameters as they are now."""
        return torch.from_dlpack(self._predict(self._weights, self._feed(batch)))[: len(batch)]

    def _array(self, tensor: Tensor) -> Array:
        # A copy of its own, whose memory can be donated.
        return jnp.array(tensor.detach().numpy(), copy=True, device=jax.devices("cpu")[0])

    def _forward(self, weights: dict[str, Array], inputs: Inputs) -> Array:
        tables = {name: weights[key] for key, name in self._tables.items()}
        return self._logits(weights, gathered(self._feed, tables, inputs), inputs)

    def _logits(self, dense: Params, vectors: Params, inputs: Inputs) -> Array:
        return logits(self._model, self._feed, {**dense, **self._buffers}, vectors, inputs)

    def _step(
        self,
        weights: dict[str, Array],
        state: dict[str, State],
        inputs: Inputs,
        scalars: Sequence[tuple[Array, Array]],
        seed: Array,
    ) -> tuple[Array, Array, dict[str, Array], dict[str, State]]:
        """Return loss, logits, and what weights and state become; rate and eps are by group."""
        self.compiled += 1
        key = jax.random.key(seed)
        keys = {f"{m}.dropout": jax.random.fold_in(key, n) for n, m in enumerate(self._dropped)}

        def objective(dense: Params, vectors: Params) -> tuple[Array, Array]:
            z = self._logits({**dense, **keys}, vectors, inputs)
            losses = self._loss(z, jnp.asarray(inputs.labels)) * inputs.weights[:, None]
            return losses.sum() / (inputs.samples * z.shape[1]), z

        tables = {name: weights[key] for key, name in self._tables.items()}
        dense = {key: w for key, w in weights.items() if key not in self._tables}
        vectors = gathered(self._feed, tables, inputs)
        differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (loss, z), (grads, of_vectors) = differentiate(dense, vectors)
        lookups = {
            key: inputs.lookups[self._feed.source[name]] for key, name in self._tables.items()
        }
        for key, name in self._tables.items():
            grads[key] = summed(lookups[key], of_vectors[name])
        if self._clip:
            norm = jnp.sqrt(sum(jnp.square(g).sum() for g in grads.values()))
            factor = jnp.minimum(self._clip / (norm + 1e-6), 1.0)
            grads = {key: g * factor for key, g in grads.items()}
        updated = {}
        for key, w in weights.items():
            number = self._groups[key]
            group, of_step = self.optimizer.param_groups[number], scalars[number]
            if key in self._tables:
                updated[key] = update_table(
                    self._update, group, lookups[key], w, state[key], grads[key], *of_step
                )
            else:
                updated[key] = update_dense(
                    self._update, group, w, state[key], grads[key], *of_step
                )
        return (
            loss,
            z,
            {key: w for key, (w, _) in updated.items()},
            {key: new for key, (_, new) in updated.items()},
        )


def jax_step(loop: Loop, steps: int) -> JaxStep:
    """Return the step of a training, of which so many were taken before; errors as of `JaxStep`."""
    config, model, optimizer = loop.config, loop.built.model, loop.optimizer
    assert isinstance(optimizer, SparseOptimizer)
    scale = model.deviation if isinstance(model, Standardized) else None
    return JaxStep(
        model,
        optimizer,
        loss_function(config.loss, loop.dataset.schema.task, scale),
        rate=lambda number: config.optim.rate(number, loop.last_step),
        clip=config.clip,
        steps=steps,
        draws=loop.draws.host,
        samples=config.loader.batch_size,
    )


def _check(model: nn.Module) -> None:
    """Raise a ConfigError unless JAX can train a model; says what to take instead."""
    check(model)
    problem = None
    for part in embeddings_by_name(model).values():
        if type(part) is not EmbeddingCollection or part.storage != "fp32":
            problem = "tables that are compressed or not stored in fp32"
    for module in model.modules():
        if getattr(module, "dtype", "fp32") == "bf16":
            problem = "products in bf16"
        elif isinstance(module, MLP) and module.norms is not None:
            problem = "batch norm"
    if problem is not None:
        raise ConfigError(f"JAX does not train {problem}: do without, or take PyTorch")
