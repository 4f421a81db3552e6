"""`--quantize-emb-with-bit` and `--quantize-mlp-with-bit`: fewer bits, for inference only.

Tables take 8 or 4 bits a number, see `dlrm.nn.quantized`. Layers keep their weights in 8 bits, with
one scale a layer, and round their inputs to 7 bits batch by batch; or they keep them in float16.
"""

import torch
from torch import Tensor, nn

from dlrm.compat.flags import Flags
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.nn.quantized import QuantizedCollection
from dlrm.nn.weighted import WeightedPooling


def quantize(flags: Flags, model: DLRM) -> None:
    """Quantise a model in place, as far as the flags ask for it.

    Prints the bytes of each table once; the original prints them again at each batch.
    """
    if flags.quantize_mlp_with_bit != 32:
        model.bottom = QuantizedMLP(model.bottom, flags.quantize_mlp_with_bit)  # pyright: ignore[reportAttributeAccessIssue]
        model.top = QuantizedMLP(model.top, flags.quantize_mlp_with_bit)  # pyright: ignore[reportAttributeAccessIssue]
    if flags.quantize_emb_with_bit == 32:
        return
    weighted = model.embeddings if isinstance(model.embeddings, WeightedPooling) else None
    tables = weighted.tables if weighted else model.embeddings
    if not isinstance(tables, EmbeddingCollection):
        raise ConfigError("--quantize-emb-with-bit is for plain tables")
    made = QuantizedCollection.of(tables, 4 if flags.quantize_emb_with_bit == 4 else 8)
    for rows in made.rows:
        size_bytes = rows * made.packed.shape[1]
        print("quantized emb sizes:", size_bytes, size_bytes)
    if weighted:
        weighted.tables = made
    else:
        model.embeddings = made


class QuantizedMLP(nn.Module):
    """An MLP whose products are those of torch's dynamic quantisation.

    Args:
        mlp: Left as it is.
        bits: 8 or 16, of a weight.

    """

    def __init__(self, mlp: MLP, bits: int):
        super().__init__()
        self.relu_last = mlp.relu_last
        self.bits = bits
        self.packed = [_pack(layer, bits) for layer in mlp.linears()]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        for number, packed in enumerate(self.packed, start=1):
            if self.bits == 16:
                x = torch.ops.quantized.linear_dynamic_fp16(x, packed)
            else:
                x = torch.ops.quantized.linear_dynamic(x, packed, True)
            if number < len(self.packed) or self.relu_last:
                x = torch.relu(x)
        return x


def _pack(layer: nn.Linear, bits: int):
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if bits == 16:
        return torch.ops.quantized.linear_prepack_fp16(weight, bias)
    # Symmetric, so that 0 stays 0: the codes -128 to 127 reach as far as the largest weight.
    scale = max(float(weight.abs().max()) / 127.5, torch.finfo(torch.float32).eps)
    codes = torch.quantize_per_tensor(weight, scale, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(codes, bias)
