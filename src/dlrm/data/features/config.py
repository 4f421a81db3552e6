"""Settings that change what becomes of the columns of a table."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Literal

import tyro

from dlrm.data.features.column import LISTS, MOST_CROSSED, Column, Cross, Scale, Values
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
    """Of target means: a training row's leaves out its whole fold."""
    prior: float | None = None
    """Of target means: rows at the overall mean that are added to those of each value."""
    crosses: tuple[str, ...] = ()
    """Combinations that become categories: "A*B", "A*B*C", or `pairs` and `triples` for all of the
    categories."""
    cross_min_count: int = 1
    """As min_count, for crosses."""
    cross_hash_rows: int = 0
    """As hash_rows, for crosses."""
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
            asked = (
                combinations(categories, size)
                if size
                else [tuple(name.strip() for name in cross.split("*"))]
            )
            for names in asked:
                crosses[frozenset(names)] = Cross(columns=names, values=self._cross_values())
        return replace(schema, columns=columns, crosses=tuple(crosses.values()))

    def _column(self, column: Column) -> Column:
        if column.kind == "number":
            scale = column.scale if self.numbers in (None, "drop") else self.numbers
            buckets = column.buckets if self.buckets is None else self.buckets
            flag = column.missing_flag if self.missing_flags is None else self.missing_flags
            dense = column.dense if self.numbers is None else self.numbers != "drop"
            bins = column.bins if self.bins is None else self.bins
            return replace(
                column, scale=scale, bins=bins, buckets=buckets, missing_flag=flag, dense=dense
            )
        if column.kind == "ignore":
            return column
        now = column.values
        single = column.kind not in LISTS
        values = replace(
            now,
            min_count=now.min_count if self.min_count is None else self.min_count,
            hash_rows=now.hash_rows if self.hash_rows is None else self.hash_rows,
            log_count=now.log_count or (self.log_counts and single),
            target_mean=now.target_mean or (self.target_means and single),
            target_score=now.target_score or (self.target_scores and single),
            folds=now.folds if self.folds is None else self.folds,
            prior=now.prior if self.prior is None else self.prior,
        )
        return replace(column, values=values)

    def _cross_values(self) -> Values:
        return Values(
            min_count=self.cross_min_count,
            hash_rows=self.cross_hash_rows,
            embed=self.cross_embed,
            log_count=self.log_counts,
            target_mean=self.target_means,
            target_score=self.target_scores,
            folds=Values().folds if self.folds is None else self.folds,
            prior=Values().prior if self.prior is None else self.prior,
        )
