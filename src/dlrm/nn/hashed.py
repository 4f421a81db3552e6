"""Hashed tables: k hash functions choose an id's rows in a table with fewer of them.

    e[i] = sum_j w[i, j] v[h_j(i)]      j = 1 ... k; learned weights, or all of them 1

Two ids that meet in one row are told apart by the others. The hash functions are multiply-shift,

    h(i) = floor(m * (((a x + b) mod 2^64) >> 32) / 2^32)

with a and b of 64 random bits: any two x below 2^32 meet in one of m rows with a probability of
1 / m, almost. x is i with its bits mixed, one to one; for as multiply-shift is linear, ids that
follow each other would meet in regular patterns. a and b are drawn from a seed by arithmetic alone,
so that a model means the same on every machine.

Sources: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009;
Svenstrup, Hansen, Winther, "Hash Embeddings for Efficient Word Representations", arXiv 1709.03933
(k functions, learned weights); Dietzfelbinger, "Universal Hashing and k-Wise Independent Random
Variables via Integer Arithmetic without Primes", STACS 1996; Wellons, "lowbias32" (the mixing).
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from dlrm.errors import ConfigError
from dlrm.nn.embedding import (
    Embeddings,
    Storage,
    bags_of,
    collection,
    constant,
    normal,
    uniform,
)

_WORD, _HALF = (1 << 64) - 1, (1 << 32) - 1


class HashedEmbeddings(Embeddings):
    """Tables of T features with fewer rows than ids.

    Fresh vectors have the variance of a plain table's.

    Args:
        rows: n, ids of each feature.
        dim: D.
        names: Name of each feature, for errors.
        collisions: c, how many ids come on a row: tables have ceil(n / c) rows.
        hashes: k, hash functions.
        weighted: Whether each id learns k weights of its own, which takes n * k numbers more.
        seed: Of the hash functions.
        storage: See `EmbeddingCollection`; the weights are always float32.
        init_std: Of the fresh vectors; None for the variance of uniform(-sqrt(1/n), sqrt(1/n)).

    Raises:
        ConfigError: It cannot apply to a table, which is named.

    """

    multipliers: Tensor
    """(T, k) int64, a"""
    shifts: Tensor
    """(T, k) int64, b"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        collisions: int = 4,
        hashes: int = 2,
        weighted: bool = False,
        seed: int = 0,
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(rows, dim, names)
        self.hashes = hashes
        fewer = [-(-n // collisions) for n in self.rows]
        for name, n, m in zip(self.names, self.rows, fewer, strict=True):
            if m * dim + (n * hashes if weighted else 0) >= n * dim:
                said = f" and {hashes} weights an id" if weighted else ""
                raise ConfigError(
                    f"{name}: hashing its {n} ids into {m} rows of {dim}{said} saves nothing: "
                    "choose more tables.collisions, or raise tables.threshold to keep it as it is"
                )
        words = _random_words(seed, 2 * len(self.rows) * hashes)
        drawn = torch.tensor(words, dtype=torch.int64).view(2, len(self.rows), hashes)
        self.register_buffer("multipliers", drawn[0], persistent=False)
        self.register_buffer("shifts", drawn[1], persistent=False)
        # A sum of k has the variance of all; weights start at the same share of it.
        share = 1.0 if weighted else sqrt(1 / hashes)
        draw = uniform([share * sqrt(1 / n) for n in self.rows])
        if init_std is not None:
            draw = normal(init_std * share)
        self.tables = collection(fewer, dim, self.names, storage=storage, draw=draw)
        self.weights = None
        if weighted:
            draw = constant(sqrt(1 / hashes))
            self.weights = collection(self.rows, hashes, self.names, draw=draw)

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up k rows an id and add them up; see `Embeddings.forward`."""
        ids = self.rows_of(ids, offsets)
        factors = None if self.weights is None else self.weights.each(ids, offsets).flatten()
        hashed = self.hash(ids, offsets).flatten()
        if offsets is None:
            # Now bags of k.
            ends = torch.arange(ids.numel() + 1, device=ids.device) * self.hashes
        else:
            ends = offsets * self.hashes
        return self.tables(hashed, ends, factors)

    def hash(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return the rows of each id in its table: (B, T, k) when one-hot, else (L, k)."""
        a, b, m = self.multipliers, self.shifts, self.tables.sizes[:, None]
        if offsets is not None:
            table = bags_of(offsets, ids.shape[0]) % len(self.rows)
            a, b, m = a[table], b[table], m[table]
        # Products of int64 keep their last 64 bits; the mask undoes the sign in the shift.
        upper = ((_mixed(ids)[..., None] * a + b) >> 32) & _HALF
        return (upper * m) >> 32

    def start_at_zero(self) -> None:
        """Make every vector 0; weights stay as they are, or the gradient were 0 for ever."""
        self.tables.start_at_zero()


def _mixed(x: Tensor) -> Tensor:
    """Return other numbers of 32 bits for those of 32 bits, one to one."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _HALF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _HALF
    return x ^ (x >> 16)


def _random_words(seed: int, count: int) -> list[int]:
    """Return words of 64 random bits, as signed numbers (SplitMix64)."""
    words = []
    for i in range(1, count + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        z ^= z >> 31
        words.append(z - (1 << 64) if z >> 63 else z)
    return words
