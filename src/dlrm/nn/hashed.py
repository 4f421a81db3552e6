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

from math import sqrt

import torch
from torch import Tensor

from dlrm.batch import bags_of
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Block, EmbeddingCollection, Embeddings, Layout, Storage
from dlrm.nn.initializer import constant, fresh_rows
from dlrm.ops.storage import mixed_bits

_WORD, _HALF = (1 << 64) - 1, (1 << 32) - 1


class HashedEmbeddings(Embeddings):
    """Tables of T features with fewer rows than ids.

    Fresh vectors have the variance of a plain table's, or `init_std`. `collisions`, c, ids come on
    a row: tables have ceil(n / c) rows. `hashes` is k; `weighted` says whether each id learns k
    weights of its own, always float32, which takes n * k numbers more.

    Raises:
        ConfigError: It cannot apply to a table, which is named.

    """

    multipliers: Tensor
    """(tables, k) int64, a"""
    shifts: Tensor
    """(tables, k) int64, b"""

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        collisions: int = 4,
        hashes: int = 2,
        weighted: bool = False,
        seed: int = 0,
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(layout, dim)
        self.hashes = hashes
        fewer = [-(-n // collisions) for n in layout.sizes]
        for table, m in zip(layout.tables, fewer, strict=True):
            n = table.num_embeddings
            if m * dim + (n * hashes if weighted else 0) >= n * dim:
                weights = f" and {hashes} weights an id" if weighted else ""
                raise ConfigError(
                    f"{table.name}: hashing its {n} ids into {m} rows of {dim}{weights} saves "
                    "nothing: choose more tables.collisions, or raise tables.threshold to keep it "
                    "as it is"
                )
        words = _random_words(seed, 2 * len(fewer) * hashes)
        drawn = torch.tensor(words, dtype=torch.int64).view(2, len(fewer), hashes)
        self.register_buffer("multipliers", drawn[0], persistent=False)
        self.register_buffer("shifts", drawn[1], persistent=False)
        for group, features in enumerate(layout.groups):
            self._register(f"tables_{group}", [layout.table_of[f] for f in features])
        self._register("rows_of_table", fewer)
        # A sum of k has the variance of all; weights start at the same share of it.
        share = 1.0 if weighted else sqrt(1 / hashes)
        initializer = fresh_rows(layout, init_std, share=share)
        self.tables = EmbeddingCollection(
            layout.resized(fewer), dim, storage=storage, initializer=initializer
        )
        self.weights = None
        if weighted:
            initializer = constant(sqrt(1 / hashes))
            self.weights = EmbeddingCollection(layout, hashes, initializer=initializer)

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up k rows an id and add them up; see `Embeddings.pooled`."""
        assert per_sample_weights is None
        if block.offsets is None:
            return self._summed(block, self._one_id_each(block))
        return self._summed(block, block.offsets * self.hashes)

    def vectors(self, block: Block) -> Tensor:
        """Look up k rows an id and add them up, id by id; see `Embeddings.vectors`."""
        if block.offsets is None:
            return self.pooled(block)
        # Rows of one feature each have no order of features: the sums are taken as they come.
        rows = self.tables.vectors(self._hashed(block, block.offsets * self.hashes))
        rows = rows.view(-1, self.hashes, self.dim)
        weights = self._weights(block)
        if weights is not None:
            rows = rows * weights.view(-1, self.hashes, 1)
        return rows.sum(dim=1)

    def hash(self, block: Block) -> Tensor:
        """Return the rows of each id in its table: (B, F, k) when one-hot, else (L, k)."""
        table = self._registered(f"tables_{block.group}")
        if block.offsets is not None:
            table = table[bags_of(block.offsets, block.ids.shape[0]) % len(table)]
        a, b = self.multipliers[table], self.shifts[table]
        # Products of int64 keep their last 64 bits; the mask undoes the sign in the shift.
        upper = ((mixed_bits(self.checked_ids(block))[..., None] * a + b) >> 32) & _HALF
        return (upper * self._registered("rows_of_table")[table][:, None]) >> 32

    def _one_id_each(self, block: Block) -> Tensor:
        """Return the offsets of lists of k rows, one an id."""
        return torch.arange(block.ids.numel() + 1, device=block.ids.device) * self.hashes

    def _hashed(self, block: Block, offsets: Tensor) -> Block:
        return Block(block.group, self.hash(block).flatten(), offsets)

    def _weights(self, block: Block) -> Tensor | None:
        return None if self.weights is None else self.weights.vectors(block).flatten()

    def _summed(self, block: Block, offsets: Tensor) -> Tensor:
        return self.tables.pooled(self._hashed(block, offsets), self._weights(block))

    def start_at_zero(self) -> None:
        """Make every vector 0; weights stay as they are, or the gradient were 0 for ever."""
        self.tables.start_with(constant(0.0))


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
