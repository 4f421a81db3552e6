"""`dlrm data infer`: what the columns of a table are taken for, as a schema to edit."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from dlrm.data.checked import check_table
from dlrm.data.features import toml
from dlrm.data.features.column import names_of
from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.show import show
from dlrm.data.features.table_schema import inferred_schema, known_schema
from dlrm.data.fitting import raw_table
from dlrm.data.options import PrepareConfig
from dlrm.data.resolve import raw_files, table_of
from dlrm.data.sources.reading import Header
from dlrm.data.sources.source import OnBadRow
from dlrm.data.sources.table_files import in_folder
from dlrm.schema import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class InferResult:
    """The schema of a table."""

    schema: Columns

    @property
    def text(self) -> str:
        """The schema as TOML."""
        return toml.dumps(self.schema)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema and the reasons JSON-ready."""
        labels = self.schema.labels
        return {
            "label": labels[0],
            **({"labels": list(labels)} if len(labels) > 1 else {}),
            "task": self.schema.task,
            "weight": self.schema.weight,
            "columns": [
                {"name": column.name, "kind": column.kind, "why": column.why}
                for column in self.schema.columns
            ],
            "crosses": [
                {"columns": list(cross.columns), "why": cross.why} for cross in self.schema.crosses
            ],
            "schema": self.text,
        }


def infer(
    data: Annotated[str, tyro.conf.Positional],
    *,
    label: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    positive: str | None = None,
    task: Task | None = None,
    weight: str | None = None,
    category: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    missing: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    only_empty_missing: bool = False,
    features: Literal["given", "auto"] = "given",
    bad_rows: OnBadRow = "error",
    separator: str | None = None,
    header: Header = "auto",
    skip_lines: int | None = None,
    comment: str | None = None,
) -> InferResult:
    """Write the schema of a table to standard output, and the reasons to standard error.

    Send it to a file, edit it, and give it back: dlrm train FILE --schema schema.toml

    Args:
        data: CSV, TSV, JSON lines, Parquet or libsvm: one path, several separated by commas, a
            pattern, or a folder with files named train, valid and test.
        label: The column to predict; given several times, several columns.
        positive: The value of the label that counts as positive, or a comparison such as ">= 4".
        task: classification, or regression where labels are any numbers.
        weight: The column that says how much each row counts.
        category: A column that is a category whatever its values look like; may be given several
            times.
        missing: A text that is missing in every column; may be given several times.
        only_empty_missing: n/a, NULL, - and the like are not missing in numbers, times and labels.
        features: auto tries log counts, target means and crosses, and keeps what helps.
        bad_rows: Stop at a line that is no row, or leave it out.
        separator: What is between fields, such as ";", "::", tab or spaces.
        header: Whether a line names the columns; without one they are c0, c1, ...
        skip_lines: Lines above the header.
        comment: What lines that are no rows begin with.

    Raises:
        InputError: A file is missing or damaged; names the place.
        ConfigError: There is no such label.

    """
    given: dict[str, Any] = dict(locals())
    folder = Path(data)
    settings: dict[str, Any] = {
        name: given[name] for name in names_of(PrepareConfig) if name in given
    }
    settings["features"] = FeaturesConfig(select=features)
    config = PrepareConfig(**settings)
    source = table_of(in_folder(folder) if folder.is_dir() else raw_files(data), config)
    with TemporaryDirectory(prefix="dlrm-") as spill:
        schema = known_schema(source, config)
        raw = raw_table(source, Path(spill))
        schema = schema or inferred_schema(raw, config, strict=False)
        if features == "auto":
            schema = check_table(raw, schema, config).schema
    show(schema)
    return InferResult(schema=schema)
