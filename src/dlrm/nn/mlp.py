"""Multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """`x -> relu(W x + b)`, layer after layer.

    Weights are drawn from N(0, 2 / (n + k)) and biases from N(0, 1 / k) for a layer n -> k, as the
    original DLRM does.

    Args:
        sizes: Inputs of the first layer, then outputs of each, e.g. `(13, 512, 256, 64, 16)`.
        relu_last: Whether the last layer has its ReLU too; False leaves its outputs as they are.

    """

    def __init__(self, sizes: Sequence[int], *, relu_last: bool):
        super().__init__()
        self.relu_last = relu_last
        self.layers = nn.ModuleList(nn.Linear(n, k) for n, k in pairwise(sizes))
        for layer in self.linears():
            nn.init.normal_(layer.weight, std=sqrt(2 / sum(layer.weight.shape)))
            nn.init.normal_(layer.bias, std=sqrt(1 / layer.bias.shape[0]))

    def linears(self) -> list[nn.Linear]:
        """Return the layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, sizes[0]) to (B, sizes[-1])."""
        last = len(self.layers) - 1
        for position, layer in enumerate(self.layers):
            x = layer(x)
            if position < last or self.relu_last:
                x = torch.relu(x)
        return x
