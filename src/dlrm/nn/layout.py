"""The layout of embeddings: features, their tables, and where a batch has their ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlrm.batch import Batch, Jagged
from dlrm.errors import IdError
from dlrm.ops import id_backend
from dlrm.schema import Feature, Schema, Table

ONE_HOT, LISTS = 0, 1
"""Groups of features whose ids a batch has side by side. Group 2 + f is list feature f alone."""


class Block(NamedTuple):
    """Ids of a group of F features."""

    group: int
    """`ONE_HOT`, `LISTS`, or the number of a single list feature."""
    ids: Tensor
    """(B, F) one a sample and feature, or (L,) where there are offsets"""
    offsets: Tensor | None = None
    """(B*F + 1,): the ids of sample b and feature f lie from `offsets[b*F + f]` on"""


@dataclass(frozen=True)
class Layout:
    """The features that embeddings serve, and where a batch has their ids.

    Vectors (B, T, D) come out in the order of `features`.
    """

    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    table_of: tuple[int, ...]
    """Position in `tables` of each feature's."""
    groups: tuple[tuple[int, ...], ...]
    """Positions in `features` of each group."""
    columns: tuple[int, ...] | None
    """Columns of `Batch.ids` that the one-hot features are; None for all, as they are."""
    lists: tuple[int, ...] | None
    """Features of `Batch.lists` that the list features are; None for all, as they are."""
    num_lists: int
    """F, list features of a batch, served or not."""
    order: tuple[int, ...] | None
    """Place of each feature among the vectors of one-hot features, then lists; None if equal:
    `torch.cat([one_hot, lists], 1)` becomes the features in their order by `index_select`."""

    @classmethod
    def of(cls, schema: Schema, names: Sequence[str] | None = None) -> "Layout":
        """Return the layout of some features of a schema.

        `names` of the features are in the order in which vectors come out; None for all of the
        schema.

        Raises:
            ConfigError: There is no such feature; lists the choices.

        """
        if names is None:
            features = schema.features
        else:
            features = tuple(schema.feature(name) for name in names)
        used = {feature.table for feature in features}
        tables = tuple(table for table in schema.tables if table.name in used)
        position = {table.name: t for t, table in enumerate(tables)}
        single = tuple(f for f, feature in enumerate(features) if not feature.is_list)
        several = tuple(f for f, feature in enumerate(features) if feature.is_list)
        columns = tuple(schema.one_hot_features.index(features[f]) for f in single)
        lists = tuple(schema.list_features.index(features[f]) for f in several)
        every = len(schema.list_features)
        together = single + several
        place = sorted(range(len(together)), key=together.__getitem__)
        return cls(
            tables=tables,
            features=features,
            table_of=tuple(position[feature.table] for feature in features),
            groups=(single, several, *((f,) for f in several)),
            columns=None if columns == tuple(range(len(schema.one_hot_features))) else columns,
            lists=None if lists == tuple(range(every)) else lists,
            num_lists=every,
            order=None if together == tuple(range(len(together))) else tuple(place),
        )

    def resized(self, num_embeddings: Sequence[int]) -> "Layout":
        """Return the same layout over tables of other sizes, in the order of `tables`."""
        tables = (
            replace(table, num_embeddings=n)
            for table, n in zip(self.tables, num_embeddings, strict=True)
        )
        return replace(self, tables=tuple(tables))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each table."""
        return tuple(table.num_embeddings for table in self.tables)

    def group_of(self, name: str) -> int:
        """Return the group that a list feature is by itself.

        Raises:
            KeyError: There is no such list feature.

        """
        for number, feature in enumerate(self.groups[LISTS]):
            if self.features[feature].name == name:
                return 2 + number
        raise KeyError(name)

    def table_indices(self, group: int) -> tuple[int, ...]:
        """Return the position in `tables` of each feature of a group."""
        return tuple(self.table_of[f] for f in self.groups[group])

    def blocks(self, batch: Batch, columns: Tensor | None = None) -> list[Block]:
        """Return the ids of all features that are served: of one-hot ones, then of lists.

        `columns` are those of the layout on the device of the batch, where somebody keeps them
        there.

        Raises:
            IdError: As for `lists_of`.

        """
        blocks = []
        if self.groups[ONE_HOT]:
            ids = batch.ids
            if self.columns is not None:
                if columns is None:
                    columns = torch.tensor(self.columns, device=ids.device)
                ids = ids.index_select(1, columns)
            blocks.append(Block(ONE_HOT, ids))
        if self.groups[LISTS]:
            blocks.append(Block(LISTS, *self.lists_of(batch, self.lists)))
        return blocks

    def block(self, batch: Batch, group: int) -> Block:
        """Return the ids of a single list feature, see `group_of`.

        Raises:
            IdError: As for `lists_of`.

        """
        number = group - 2
        feature = number if self.lists is None else self.lists[number]
        return Block(group, *self.lists_of(batch, (feature,)))

    def ranges(self, one_hot: Block, lists: Block) -> tuple[Tensor, Tensor]:
        """Return where the ids of each sample and feature lie in `torch.cat([one_hot, lists])`.

        Returns:
            The first of the ids, and the one after the last, (B, T) each, in the order of features.

        """
        assert lists.offsets is not None
        count = one_hot.ids.numel()
        single = torch.arange(count, device=one_hot.ids.device).view(one_hot.ids.shape)
        offsets, shape = lists.offsets + count, (len(single), len(self.groups[LISTS]))
        starts = torch.cat([single, offsets[:-1].view(shape)], dim=1)
        ends = torch.cat([single + 1, offsets[1:].view(shape)], dim=1)
        return starts, ends

    def lists_of(self, batch: Batch, features: tuple[int, ...] | None) -> Jagged:
        """Return the lists of some list features of the schema; None for all.

        Raises:
            IdError: The batch has another number of lists, or its offsets do not cover its ids.

        """
        lists, count = batch.lists, self.num_lists
        given = 0 if lists is None else lists.offsets.shape[0] - 1
        # No len() of tensors here and below: it is a plain number, to which an export would cling.
        samples = batch.labels.shape[0]
        if lists is None or given != samples * count:
            raise IdError(f"{given} lists for {samples} samples, expected {count} a sample")
        if features is None or features == tuple(range(count)):
            return lists
        # Checked while the offsets are whole: of some lists nobody could tell.
        looks = lists.offsets.is_cpu and not torch.compiler.is_exporting()
        if looks and not _covers(lists.offsets, lists.values.shape[0]):
            raise _wrong_offsets(lists.values.shape[0])
        return lists.columns(features, count)

    def check(self, batch: Batch) -> None:
        """Raise an IdError unless all ids of a batch, which is on a CPU, are in range."""
        for block in self.blocks(batch):
            sizes = torch.tensor([self.sizes[t] for t in self.table_indices(block.group)])
            starts, kernels = torch.zeros_like(sizes), id_backend(block.ids)
            _, wrong = kernels.rows_of(block.ids, starts, sizes, block.offsets)
            if wrong != -1:
                raise self.id_error(block, wrong)

    def id_error(self, block: Block, place: int) -> IdError:
        """Return the error that names the feature of a wrong id.

        `place` is that of the id in the block, or -2 where the offsets are wrong.
        """
        if place == -2:
            return _wrong_offsets(block.ids.shape[0])
        # Such an id would silently read a neighbouring table: all are one weight.
        bag = place
        if block.offsets is not None:
            bag = int(torch.searchsorted(block.offsets, place, right=True)) - 1
        features = self.groups[block.group]
        feature = features[bag % len(features)]
        size = self.sizes[self.table_of[feature]]
        return IdError(
            f"{self.features[feature].name}: id {int(block.ids.flatten()[place])} is out of range, "
            f"its table has {size} rows (0 to {size - 1})"
        )


def _covers(offsets: Tensor, count: int) -> bool:
    """Return whether offsets rise from 0 to the number of ids."""
    return bool(offsets[0] == 0 and offsets[-1] == count and (offsets.diff() >= 0).all())


def _wrong_offsets(count: int) -> IdError:
    return IdError(f"offsets must rise from 0 to the number of ids, {count}")
