"""What fitting leaves: features, and all rows as they encode them.

There are three ways to it. The log of a known format goes through blocks of codes, out of core
(`dlrm.data.fit_log`); any other rows through Parquet parts, of which one column at a time is in
memory, to be fitted (`dlrm.data.fit_table`) or encoded by features of a run (`dlrm.data.applied`).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.features.inputs import Input
from dlrm.data.sources.source import BadRows
from dlrm.data.split import Rows

TRUTH = "truth"
"""The column of a source that knows the probability that each label was drawn with."""


class Block(NamedTuple):
    """Some rows in their order, and the splits that they go to."""

    encoded: Encoded
    """With labels, and with weights and the truth where there are any."""
    pieces: list[tuple[str, Rows]]
    """Names of splits, and which rows go there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Features, and the rows of a source as they encode them."""

    features: Features
    rows: int
    """Good rows of the source."""
    counted_rows: int
    """Rows in which values were counted: all, or the training rows."""
    bad_rows: BadRows
    """Rows that were left out."""
    blocks: Generator[Block, None, None]
    """All rows, once."""
    inputs: Callable[[], list[dict[str, Any]]]
    """Returns what a manifest says of each input once all blocks were taken; see
    `described_input`. A sequence also has `cut`: how many were longer than what is kept of them."""
    truth: bool = False
    """Whether the probability behind each label is known."""
    notes: tuple[str, ...] = ()
    """What to say of how rows were divided into splits."""


def described_input(
    model_input: Input, *, missing: int, rows: int, rare: int | None
) -> dict[str, Any]:
    """Return what a manifest says of an input, JSON-ready.

    `missing` of `rows` rows lack its column; `rare` have a value without an id of its own, None
    where that has no meaning.
    """
    is_number = model_input.num_embeddings is None
    return {
        "name": model_input.name,
        "kind": "dense" if is_number else model_input.kind,
        "num_embeddings": model_input.num_embeddings,
        "missing": missing,
        "missing_rate": missing / max(rows, 1),
        "rare": rare,
    }
