"""What fitting leaves: features, and all rows as they encode them."""

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

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


def described_input(
    model_input: Input, *, missing: int, rows: int, rare: int | None
) -> dict[str, Any]:
    """Return what a manifest says of an input, JSON-ready.

    Args:
        model_input: The input.
        missing: Rows in which its column is missing.
        rows: All rows.
        rare: Rows whose value has no id of its own; None where that has no meaning.

    """
    is_number = model_input.num_embeddings is None
    return {
        "name": model_input.name,
        "kind": "dense" if is_number else model_input.kind,
        "num_embeddings": model_input.num_embeddings,
        "missing": missing,
        "missing_rate": missing / rows,
        "rare": rare,
    }


class Fitted(Protocol):
    """Features that are fitted to the rows of a source, and these rows.

    There are two ways to fit. The log of a known format goes through blocks of codes, out of core
    (`dlrm.data.fit_log`); any other rows through Parquet parts, of which one column at a time is in
    memory (`dlrm.data.fit_table`).
    """

    @property
    def features(self) -> Features:
        """What was fitted."""
        ...

    @property
    def rows(self) -> int:
        """Good rows of the source."""
        ...

    @property
    def counted_rows(self) -> int:
        """Rows in which values were counted: all, or the training rows."""
        ...

    @property
    def truth(self) -> bool:
        """Whether the probability behind each label is known."""
        ...

    @property
    def bad_rows(self) -> BadRows:
        """Rows that were left out."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of how rows were divided into splits."""
        ...

    def inputs(self) -> list[dict[str, Any]]:
        """Return what is known of each input, see `described_input`.

        A sequence also has `cut`: how many were longer than what is kept of them.
        """
        ...

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows, once."""
        ...
