"""The inputs of all features -> the arrays of n rows."""

from collections.abc import Sequence

import numpy as np

from dlrm.data.encoded import Encoded
from dlrm.data.features.parts import IdLists, Parts
from dlrm.data.lists import Lists


def assemble(parts: Sequence[Parts], rows: int) -> Encoded:
    """Return the inputs of all features as arrays, without labels."""
    columns = [column for part in parts for column in part.dense]
    dense = np.empty((rows, len(columns)), np.float32)
    for position, column in enumerate(columns):
        dense[:, position] = column
    inputs = [column for part in parts for column in part.ids]
    single = [column for column in inputs if not isinstance(column, tuple)]
    ids = np.empty((rows, len(single)), np.int32)
    for position, column in enumerate(single):
        ids[:, position] = column
    lists = [column for column in inputs if isinstance(column, tuple)]
    return Encoded(dense, ids, lists=interleave(lists, rows) if lists else None)


def interleave(lists: Sequence[IdLists], rows: int) -> Lists:
    """Return the lists of F features, sample by sample and feature by feature."""
    lengths = np.empty((rows, len(lists)), np.int64)
    for feature, (_, sizes) in enumerate(lists):
        lengths[:, feature] = sizes
    offsets = np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    begins = offsets[:-1].reshape(rows, len(lists))
    for feature, (values, sizes) in enumerate(lists):
        within = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ids[np.repeat(begins[:, feature], sizes) + within] = values
    return Lists(ids, offsets)
