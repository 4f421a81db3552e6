"""Crosses of two categorical features: a weight for each pair of ids."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged, bags_of, interleave
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings
from dlrm.nn.layout import LISTS, ONE_HOT, Block, Layout
from dlrm.schema import Feature, Schema, Table


def crossed_schema(crosses: Sequence[str], schema: Schema, most_rows: int) -> Schema:
    """Return a schema whose features are crosses such as `C1*C2`, of two features of another one.

    A table has at most `most_rows` rows; pairs of ids are hashed where they are more.

    Raises:
        ConfigError: A cross is not of two different features, names one that is not there, or is
            there twice.

    """
    sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    features, tables = [], []
    for cross in crosses:
        if crosses.count(cross) > 1:
            raise ConfigError(f'the cross "{cross}" is there twice')
        sides = cross.split("*")
        if len(sides) != 2 or sides[0] == sides[1]:
            raise ConfigError(f'cross "{cross}" must name two columns, such as C1*C2')
        for side in sides:
            if side not in sizes:
                raise ConfigError(
                    f'cross "{cross}": there is no categorical column "{side}"; '
                    f"choose from: {', '.join(sizes)}"
                )
        lists = any(schema.feature(side).is_list for side in sides)
        rows = min(most_rows, sizes[sides[0]] * sizes[sides[1]])
        tables.append(Table(name=cross, num_embeddings=rows))
        features.append(Feature(name=cross, table=cross, kind="bag" if lists else "one_hot"))
    return Schema(dense=(), tables=tuple(tables), features=tuple(features), labels=schema.labels)


class Crosses(nn.Module):
    """`sum_(s,t) w_st[id_s, id_t]` for each label; the weights start at 0.

    Where a feature holds a list of ids, each of them is paired with each id of the other, as the
    product of their indicators has it. A table that has fewer rows than there are pairs of ids is
    hashed: several pairs share a weight.

    `weights` are embeddings of the crosses, one number a label, over a `crossed_schema`.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", arXiv 1606.07792, 3.1.
    """

    sizes: Tensor
    """(X,) int64, rows of the right feature of each cross: a pair is `a * size + b`"""
    limits: Tensor
    """(X,) int64, rows of the cross"""
    hashed: Tensor
    """(X,) bool, whether these are fewer than there are pairs"""

    def __init__(self, schema: Schema, weights: Embeddings):
        super().__init__()
        self.weights = weights
        weights.derived = True
        weights.start_at_zero()
        layout = weights.layout
        sides = [feature.name.split("*") for feature in layout.features]
        rows = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
        limits = [layout.sizes[t] for t in layout.table_of]
        pairs = [rows[left] * rows[right] for left, right in sides]
        hashed = [n > limit for n, limit in zip(pairs, limits, strict=True)]
        for name, values in (
            ("sizes", torch.tensor([rows[right] for _, right in sides])),
            ("limits", torch.tensor(limits)),
            ("hashed", torch.tensor(hashed)),
        ):
            self.register_buffer(name, values, persistent=False)
        self.single, self.several = layout.groups[ONE_HOT], layout.groups[LISTS]
        self.left, self.right = (
            Layout.of(schema, [sides[x][side] for x in self.single]) for side in (0, 1)
        )
        self.list_sides = [
            (Layout.of(schema, [sides[x][0]]), Layout.of(schema, [sides[x][1]]))
            for x in self.several
        ]

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, K) for ids that are in range."""
        return self.weights(self.crossed(batch)).sum(dim=1)

    def crossed(self, batch: Batch) -> Batch:
        """Return the batch with the ids of crosses in place of its own, which are in range."""
        ids, lists = batch.ids[:, :0], None
        if self.single:
            (left,), (right,) = self.left.blocks(batch), self.right.blocks(batch)
            crosses = slice(None) if not self.several else list(self.single)
            ids = self._rows(left.ids, right.ids, crosses)
        if self.several:
            lists = interleave(
                [
                    self._crossed(
                        _jagged(left.blocks(batch)[0]), _jagged(right.blocks(batch)[0]), x
                    )
                    for x, (left, right) in zip(self.several, self.list_sides, strict=True)
                ]
            )
        return replace(batch, dense=batch.dense[:, :0], ids=ids, lists=lists)

    def _crossed(self, left: Jagged, right: Jagged, cross: int) -> Jagged:
        a, b, offsets = _pairs(left, right)
        return Jagged(self._rows(a, b, cross), offsets)

    def _rows(self, a: Tensor, b: Tensor, crosses: int | slice | list[int]) -> Tensor:
        """Return the rows of pairs of ids: (B, X) of these crosses, or (M,) of a single one."""
        pairs = a.long() * self.sizes[crosses] + b
        # Knuth, TAOCP 3, 6.4: by 2^64 over the golden ratio, whose high bits mix all of the pair's.
        mixed = ((pairs * -7046029254386353131) >> 32) % self.limits[crosses]
        return torch.where(self.hashed[crosses], mixed, pairs)


def _jagged(block: Block) -> Jagged:
    """Return the ids of a single feature as lists, of one id each where it is one-hot."""
    if block.offsets is not None:
        return Jagged(block.ids, block.offsets)
    ends = torch.arange(block.ids.shape[0] + 1, device=block.ids.device)
    return Jagged(block.ids[:, 0], ends)


def _pairs(left: Jagged, right: Jagged) -> tuple[Tensor, Tensor, Tensor]:
    """Return both ids (M,) of all pairs of ids of each sample, and their offsets (B + 1,)."""
    lengths = left.lengths * right.lengths
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total: int = offsets[-1].item()  # pyright: ignore[reportAssignmentType]
    torch._check(total >= 0)
    sample = bags_of(offsets, total)
    # Lists of p and q ids make p * q pairs: number k is of ids k // q and k % q.
    k = torch.arange(sample.shape[0], device=sample.device) - offsets[sample]
    q = right.lengths[sample]
    a = left.values[left.offsets[:-1][sample] + torch.div(k, q, rounding_mode="floor")]
    return a, right.values[right.offsets[:-1][sample] + k % q], offsets
