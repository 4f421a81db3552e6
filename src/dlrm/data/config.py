"""How raw data become a prepared dataset."""

from dataclasses import dataclass

from dlrm.data.bad_rows import OnBadRow
from dlrm.data.split import Protocol
from dlrm.data.vocabulary import IdOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How raw data become a prepared dataset."""

    split: Protocol = "kaggle"
    """kaggle: seven equal days, six to train, the last to test and validate. chronological, random:
    by `fractions`."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test, as fractions or as numbers of rows."""
    seed: int = 0
    """Of the random split."""
    ids: IdOrder = "appearance"
    """Ids by first appearance in the log, or by frequency."""
    min_count: int = 1
    """Values seen fewer times share one row."""
    max_rows_per_table: int | None = None
    """Take values modulo this number first."""
    bad_rows: OnBadRow = "error"
    """Stop at a row that is not what it should be, or skip and count it."""
