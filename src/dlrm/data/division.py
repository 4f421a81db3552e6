"""Which rows of a table train, validate and test."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.split import SPLITS, Protocol, plan

UNUSED = -1


def divide(
    raw: RawTable, bad: NDArray[np.bool_], config: PrepareConfig, *, default: Protocol = "random"
) -> NDArray[np.int8]:
    """Return the split of each row, a place in SPLITS; -1 for bad rows and for unused ones.

    Args:
        raw: n rows.
        bad: (n,) rows that are left out.
        config: How they are prepared.
        default: The protocol where none was chosen.

    """
    where = np.full(raw.rows, UNUSED, np.int8)
    named = np.concatenate(
        [
            np.full(part.rows, SPLITS.index(part.split) if part.split else UNUSED)
            for part in raw.parts
        ]
    )
    good = np.flatnonzero(~bad)
    if (named == UNUSED).all():
        days = _days(raw, bad)
        _assign(where, good, config, config.fractions, config.protocol(default), days)
        return where
    where[good] = named[good]
    if not (named == SPLITS.index("validation")).any():
        # The files have no validation part: it comes out of the training file.
        train = good[named[good] == SPLITS.index("train")]
        held = config.fractions[1] / max(config.fractions[0] + config.fractions[1], 1e-9)
        _assign(where, train, config, (1 - held, held, 0.0), config.protocol(default), ())
    return where


def _assign(
    where: NDArray[np.int8],
    rows: NDArray[np.intp],
    config: PrepareConfig,
    fractions: Sequence[float],
    protocol: Protocol,
    days: Sequence[int],
) -> None:
    planned = plan(protocol, len(rows), fractions=fractions, seed=config.seed, days=days)
    for name, piece in planned.pieces(0, len(rows)):
        where[rows[piece]] = SPLITS.index(name)
    used = np.zeros(len(rows), np.bool_)
    for _, piece in planned.pieces(0, len(rows)):
        used[piece] = True
    where[rows[~used]] = UNUSED


def _days(raw: RawTable, bad: NDArray[np.bool_]) -> list[int]:
    """Return the good rows of each file."""
    days, start = [], 0
    for _, parts in groupby(raw.parts, key=lambda part: str(part.origin)):
        rows = sum(part.rows for part in parts)
        days.append(int((~bad[start : start + rows]).sum()))
        start += rows
    return days
