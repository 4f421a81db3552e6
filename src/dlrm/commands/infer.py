"""`dlrm data infer`: what the columns of a table are taken for, as a schema to edit."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from dlrm.data.options import PrepareConfig
from dlrm.data.resolve import raw_files
from dlrm.data.tabular import toml
from dlrm.data.tabular.columns import Columns, FeaturesConfig
from dlrm.data.tabular.prepare import train_rows
from dlrm.data.tabular.schema import schema_of
from dlrm.data.tabular.show import show
from dlrm.data.tabular.source import FileTable, in_folder


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
        return {
            "label": self.schema.label,
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
    label: str | None = None,
    positive: str | None = None,
    features: Literal["given", "auto"] = "given",
) -> InferResult:
    """Write the schema of a table to standard output, and the reasons to standard error.

    Send it to a file, edit it, and give it back: dlrm train FILE --schema schema.toml

    Args:
        data: CSV, TSV, Parquet or libsvm: one path, several separated by commas, a pattern, or a
            folder with files named train, valid and test.
        label: The column to predict.
        positive: What the label is for a click: a value, or a comparison such as ">= 4".
        features: auto tries buckets, log counts, target means and crosses, and keeps what helps.

    Raises:
        InputError: A file is missing or damaged; names the place.
        ConfigError: There is no such label.

    """
    folder = Path(data)
    table = FileTable(in_folder(folder) if folder.is_dir() else raw_files(data))
    config = PrepareConfig(label=label, positive=positive, features=FeaturesConfig(select=features))
    with TemporaryDirectory(prefix="dlrm-") as spill:
        raw = table.write(Path(spill), lambda _: None)
        schema = schema_of(table, raw, config, None, strict=False)
        if features == "auto":
            from dlrm.data.tabular.auto import choose

            train, clicks = train_rows(raw, schema, config)
            schema = choose(raw, schema, train, clicks, seed=config.seed)
    show(schema)
    return InferResult(schema=schema)
