"""The forward pass in plain torch, for exports: tensors in, logits out, of any batch size.

    dense (B, N) float32      where the schema has dense features
    ids (B, T1) int64         where it has features with one id a sample
    values (L,) int64         where it has lists: the ids of all, sample by sample and
    offsets (B*F + 1,) int64  feature by feature, and where each list begins

Most of a model exports as it is: `dlrm.ops.reference` runs where torch exports. Layers that would
become slow or impossible elsewhere are replaced by their path, and share their weights.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from dlrm.batch import Batch, Jagged, bags_of
from dlrm.nn.cin import CIN
from dlrm.nn.codes import Codes, scales_of
from dlrm.nn.embedding import StackedTables
from dlrm.nn.fusion import BilinearFusion
from dlrm.nn.interaction import Dot
from dlrm.nn.numbers import NumberVectors
from dlrm.nn.qat import QATEmbeddings
from dlrm.nn.quantized import QuantizedCollection, quantize
from dlrm.runtimes.runtime import quiet
from dlrm.runtimes.trained import TrainedModel
from dlrm.schema import Schema


def input_names(schema: Schema) -> tuple[str, ...]:
    """Return the names of an export's inputs, in their order."""
    parts = (
        (schema.dense, ("dense",)),
        (schema.one_hot_features, ("ids",)),
        (schema.list_features, ("values", "offsets")),
    )
    return tuple(name for features, names in parts if features for name in names)


def input_tensors(batch: Batch, schema: Schema) -> tuple[Tensor, ...]:
    """Return a batch as the inputs of an export, without a copy of what has the right type."""
    tensors = {"dense": batch.dense, "ids": batch.ids.long()}
    if batch.lists is not None:
        tensors |= {"values": batch.lists.values.long(), "offsets": batch.lists.offsets}
    return tuple(tensors[name] for name in input_names(schema))


def input_arrays(batch: Batch, schema: Schema) -> dict[str, NDArray[Any]]:
    """Return a batch as the inputs of an export, by name."""
    tensors = input_tensors(batch, schema)
    return {n: t.numpy() for n, t in zip(input_names(schema), tensors, strict=True)}


def exported(trained: TrainedModel) -> ExportedProgram:
    """Return a trained model as a program of torch, whose batch and lists may be of any size."""
    schema = trained.schema
    samples, several = 3, len(schema.list_features)
    batch, count = Dim("batch", min=1), Dim("values", min=0)
    sizes = {"dense": batch, "ids": batch, "values": count}
    if several:
        sizes["offsets"] = several * batch + 1
    lists = None
    if several:
        # As many ids as lists, and no number of samples: sizes that meet would seem to be one.
        ends = torch.arange(samples * several + 1)
        ends[-1] += 2
        lists = Jagged(torch.zeros(int(ends[-1]), dtype=torch.int64), ends)
    example = Batch(
        torch.zeros(samples, len(schema.dense)),
        torch.zeros(samples, len(schema.one_hot_features), dtype=torch.int64),
        torch.zeros(samples, schema.num_labels),
        lists,
    )
    shapes = tuple({0: sizes[name]} for name in input_names(schema))
    # A batch of one is no other program than one of two.
    settings: Any = _config
    with torch.no_grad(), quiet(), settings.patch(backed_size_oblivious=True):
        return torch.export.export(
            Plain(trained),
            input_tensors(example, schema),
            dynamic_shapes={"inputs": shapes},
            strict=False,
        )


class Plain(nn.Module):
    """A trained model as a function of tensors; see the head of this file."""

    def __init__(self, trained: TrainedModel):
        super().__init__()
        self.schema = trained.schema
        self.net = plain(trained.net)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits (B, K), or the predictions of a regression."""
        tensors = dict(zip(input_names(self.schema), inputs, strict=True))
        first, lists = inputs[0], None
        samples = first.shape[0]
        if "offsets" in tensors:
            lists = Jagged(tensors["values"], tensors["offsets"])
            if first is lists.values:
                samples = (lists.offsets.shape[0] - 1) // len(self.schema.list_features)
        nothing = torch.zeros(samples, 0)
        batch = Batch(
            tensors.get("dense", nothing),
            tensors.get("ids", nothing.long()),
            torch.zeros(samples, self.schema.num_labels),
            lists,
        )
        return self.net(batch)


def plain(net: nn.Module) -> nn.Module:
    """Return a copy of a model that any runtime can take; parameters are shared."""
    codes: set[Codes] = {
        module.codes for module in net.modules() if isinstance(module, QATEmbeddings)
    }
    for to in codes:
        # They become the codes that they were trained for: no vector changes.
        net = quantize(net, to)
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    for module in net.modules():
        if (replacement := _PLAIN.get(type(module))) is not None:
            memo[id(module)] = replacement(module)
    return copy.deepcopy(net, memo)


class PlainDot(nn.Module):
    """`Dot` with the places of the pairs as numbers, see `dlrm.nn.interaction`."""

    places: Tensor
    """(pairs,) int64"""

    def __init__(self, dot: Dot):
        super().__init__()
        count, offset = dot.vectors, 0 if dot.self_interaction else -1
        row, column = torch.tril_indices(count, count, offset=offset)
        self.register_buffer("places", row * count + column, persistent=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (B, D + pairs) of x (B, D) and e (B, T, D)."""
        v = torch.cat([x[:, None], e], dim=1)
        products = torch.bmm(v, v.transpose(1, 2))
        return torch.cat([x, products.flatten(1).index_select(1, self.places)], dim=1)


