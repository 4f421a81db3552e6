"""Multi-layer perceptron, its dropout and normalisation, in float32 or with bfloat16 products."""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.linear import affine
from dlrm.nn.precision import ComputeDtype
from dlrm.ops import mlp as compiled
from dlrm.ops import products, ways


class MLP(nn.Module):
    """`x -> dropout(relu(norm(W x + b)))`, layer after layer, by default without dropout and norm.

    Weights are drawn from N(0, 2 / (n + k)) and biases from N(0, 1 / k) for a layer n -> k, as the
    original DLRM does.

    Args:
        sizes: Inputs of the first layer, then outputs of each, e.g. `(13, 512, 256, 64, 16)`.
        relu_last: Whether the last layer has its ReLU too.
        dtype: `bf16` multiplies and keeps activations in bfloat16, while parameters stay
            float32. The output is bfloat16 with a last ReLU, float32 without.
        dropout: Share of the activations that training sets to zero after each ReLU.
        batch_norm: Whether each layer with a ReLU normalises over the batch before it.

    Raises:
        ConfigError: `dropout` is not in [0, 1).

    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        relu_last: bool,
        dtype: ComputeDtype = "fp32",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout}, expected at least 0 and below 1")
        self.relu_last = relu_last
        self.dtype: ComputeDtype = dtype
        self.dropout = dropout
        self.layers = nn.ModuleList(_layer(n, k) for n, k in pairwise(sizes))
        for layer in self.linears():
            # A layer without memory has no numbers: torch would import its compiler, for a second.
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=sqrt(2 / sum(layer.weight.shape)))
                nn.init.normal_(layer.bias, std=sqrt(1 / layer.bias.shape[0]))
        self.generator: torch.Generator | None = None
        self._frozen: compiled.Packed | products.Rounded | None = None
        rectified = sizes[1:] if relu_last else sizes[1:-1]
        self.norms = nn.ModuleList(BatchNorm(k) for k in rectified) if batch_norm else None

    def linears(self) -> list[nn.Linear]:
        """Return the layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def plain(self) -> bool:
        """Whether there is nothing between a layer's product and its ReLU, or after it."""
        return self.norms is None and not self.drops

    @property
    def drops(self) -> bool:
        """Whether some of the activations are set to zero now."""
        return bool(self.dropout) and self.training

    def parameters_of_layers(self) -> list[Tensor]:
        """Return weight and bias of each layer."""
        layers = self.layers._modules.values()
        return [
            p
            for layer in layers
            if layer is not None
            for p in layer._parameters.values()
            if p is not None
        ]

    def freeze(self) -> None:
        """Prepare the weights for many calls without gradients: they must not change until `train`.

        Changes no output.
        """
        parameters = [parameter.detach() for parameter in self.layers.parameters()]
        if self.norms is None and all(p.dtype == torch.float32 for p in parameters):
            dtype = torch.bfloat16 if self.dtype == "bf16" else torch.float32
            relu = self.relu_last
            ours = ways.chosen_for(parameters, self.dtype)
            if ours is None:
                self._frozen = products.Rounded(parameters, dtype, relu_last=relu)
            else:
                self._frozen = compiled.Packed(parameters, ours, relu_last=relu)

    def train(self, mode: bool = True) -> "MLP":
        """Switch between training and evaluation; see `torch.nn.Module.train`."""
        if mode:
            self._frozen = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, sizes[0]) to (B, sizes[-1])."""
        if self._frozen is not None and not torch.is_grad_enabled():
            return self._frozen(x)
        dtype = torch.bfloat16 if self.dtype == "bf16" else torch.float32
        if self.norms is None and dtype in (torch.bfloat16, x.dtype):
            parameters = self.parameters_of_layers()
            ours = ways.chosen(x, parameters, self.dtype)
            if ours is not None:
                dropout = self._drawn(x.shape[0]) if self.drops else None
                return compiled.mlp(x, parameters, ours, relu_last=self.relu_last, dropout=dropout)
            if self.plain:
                return products.mlp(x, parameters, dtype, relu_last=self.relu_last)
        return self._layers(x, dtype)

    def _drawn(self, samples: int) -> compiled.Dropout:
        """Draw what is dropped after each ReLU of so many samples, as `_dropped` does."""
        rectified = self.linears() if self.relu_last else self.linears()[:-1]
        counts = [samples * layer.out_features for layer in rectified]
        draws = compiled.Dropout.draws
        return compiled.Dropout([draws(count, self.generator) for count in counts], self.dropout)

    def _layers(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        for i, layer in enumerate(self.linears()):
            if i == len(self.layers) - 1 and not self.relu_last:
                # A logit needs more digits than bfloat16 has.
                return layer(x.to(layer.weight.dtype))
            if dtype == torch.bfloat16:
                x = affine(x, layer.weight, layer.bias, dtype, dtype)
            else:
                x = layer(x)
            if self.norms is not None:
                x = self.norms[i](x)
            x = self._dropped(torch.relu(x))
        return x

    def _dropped(self, x: Tensor) -> Tensor:
        """Return x with some of its numbers 0 in training, as `F.dropout` has it."""
        if not self.drops:
            return x
        device = x.device if self.generator is None else self.generator.device
        if device.type == "cpu":
            dropout = compiled.Dropout(
                [compiled.Dropout.draws(x.numel(), self.generator)], self.dropout
            )
            kept = dropout.drawn[0][: x.numel()] >= dropout.least
            mask = kept.view(x.shape).to(x.dtype)
        else:
            mask = torch.empty(x.shape, dtype=x.dtype, device=device)
            mask.bernoulli_(1 - self.dropout, generator=self.generator)
        return x * mask.div_(1 - self.dropout).to(x.device)


def freeze(model: nn.Module) -> None:
    """Prepare all MLPs of a model for many calls without gradients; see `MLP.freeze`."""
    for module in model.modules():
        if isinstance(module, MLP):
            module.freeze()


def choose(model: nn.Module, rows: int) -> None:
    """Choose now how all MLPs of a model multiply, see `dlrm.ops.choice`.

    Args:
        model: Whatever it is; on another device than the CPU there is nothing to choose.
        rows: Samples of a training step.

    """
    for module in model.modules():
        if isinstance(module, MLP):
            for count in (rows, 0):
                ways.chosen_for(module.parameters_of_layers(), module.dtype, rows=count)


def _layer(n: int, k: int) -> nn.Linear:
    """Return a layer n -> k; without inputs, torch's own start of it would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(n, k)


class BatchNorm(nn.BatchNorm1d):
    """`(x - mean) / sqrt(var + eps) * weight + bias` for each of K numbers.

    Training takes mean and variance of the batch, anything else those that training has kept; so
    does a batch of one sample, which has no variance.

    Source: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift", arXiv 1502.03167.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, K)."""
        if self.training and input.shape[0] > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
