"""Batches as arrays of few shapes, so that JAX compiles a step once and not for each batch.

Samples, and the ids of lists, are padded: with samples that weigh nothing, and with rows that no
table has, which JAX reads as zeros and drops where it writes. Shapes depend on the batch alone, not
on those before it: a resumed run computes what the killed one would have.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged, bags_of
from dlrm.errors import ConfigError
from dlrm.nn.crosses import Crosses
from dlrm.nn.embedding import Embeddings
from dlrm.nn.layout import LISTS, ONE_HOT

Ints = NDArray[np.int32]

FEWEST_IDS = 64
"""Ids of lists to which fewer are padded."""


class Lookup(NamedTuple):
    """What a batch looks up in embeddings of R rows; padding is row R, and bag B*F."""

    rows: Ints
    """(M,) B*T1 of one-hot features, sample by sample, then the L of lists"""
    bags: Ints
    """(L,) the list of each, `b*F + f`"""
    distinct: Ints | None = None
    """(M,) the distinct rows in ascending order; None where nobody updates them"""
    inverse: Ints | None = None
    """(M,) the place of each row in `distinct`"""


class Inputs(NamedTuple):
    """A batch, padded to B samples."""

    dense: NDArray[np.float32]
    """(B, N)"""
    lookups: dict[str, Lookup]
    """By the name of embeddings; those that look up alike have one together"""
    labels: NDArray[np.float32]
    """(B, K)"""
    weights: NDArray[np.float32]
    """(B,) how much a sample counts; 0 for padding"""
    samples: NDArray[np.float32]
    """(), those that are no padding"""


class Feed:
    """Batch -> inputs, for one model.

    Args:
        model: Of the catalogue; its tables need no memory.
        samples: To which smaller batches are padded; others, and all where it is 0, to the next
            power of two.
        distinct: Whether rows are to be updated.

    Raises:
        ConfigError: Tables have more rows together than int32 can number.

    """

    def __init__(self, model: nn.Module, *, samples: int = 0, distinct: bool = False):
        self.embeddings = embeddings_by_name(model)
        self._samples, self._distinct = samples, distinct
        self._crosses = {
            id(module.weights): module for module in model.modules() if isinstance(module, Crosses)
        }
        self.source: dict[str, str] = {}
        """Name of embeddings -> the first that look up alike."""
        self._starts: dict[str, list[Tensor]] = {}
        for name, part in self.embeddings.items():
            if sum(part.layout.sizes) >= 2**31 - 1:
                raise ConfigError(
                    f"{name} has {sum(part.layout.sizes):,} rows: JAX numbers them in int32, 2^31 "
                    "- 2 at most; take PyTorch"
                )
            starts = np.cumsum([0, *part.layout.sizes])
            self._starts[name] = [
                torch.from_numpy(starts[list(part.layout.table_indices(group))])
                for group in (ONE_HOT, LISTS)
            ]
            self.source[name] = next(
                other
                for other, twin in self.embeddings.items()
                if other == name
                or (twin.layout == part.layout and not (twin.derived or part.derived))
            )

    def __call__(self, batch: Batch) -> Inputs:
        """Return a batch as the inputs of `dlrm.runtimes.jax.step`.

        Raises:
            IdError: An id is out of range; names the feature.

        """
        samples = len(batch)
        padded = self._samples if 0 < samples <= self._samples else power_of_two(samples)
        weights = np.zeros(padded, np.float32)
        weights[:samples] = 1 if batch.weights is None else batch.weights.numpy()
        return Inputs(
            _padded(batch.dense, padded),
            {
                name: self._lookup(name, batch, padded)
                for name in dict.fromkeys(self.source.values())
            },
            _padded(batch.labels, padded),
            weights,
            np.asarray(samples, np.float32),
        )

    def _lookup(self, name: str, batch: Batch, samples: int) -> Lookup:
        part = self.embeddings[name]
        if (crosses := self._crosses.get(id(part))) is not None:
            batch = crosses.crossed(batch)
        single, several = part.layout.groups[:2]
        end = sum(part.layout.sizes)
        ids = np.full((samples, len(single)), end, np.int32)
        rows, bags = [ids.reshape(-1)], np.empty(0, np.int32)
        for block in part.layout.blocks(batch):
            checked = part.checked_ids(block, self._starts[name][block.group]).numpy()
            if block.offsets is None:
                ids[: len(checked)] = checked
                continue
            room = power_of_two(len(checked), FEWEST_IDS)
            rows.append(_filled(checked, room, end))
            lists = bags_of(block.offsets, len(checked)).numpy()
            bags = _filled(lists, room, samples * len(several))
        every = np.concatenate(rows)
        if not self._distinct:
            return Lookup(every, bags)
        distinct, inverse = np.unique(every, return_inverse=True)
        return Lookup(every, bags, _filled(distinct, len(every), end), inverse.astype(np.int32))


def embeddings_by_name(model: nn.Module) -> dict[str, Embeddings]:
    """Return the embeddings of a model by their names in it, without those that others consist of.

    Theirs is the order of the model.
    """
    chosen: dict[str, Embeddings] = {}
    for name, module in model.named_modules():
        if isinstance(module, Embeddings) and not any(name.startswith(f"{k}.") for k in chosen):
            chosen[name] = module
    return chosen


def stacked(part: Embeddings) -> Tensor:
    """Return the vectors (R, D) of all ids of all tables, however they are stored or compressed."""
    layout, tables = part.layout, [torch.empty(0, part.dim)]
    columns = layout.columns or tuple(range(len(layout.groups[ONE_HOT])))
    lists = layout.lists or tuple(range(len(layout.groups[LISTS])))
    for t, count in enumerate(layout.sizes):
        # A batch with every id of one feature of the table, and of the others the first id or none.
        feature = layout.table_of.index(t)
        ids = torch.zeros(count, max(columns, default=-1) + 1, dtype=torch.int64)
        lengths = torch.zeros(count, layout.num_lists, dtype=torch.int64)
        if layout.features[feature].is_list:
            lengths[:, lists[layout.groups[LISTS].index(feature)]] = 1
        else:
            ids[:, columns[layout.groups[ONE_HOT].index(feature)]] = torch.arange(count)
        offsets = torch.cat([lengths.new_zeros(1), lengths.flatten().cumsum(0)])
        values = Jagged(torch.arange(int(offsets[-1])), offsets)
        batch = Batch(torch.empty(count, 0), ids, torch.empty(count, 0), values)
        tables.append(part(batch)[:, feature].float())
    return torch.cat(tables)


def power_of_two(count: int, least: int = 8) -> int:
    """Return the least power of two that is no smaller, from `least` on."""
    return max(least, 1 << (count - 1).bit_length())


def _padded(tensor: Tensor, samples: int) -> NDArray[np.float32]:
    padded = np.zeros((samples, *tensor.shape[1:]), np.float32)
    padded[: len(tensor)] = tensor.numpy()
    return padded


def _filled(values: NDArray[np.integer], count: int, filler: int) -> Ints:
    """Return values (n,), and behind them a filler until they are so many."""
    filled = np.full(count, filler, np.int32)
    filled[: len(values)] = values
    return filled
