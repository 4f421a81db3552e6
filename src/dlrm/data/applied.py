"""Any rows, encoded by features that were fitted before: a new day for a model that is there."""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from dlrm.data.checked import TRAIN, check_rows, raw_table
from dlrm.data.coverage import Coverage
from dlrm.data.division import divide
from dlrm.data.features.features import Features
from dlrm.data.features.fit import FittingRows, grow
from dlrm.data.features.table_schema import check_columns
from dlrm.data.fitted import Block
from dlrm.data.options import PrepareConfig
from dlrm.data.scoring import check_columns as check_needed
from dlrm.data.sources.source import Source, has_fixed_format
from dlrm.data.split import SPLITS, Rows
from dlrm.data.store import FEATURES_FILE
from dlrm.errors import DatasetError


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


class AppliedTable:
    """A table, encoded by features that were fitted before.

    Args:
        known: The features.
        source: Where the rows come from.
        config: How they are divided, and what happens at bad ones.
        folder: Of the dataset; `spill` in it may go when all is done.
        bar: Shows how far it is.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        ConfigError: The rows lack a label.
        DatasetError: There are no rows.

    """

    truth = False

    def __init__(
        self, known: Known, source: Source, config: PrepareConfig, folder: Path, bar: Progress
    ):
        spill = folder / "spill"
        spill.mkdir()
        task = bar.add_task("Reading rows", total=source.rows())
        self._raw = raw = raw_table(source, spill, lambda rows: bar.advance(task, rows))
        features, columns = known.features, known.features.columns
        check_needed(features, raw.types, getattr(raw.parts[0], "origin", ""))
        check_columns(columns, raw)
        self._checked = check_rows(
            raw, columns, features.targets, config.bad_rows, varied=known.grows
        )
        default = "kaggle" if has_fixed_format(source) else "random"
        bad = self._checked.bad
        division = divide(raw, columns, self._checked.labels, bad, config, default=default)
        self._where, self.notes = division.where, division.notes
        train = np.flatnonzero(self._where == TRAIN)
        if known.grows:
            if not len(train):
                raise DatasetError("no row is left to train on; see prepare.fractions")
            labels = self._checked.labels[train, 0]
            rows = FittingRows(table=raw, train=train, labels=labels, good=np.flatnonzero(~bad))
            features, grown = grow(features, rows)
            self.notes += tuple(
                f"{name}: {count:,} new values, {now:,} in all"
                for name, (count, now) in grown.items()
            )
        self.features, self.bad_rows = features, self._checked.bad_rows
        self.rows = raw.rows - int(bad.sum())
        self.counted_rows = self.rows
        self._coverage = Coverage(features)

    def inputs(self) -> list[dict[str, Any]]:
        """Return what is known of each input, once all blocks were taken."""
        shares = {column.name: column for column in self._coverage.shares()}
        described = []
        for _, model_input in self.features.inputs:
            mine = shares.get(model_input.name)
            missing = mine.missing if mine and mine.missing else 0.0
            unseen = mine.unseen if mine else None
            number = model_input.num_embeddings is None
            described.append(
                {
                    "name": model_input.name,
                    "kind": "dense" if number else model_input.kind,
                    "num_embeddings": model_input.num_embeddings,
                    "missing": round(missing * self.rows),
                    "missing_rate": missing,
                    "rare": None if unseen is None else round(unseen * self.rows),
                }
            )
        return described

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows, once."""
        start = 0
        weights = self._checked.weights
        for frame in self._raw.blocks(self.features.needed):
            rows = slice(start, start + frame.height)
            encoded = self.features.encode(frame)
            good = ~self._checked.bad[rows]
            if good.all():
                self._coverage.add(encoded, frame)
            elif good.any():
                some = frame.filter(good)
                self._coverage.add(self.features.encode(some), some)
            encoded = replace(
                encoded,
                labels=self._checked.labels[rows],
                weights=None if weights is None else weights[rows],
            )
            where = self._where[rows]
            pieces: list[tuple[str, Rows]] = [
                (name, np.flatnonzero(where == k)) for k, name in enumerate(SPLITS)
            ]
            yield Block(encoded, pieces)
            start += frame.height
