"""`--quantize-emb-with-bit` and `--quantize-mlp-with-bit`: fewer bits, for inference only.

Tables take 8 or 4 bits a number, see `dlrm.nn.quantized`; layers 8 or 16.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrm.compat.flags import Flags
from dlrm.compat.model import WeightedPooling
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.nn.codes import Bits, row_bytes
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.nn.quantized import QuantizedCollection
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.world import World

Range = tuple[float, float]
"""Least and greatest number."""


def quantize(flags: Flags, model: DLRM, world: World) -> None:
    """Quantise a model in place, as far as the flags ask for it.

    Prints the bytes of each table once; the original prints them again at each batch.
    """

    def over_all(local: Range) -> Range:
        low, high = torch.stack(world.gather(torch.tensor([local], dtype=torch.float64))).unbind(-1)
        return float(low.min()), float(high.max())

    if (mlp_bits := flags.quantize_mlp_with_bit) != 32:
        assert model.bottom is not None
        model.bottom = QuantizedMLP(model.bottom, mlp_bits, over_all)  # pyright: ignore[reportAttributeAccessIssue]
        model.top = QuantizedMLP(model.top, mlp_bits, over_all)  # pyright: ignore[reportAttributeAccessIssue]
    if flags.quantize_emb_with_bit == 32:
        return
    weighted = model.embeddings if isinstance(model.embeddings, WeightedPooling) else None
    tables = weighted.tables if weighted else model.embeddings
    if not isinstance(tables, EmbeddingCollection | ShardedCollection):
        raise ConfigError("--quantize-emb-with-bit is for plain tables")
    bits: Bits = 4 if flags.quantize_emb_with_bit == 4 else 8
    width = row_bytes(tables.dim, bits)
    for num_embeddings in tables.layout.sizes:
        print("quantized emb sizes:", num_embeddings * width, num_embeddings * width)
    if isinstance(tables, ShardedCollection):
        for unit in tables.typed_units():
            unit.store = QuantizedCollection.of(unit.store, bits)  # pyright: ignore[reportAttributeAccessIssue]
        return
    quantized = QuantizedCollection.of(tables, bits)
    if weighted:
        weighted.tables = quantized
    else:
        model.embeddings = quantized


class QuantizedMLP(nn.Module):
    """An MLP with fewer bits, by the arithmetic of torch's dynamic quantisation.

    16 bits: weights are rounded to float16, and products are float32's. 8 bits: with W = s_w w and
    w whole numbers from -128 to 127, and x = s_x (u - z) with u from 0 to 127, both scales as small
    as the numbers allow, that of x batch by batch,

        x W^T + b = s_x s_w (u - z) w^T + b

    The MLP is left as it is. `over_all` makes the range of this process' numbers that of all.
    """

    def __init__(
        self, mlp: MLP, bits: int, over_all: Callable[[Range], Range] = lambda range_: range_
    ):
        super().__init__()
        self.over_all = over_all
        self.relu_last = mlp.relu_last
        self.layers = [_packed(layer, bits) for layer in mlp.linears()]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        for number, (weight, scale, bias) in enumerate(self.layers, start=1):
            x, scale_x = self._rounded(x) if weight.dtype == torch.int8 else (x, 1.0)
            # Sums of whole numbers: float32 holds them exactly for up to a thousand inputs.
            x = F.linear(x, weight.float()) * (scale * scale_x) + bias
            if number < len(self.layers) or self.relu_last:
                x = torch.relu(x)
        return x

    def _rounded(self, x: Tensor) -> tuple[Tensor, float]:
        """Return u - z, whole numbers, and the scale of x; 0 is one of the numbers that remain."""
        local = (min(float(x.min()), 0.0), max(float(x.max()), 0.0)) if len(x) else (0.0, 0.0)
        low, high = self.over_all(local)
        scale = (high - low) / 127 or 1.0
        zero = round(-low / scale)
        return (x / scale).round().add(zero).clamp(0, 127).sub(zero), scale


def _packed(layer: nn.Linear, bits: int) -> tuple[Tensor, float, Tensor]:
    """Return weight, its scale, and bias."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if bits == 16:
        most = torch.finfo(torch.float16).max
        return weight.clamp(-most, most).half(), 1.0, bias
    # The codes -128 to 127 reach as far as the largest weight.
    scale = max(float(weight.abs().max()) / 127.5, torch.finfo(torch.float32).eps)
    return (weight / scale).round().clamp(-128, 127).to(torch.int8), scale, bias
