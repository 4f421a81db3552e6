"""Any rows, encoded by features that were fitted before: a new day for a model that is there."""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from dlrm.data.checked import CheckedTable, check_rows
from dlrm.data.coverage import Coverage
from dlrm.data.features.features import Features
from dlrm.data.features.fit import grow
from dlrm.data.features.table_schema import check_columns
from dlrm.data.fit_table import default_protocol, encoded_blocks, read_rows
from dlrm.data.fitted import Block, Fitted, described_input
from dlrm.data.options import PrepareConfig
from dlrm.data.scoring import check_columns as check_needed
from dlrm.data.sources.source import Source
from dlrm.data.store import FEATURES_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Features of a run, and whether they take up new values of their categories."""

    features: Features
    grows: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these features from others."""
        assert self.features.folder is not None
        digest = hashlib.sha256()
        for name in (FEATURES_FILE, *self.features.files):
            with (self.features.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"features_of": digest.hexdigest(), "grows": self.grows}


def apply(
    known: Known, source: Source, config: PrepareConfig, folder: Path, bar: Progress
) -> Fitted:
    """Return the rows of a source, encoded by features that were fitted before."""
    raw, features = read_rows(source, folder, bar), known.features
    columns = features.columns
    check_needed(features, raw.types, getattr(raw.parts[0], "origin", ""))
    check_columns(columns, raw)
    table = check_rows(
        raw,
        columns,
        features.targets,
        config,
        default=default_protocol(source),
        varied=known.grows,
    )
    notes = table.notes
    if known.grows:
        features, grown = grow(features, table.fitting_rows())
        notes += tuple(
            f"{name}: {count:,} new values, {now:,} in all" for name, (count, now) in grown.items()
        )
        if fixed := [f.name for f in features.features if getattr(f, "counted", None)]:
            notes += (
                f"{', '.join(fixed)}: values, counts and target means stay as the first run "
                "fitted them; to renew them, train anew on the rows of all days",
            )
    rows, coverage = table.good_rows, Coverage(features)
    return Fitted(
        features=features,
        rows=rows,
        counted_rows=rows,
        bad_rows=table.bad_rows,
        blocks=_blocks(table, features, coverage),
        inputs=partial(_inputs, features, coverage, rows),
        notes=notes,
    )


def _blocks(
    table: CheckedTable, features: Features, coverage: Coverage
) -> Generator[Block, None, None]:
    """Yield all rows, of which the good ones are counted."""
    for frame, rows, block in encoded_blocks(table, features):
        good = ~table.bad[rows]
        if good.all():
            coverage.add(block.encoded, frame)
        elif good.any():
            some = frame.filter(good)
            coverage.add(features.encode(some), some)
        yield block


def _inputs(features: Features, coverage: Coverage, rows: int) -> list[dict[str, Any]]:
    shares = {column.name: column for column in coverage.shares()}
    described = []
    for _, model_input in features.inputs:
        mine = shares.get(model_input.name)
        missing = round((mine.missing or 0.0) * rows) if mine else 0
        rare = round(mine.unseen * rows) if mine and mine.unseen is not None else None
        described.append(described_input(model_input, missing=missing, rows=rows, rare=rare))
    return described
