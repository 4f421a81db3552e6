"""Settings that change what becomes of the columns of a table."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any, Literal

import tyro

from dlrm.data.features.column import ENCODINGS, LISTS, MOST_CROSSED, Column, Cross, Scale, Values
from dlrm.data.features.columns import Columns
from dlrm.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """What becomes of the columns of a table; unset fields are left as inferred or in the schema.

    Everything is fitted on the training rows alone, also what the format of a log would have
    numbered over the whole of it.
    """

    numbers: Scale | Literal["drop"] | None = None
    """How numbers are scaled: piecewise, none, standard, log, log1p or quantile; drop leaves only
    their buckets."""
    bins: int | None = None
    """Numbers of scale piecewise become so many numbers at most."""
    buckets: int | None = None
    """Numbers become categories of so many quantile buckets as well; 0 for none."""
    missing_flags: bool | None = None
    """Whether a number beside each number says that it is missing."""
    min_count: int | None = None
    """Values that the training rows have fewer times share a row with unseen ones."""
    hash_rows: int | None = None
    """Hash the values of each category into so many rows; 0 gives each a row of its own."""
    log_counts: bool = False
    """A number beside each category: log(1 + how often the training rows have its value)."""
    target_means: bool = False
    """A number beside each category: the mean label of its value, which leaves out, for a
    training row, that row and its whole fold. Of several labels, the first one's."""
    target_scores: bool = False
    """A number beside each category: by how many standard deviations its mean label is
    above that of as many rows of any kind, likewise."""
    folds: int | None = None
    """Folds of target means: a training row's leaves out its whole fold."""
    prior: float | None = None
    """Prior of target means: rows at the overall mean that are added to those of each value."""
    crosses: tuple[str, ...] = ()
    """Combinations that become categories: "A*B", "A*B*C", or `pairs` and `triples` for all of the
    categories."""
    cross_min_count: int = 1
    """Combinations that the training rows have fewer times share a row with unseen ones."""
    cross_hash_rows: int = 0
    """Hash combinations into so many rows; 0 gives each a row of its own."""
    cross_embed: bool = True
    """Whether crosses have embeddings; without, only their log counts and target means remain."""
    select: Annotated[Literal["given", "auto"], tyro.conf.arg(aliases=["--features"])] = "given"
    """auto tries log counts, target means and crosses on the training rows, and keeps what
    helps."""

    def __post_init__(self) -> None:
        for cross in self.crosses:
            if cross in ("pairs", "triples"):
                continue
            if not 2 <= len(cross.split("*")) <= MOST_CROSSED:
                problem = f'features.crosses has "{cross}"'
                raise ConfigError(f'{problem}, expected "A*B", "A*B*C", pairs or triples')

    @property
    def unset(self) -> bool:
        """Whether nothing is set."""
        return self == FeaturesConfig()

    def apply(self, schema: Columns) -> Columns:
        """Return the schema with what is set here."""
        if self.unset:
            return schema
        if schema.whole_log:
            schema = schema.on_training_rows()
        columns = tuple(self._column(column) for column in schema.columns)
        crosses = {frozenset(cross.columns): cross for cross in schema.crosses}
        categories = [column.name for column in columns if column.kind == "category"]
        for cross in self.crosses:
            size = {"pairs": 2, "triples": 3}.get(cross)
            settings = (
                combinations(categories, size)
                if size
                else [tuple(name.strip() for name in cross.split("*"))]
            )
            for names in settings:
                crosses[frozenset(names)] = Cross(columns=names, values=self._cross_values())
        return replace(schema, columns=columns, crosses=tuple(crosses.values()))

    def _column(self, column: Column) -> Column:
        if column.kind == "ignore":
            return column
        if column.kind == "number":
            number = _given(
                scale=None if self.numbers == "drop" else self.numbers,
                dense=None if self.numbers is None else self.numbers != "drop",
                bins=self.bins,
                buckets=self.buckets,
                missing_flag=self.missing_flags,
            )
            return replace(column, **number)
        values = self._values(min_count=self.min_count, hash_rows=self.hash_rows)
        if column.kind in LISTS:
            values = {name: value for name, value in values.items() if name not in ENCODINGS}
        return replace(column, values=replace(column.values, **values))

    def _cross_values(self) -> Values:
        sizes = {"min_count": self.cross_min_count, "hash_rows": self.cross_hash_rows}
        return Values(embed=self.cross_embed, **self._values(**sizes))

    def _values(self, **sizes: int | None) -> dict[str, Any]:
        """Return what is set here of the values of a category, beside sizes of its table."""
        return _given(
            log_count=self.log_counts or None,
            target_mean=self.target_means or None,
            target_score=self.target_scores or None,
            folds=self.folds,
            prior=self.prior,
            **sizes,
        )


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
