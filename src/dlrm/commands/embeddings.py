"""`dlrm embeddings`: the vectors that a trained model has of the values of a column."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import tyro
from numpy.typing import NDArray
from rich.text import Text

from dlrm.data.describe import MISSING, RARE
from dlrm.data.features.features import Features
from dlrm.data.vocabulary import Vocabulary
from dlrm.errors import ConfigError, unknown
from dlrm.files import replacing
from dlrm.nn.table_vectors import table_vectors
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training import ensemble
from dlrm.training.config import from_dict
from dlrm.training.load import load_model

_FORMATS = (".parquet", ".csv", ".npy")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingsResult:
    """The vectors of the values of a table."""

    table: str
    member: int | None
    """Member of an ensemble whose vectors these are; None for a single model."""
    values: pl.DataFrame
    """(n rows) `id`, `value` as a text, and `count`, how often training rows had it; the last one
    is for rare and unseen values, whose count nobody knows."""
    vectors: NDArray[np.float32]
    """(n, D)"""
    out: Path | None
    """The file; None where there is none."""

    @property
    def frame(self) -> pl.DataFrame:
        """Values and vectors as one frame: `id`, `value`, `count`, and `vector`, D numbers."""
        dim = self.vectors.shape[1]
        vector = pl.Series("vector", self.vectors, pl.Array(pl.Float32, dim))
        return self.values.with_columns(vector)

    def to_dict(self) -> dict[str, Any]:
        """Return what was written, JSON-ready."""
        rows, dim = self.vectors.shape
        return {
            "table": self.table,
            "member": self.member,
            "rows": rows,
            "dim": dim,
            "out": None if self.out is None else str(self.out),
        }

    def __rich__(self) -> Text:
        rows, dim = self.vectors.shape
        whose = "" if self.member is None else f" of member {self.member}"
        where = "" if self.out is None else f", in {self.out}"
        return Text(f"{rows:,} vectors of {dim} numbers, table {self.table}{whose}{where}")


def embeddings(
    run: Annotated[Path | str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    *,
    table: str,
    out: Path | str | None = None,
    dim: int | None = None,
    member: int | None = None,
) -> EmbeddingsResult:
    """Write the vectors that the best model of a run has of the values of a column.

    Compressed and rounded tables give the vectors that the model sees.

    Args:
        run: The run directory.
        table: A table, or a column that looks it up.
        out: .parquet has `id`, `value`, `count` and `vector`; .csv the vector as `v0`, `v1`, ...;
            .npy the vectors alone, a row an id.
        dim: Numbers of a vector, where the model has several of a value, such as 1 for first-order
            weights; the longest by default.
        member: Of an ensemble, whose vectors; those of member 0 by default.

    Raises:
        RunError: The run has no model yet.
        ConfigError: There is no such table, member or format; lists the choices.

    """
    target = None if out is None else Path(out)
    if target is not None and target.suffix not in _FORMATS:
        raise ConfigError(f"{target}: vectors are written as {', '.join(_FORMATS)}")
    if target is not None and not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {target.parent}")
    opened = Run.open(run)
    name = _table(opened.schema, table)
    size = from_dict(opened.config).ensemble
    if not 0 <= (member or 0) < size or (member is not None and size == 1):
        choices = f"0 to {size - 1}" if size > 1 else "none, the run is a single model"
        raise ConfigError(f"member is {member}; choose one of: {choices}")
    owner = opened if size == 1 else Run.open(ensemble.folder(opened, member or 0))
    model = load_model(owner)
    feature = next(f for f in opened.schema.features if f.table == name)
    result = EmbeddingsResult(
        table=name,
        member=None if size == 1 else member or 0,
        values=_values(Features.load(opened.path).vocabulary(feature.name)),
        vectors=table_vectors(model, opened.schema, name, dim).numpy(),
        out=target,
    )
    if target is not None:
        _write(result, target)
    return result


def _table(schema: Schema, name: str) -> str:
    """Return the table of that name, or that the column of that name looks up."""
    tables = [table.name for table in schema.tables]
    if name in tables:
        return name
    if name in schema.feature_names:
        return schema.feature(name).table
    raise unknown("table", name, tables)


def _values(vocabulary: Vocabulary) -> pl.DataFrame:
    """Return `id`, `value` and `count` of all rows of a table."""
    known = range(vocabulary.other)
    texts = [text if (text := vocabulary.text(id)) is not None else MISSING for id in known]
    counts = vocabulary.frame["count"].cast(pl.Int64).to_list()
    return pl.DataFrame(
        {
            "id": pl.int_range(vocabulary.num_embeddings, eager=True),
            "value": pl.Series([*texts, RARE], dtype=pl.String),
            "count": pl.Series([*counts, None], dtype=pl.Int64),
        }
    )


def _write(result: EmbeddingsResult, out: Path) -> None:
    with replacing(out) as temporary, temporary.open("wb") as stream:
        match out.suffix:
            case ".npy":
                np.save(stream, result.vectors, allow_pickle=False)
            case ".parquet":
                result.frame.write_parquet(stream)
            case _:
                names = [f"v{d}" for d in range(result.vectors.shape[1])]
                vectors = pl.DataFrame(result.vectors, schema=names)
                result.values.hstack(vectors).write_csv(stream)
