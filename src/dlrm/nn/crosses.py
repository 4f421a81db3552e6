"""Crosses of two categorical features: a weight for each pair of ids."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings, bags_of


def parse(crosses: Sequence[str], names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the positions of the features that crosses such as `C1*C2` name.

    Args:
        crosses: Two names each, joined by `*`.
        names: Of the T features.

    Raises:
        ConfigError: A cross is not of two different features, or names one that is not there.

    """
    pairs = []
    for cross in crosses:
        sides = cross.split("*")
        if len(sides) != 2 or sides[0] == sides[1]:
            raise ConfigError(f'cross "{cross}" must name two columns, such as C1*C2')
        for side in sides:
            if side not in names:
                raise ConfigError(
                    f'cross "{cross}": there is no categorical column "{side}"; '
                    f"choose from: {', '.join(names)}"
                )
        pairs.append((names.index(sides[0]), names.index(sides[1])))
    return pairs


class Crosses(nn.Module):
    """`sum_(s,t) w_st[id_s, id_t]`; the weights start at 0.

    Where a feature holds a bag of ids, each of them is paired with each id of the other, as the
    product of their indicators has it. A table that has fewer rows than there are pairs of ids is
    hashed: several pairs share a weight.

    Args:
        rows: Rows of each of the T features.
        pairs: Positions of the features of each of the X crosses.
        weights: Embeddings of the crosses, of dimension 1.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", arXiv 1606.07792, 3.1.

    """

    sizes: Tensor
    """(X,) int64, rows of the right feature: a pair is `a * size + b`"""
    limits: Tensor
    """(X,) int64, rows of each cross"""

    def __init__(self, rows: Sequence[int], pairs: Sequence[tuple[int, int]], weights: Embeddings):
        super().__init__()
        self.tables = len(rows)
        self.left, self.right = ([pair[side] for pair in pairs] for side in (0, 1))
        self.weights = weights
        weights.start_at_zero()
        self.register_buffer("sizes", torch.tensor([rows[t] for t in self.right]), persistent=False)
        self.register_buffer("limits", torch.tensor(weights.rows), persistent=False)
        # Where every pair has a row of its own, its number is that row.
        self.hashed = [rows[s] * rows[t] > n for (s, t), n in zip(pairs, weights.rows, strict=True)]

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return (B,) for ids that are in range; arguments as for `Embeddings.forward`."""
        if offsets is None:
            rows = self._rows(ids[:, self.left] * self.sizes + ids[:, self.right], None)
            return self.weights(rows).sum(dim=(1, 2))
        starts = offsets[:-1].view(-1, self.tables)
        lengths = offsets.diff().view(-1, self.tables)
        pairs = (lengths[:, self.left] * lengths[:, self.right]).flatten()
        crossed = torch.cat([offsets[:1], pairs.cumsum(0)])
        count = int(crossed[-1])
        bag = bags_of(crossed, count)
        # Bags of p and q ids make p * q pairs: number k is of ids k // q and k % q.
        k = torch.arange(count, device=ids.device) - crossed[bag]
        q = lengths[:, self.right].flatten()[bag]
        a = ids[starts[:, self.left].flatten()[bag] + k // q]
        b = ids[starts[:, self.right].flatten()[bag] + k % q]
        cross = bag % len(self.left)
        rows = self._rows(a * self.sizes[cross] + b, cross)
        return self.weights(rows, crossed).sum(dim=(1, 2))

    def _rows(self, pairs: Tensor, cross: Tensor | None) -> Tensor:
        """Return the rows of pairs: (B, X), or (M,) with the cross of each."""
        hashed = torch.tensor(self.hashed, device=pairs.device)
        limits = self.limits
        if cross is not None:
            hashed, limits = hashed[cross], limits[cross]
        # Knuth, TAOCP 3, 6.4: by 2^64 over the golden ratio, whose high bits mix all of the pair's.
        mixed = ((pairs * -7046029254386353131) >> 32) % limits
        return torch.where(hashed, mixed, pairs)