class PlainCIN(nn.Module):
    """`CIN` whose layers sum over T products of matrices, so that no pair is ever held."""

    def __init__(self, cin: CIN):
        super().__init__()
        self.weights, self.last = cin.weights, cin.last

    def forward(self, e: Tensor) -> Tensor:
        """Map (B, T, D) to (B, H_1 + H_2 + ...)."""
        tables = e.shape[1]
        x0 = e.transpose(1, 2)
        x, sums = x0, []
        for weight in self.weights:
            by_table = zip(weight.chunk(tables, dim=1), x0.split(1, dim=2), strict=True)
            x = sum((F.linear(x, w) * vector for w, vector in by_table), torch.zeros(()))
            sums.append(x.sum(dim=1))
        return torch.cat([*sums, self.last(torch.bmm(e, x).flatten(1))], dim=1)


class PlainFusion(nn.Module):
    """`BilinearFusion` head by head: products of batches would tell one sample from several."""

    def __init__(self, fusion: BilinearFusion):
        super().__init__()
        self.heads, self.weight = fusion.heads, fusion.weight
        self.first, self.second, self.bias = fusion.first, fusion.second, fusion.bias

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Map (B, first) and (B, second) to (B, K)."""
        labels = self.bias.shape[0]
        pieces = [*u.chunk(self.heads, dim=1)] * labels
        products = [x @ w for x, w in zip(pieces, self.weight.unbind(0), strict=True)]
        of_v = torch.cat(products, dim=1).unflatten(1, (labels, -1)) + self.second
        return (of_v * v[:, None]).sum(dim=2) + u @ self.first.t() + self.bias


class PlainNumberVectors(nn.Module):
    """`NumberVectors` by two lookups of rows, see `dlrm.nn.numbers`."""

    def __init__(self, vectors: NumberVectors):
        super().__init__()
        self.at_knots = vectors.steps.detach().cumsum(dim=1).flatten(0, 1)
        self.start, self.last = vectors.start, vectors.last
        self.low, self.high = vectors.low, vectors.high

    def forward(self, dense: Tensor) -> Tensor:
        """Map (B, N) to (B, N, D)."""
        lower = torch.minimum(dense.floor().clamp(min=0), self.last)
        share = torch.clamp(dense - lower, self.low, self.high)[..., None]
        row = lower.long() + self.start
        at_knots = self.at_knots
        return torch.relu(at_knots[row] * (1 - share) + at_knots[row + 1] * share)


class PlainCodes(StackedTables):
    """`QuantizedCollection` with codes, scales and biases apart."""

    codes: Tensor
    """(R, bytes) uint8; (R, D) float16 of 16 bits"""
    scale: Tensor
    """(R, 1)"""
    bias: Tensor
    """(R, 1)"""

    def __init__(self, tables: QuantizedCollection):
        super().__init__(tables.layout, tables.dim)
        self.bits, packed = tables.bits, tables.packed
        if self.bits == 16:
            self.register_buffer("codes", packed.view(torch.float16))
            return
        dtype = scales_of(tables.bits)
        codes, scale, bias = packed.tensor_split([-2 * dtype.itemsize, -dtype.itemsize], dim=1)
        self.register_buffer("codes", codes.contiguous())
        self.register_buffer("scale", scale.contiguous().view(dtype))
        self.register_buffer("bias", bias.contiguous().view(dtype))

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows (..., D) of numbers for rows (...) int64."""
        codes = F.embedding(rows, self.codes)
        if self.bits == 16:
            return codes.float()
        if self.bits < 8:
            # Digits of a byte, as floats: other runtimes shift no bytes.
            base, count = 2**self.bits, 8 // self.bits
            upper = [torch.floor(codes.float() / base**k) for k in range(count + 1)]
            parts = [upper[k] - base * upper[k + 1] for k in range(count)]
            codes = torch.stack(parts, dim=-1).flatten(-2)[..., : self.dim]
        scale, bias = F.embedding(rows, self.scale), F.embedding(rows, self.bias)
        return codes.float() * scale.float() + bias.float()

    def pooled_rows(
        self, rows: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the sums (G, D) of bags of rows (L,); offsets are (G + 1,)."""
        values = self.lookup(rows)
        if per_sample_weights is not None:
            values = values * per_sample_weights[:, None]
        sums = values.new_zeros(offsets.shape[0] - 1, self.dim)
        return sums.index_add(0, bags_of(offsets, rows.shape[0]), values)


_PLAIN: dict[type[nn.Module], Any] = {
    Dot: PlainDot,
    CIN: PlainCIN,
    BilinearFusion: PlainFusion,
    NumberVectors: PlainNumberVectors,
    QuantizedCollection: PlainCodes,
}
"""Layer -> what replaces it."""
