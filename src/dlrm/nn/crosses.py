"""Crosses of two categorical features: a weight for each pair of ids."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged, interleave
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings, bags_of
from dlrm.nn.layout import Block, Layout
from dlrm.schema import Feature, Schema, Table


def crossed_schema(crosses: Sequence[str], schema: Schema, most_rows: int) -> Schema:
    """Return a schema whose features are crosses such as `C1*C2`.

    Args:
        crosses: Names of two categorical features each, joined by `*`.
        schema: That has these.
        most_rows: Of a table; pairs of ids are hashed where they are more.

    Raises:
        ConfigError: A cross is not of two different features, or names one that is not there.

    """
    sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    features, tables = [], []
    for cross in crosses:
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

    Args:
        schema: Of the batches.
        weights: Embeddings of the crosses, one number a label, of a `crossed_schema`.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", arXiv 1606.07792, 3.1.

    """

    def __init__(self, schema: Schema, weights: Embeddings):
        super().__init__()
        self.weights = weights
        weights.derived = True
        weights.start_at_zero()
        sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
        self.sides: list[tuple[Layout, Layout]] = []
        self.right_sizes: list[int] = []
        self.hashed_rows: list[int | None] = []
        """Rows of a table that has fewer than there are pairs; None where each pair has its own."""
        for feature, t in zip(weights.layout.features, weights.layout.table_of, strict=True):
            left, right = feature.name.split("*")
            rows = weights.layout.sizes[t]
            self.sides.append((Layout.of(schema, [left]), Layout.of(schema, [right])))
            self.right_sizes.append(sizes[right])
            self.hashed_rows.append(rows if sizes[left] * sizes[right] > rows else None)

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, K) for ids that are in range."""
        columns: list[Tensor] = []
        lists: list[Jagged] = []
        features = self.weights.layout.features
        for feature, (left, right), size, rows in zip(
            features, self.sides, self.right_sizes, self.hashed_rows, strict=True
        ):
            a, b = left.blocks(batch)[0], right.blocks(batch)[0]
            if not feature.is_list:
                columns.append(_rows(a.ids[:, 0].long(), b.ids[:, 0].long(), size, rows))
                continue
            first, second, offsets = _pairs(_jagged(a), _jagged(b))
            lists.append(Jagged(_rows(first, second, size, rows), offsets))
        crossed = Batch(
            dense=batch.dense[:, :0],
            ids=torch.stack(columns, dim=1) if columns else batch.ids[:, :0],
            labels=batch.labels,
            lists=interleave(lists) if lists else None,
        )
        return self.weights(crossed).sum(dim=1)


def _jagged(block: Block) -> Jagged:
    """Return the ids of a single feature as lists, of one id each where it is one-hot."""
    if block.offsets is not None:
        return Jagged(block.ids.long(), block.offsets)
    ends = torch.arange(block.ids.shape[0] + 1, device=block.ids.device)
    return Jagged(block.ids[:, 0].long(), ends)


def _pairs(left: Jagged, right: Jagged) -> tuple[Tensor, Tensor, Tensor]:
    """Return both ids (M,) of all pairs of ids of each sample, and their offsets (B + 1,)."""
    lengths = left.lengths * right.lengths
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    sample = bags_of(offsets, int(offsets[-1]))
    # Lists of p and q ids make p * q pairs: number k is of ids k // q and k % q.
    k = torch.arange(sample.shape[0], device=sample.device) - offsets[sample]
    q = right.lengths[sample]
    a = left.values[left.offsets[:-1][sample] + torch.div(k, q, rounding_mode="floor")]
    return a, right.values[right.offsets[:-1][sample] + k % q], offsets


def _rows(a: Tensor, b: Tensor, size: int, rows: int | None) -> Tensor:
    """Return the rows of pairs of ids (M,), hashed to so many; None leaves each its own."""
    pairs = a * size + b
    if rows is None:
        return pairs
    # Knuth, TAOCP 3, 6.4: by 2^64 over the golden ratio, whose high bits mix all of the pair's.
    return ((pairs * -7046029254386353131) >> 32) % rows
