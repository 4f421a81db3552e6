"""The rows that a source left out because they were not what they should be."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from dlrm.errors import InputError

OnBadRow = Literal["error", "skip"]
_EXAMPLES = 5


@dataclass(slots=True)
class BadRows:
    """How many rows were left out, why, and where the first ones stand."""

    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> rows, e.g. `{"label": 2}`."""
    first: list[str] = field(default_factory=list)
    """The messages of the first few, with file, line and column."""
    places: list[int] = field(default_factory=list)
    """Their places among all rows, counted from 0, where the source knows them."""
    examples: int = _EXAMPLES
    """How many messages are kept."""

    @property
    def total(self) -> int:
        """Rows left out."""
        return sum(self.reasons.values())

    def add(self, reason: str, error: InputError, place: int | None = None) -> None:
        """Count one bad row, and keep its place where that is known."""
        if place is not None:
            self.places.append(place)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self.first) < self.examples:
            self.first.append(str(error))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-ready values."""
        return {"total": self.total, "reasons": dict(self.reasons), "first": list(self.first)}


@runtime_checkable
class CountsBadRows(Protocol):
    """A source that can leave bad rows out, and counts them while it is read."""

    bad: BadRows
