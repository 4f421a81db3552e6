"""`dlrm data fit DATASET --out FILE`: a model of a whole click log, which can be shared."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from tyro.conf import Positional

from dlrm import models, terminal
from dlrm.data.click_card import ClickCard, compare
from dlrm.data.click_model import THRESHOLD, ClickModel, raw_numbers, real_values
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.resolve import resolve
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.json_file import write_sealed
from dlrm.recipes import find
from dlrm.terminal import human_bytes
from dlrm.training.trainer import Trainer

LEARNERS = ("lr", "fm", "dlrm")
"""Models that are trained on either, and tested on the real rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitLogResult:
    """A fitted log, and how near to its source what it generates is."""

    out: Path
    size_bytes: int
    rows: int
    """Training rows that it was fitted to."""
    threshold: int
    card: ClickCard
    learners: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    """Model -> `real` or `synthetic` -> AUC and log loss on the real test rows, where there are any
    """
    quality: float | None
    """Score of sdmetrics' QualityReport; None where it is not installed"""

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "out": str(self.out),
            "size_bytes": self.size_bytes,
            "rows": self.rows,
            "threshold": self.threshold,
            "card": self.card.to_dict(),
            "learners": {name: dict(scores) for name, scores in self.learners.items()},
            "sdmetrics_quality": self.quality,
        }

    def __rich__(self) -> RenderableType:
        card = self.card.to_dict()
        worst, off = card["marginal_worst"]
        grid = terminal.table(None, "trained on", "AUC", "log loss")
        for name, scores in self.learners.items():
            for data, metrics in scores.items():
                values = ("-" if value is None else f"{value:.4f}" for value in metrics.values())
                grid.add_row(f"{name}, {data} rows", *values)
        lines: list[RenderableType] = [
            f"Columns are off by {card['marginal_mean']:.3f} in total variation on average, "
            f"{worst} most, by {off:.3f}; pairs by {card['pair_mean']:.3f}; how much one says of "
            f"another by {card['dependence_mean']:.3f}; the click rate by "
            f"{card['click_rate_difference']:.4f}."
        ]
        if self.quality is not None:
            lines.append(f"sdmetrics calls that a quality of {self.quality:.3f}.")
        if self.learners:
            lines += ["Tested on the real test rows:", grid]
        lines.append(
            f"{self.out}  {human_bytes(self.size_bytes)}; nothing in it is of fewer than "
            f"{self.threshold} rows"
        )
        lines.append(f"Next: dlrm data generate --profile {self.out} --out synthetic.csv")
        return Group(*lines)


def fit_log(
    data: Positional[str],
    *,
    out: Path,
    threshold: int = THRESHOLD,
    learners: tuple[str, ...] = LEARNERS,
    seed: int = 0,
) -> FitLogResult:
    """Fit a model of a whole click log: labels, numbers, categories, and what depends on what.

    The file can be shared where the log cannot: it holds no row, no value of a category, and
    nothing that fewer than `threshold` rows have. A card says how near to the log what it generates
    is: columns, pairs of columns, and what models reach on the real test rows when they are
    trained on either.

    Args:
        data: A prepared dataset, or raw data as `dlrm train --data` takes them.
        out: The file to write, JSON.
        threshold: Rows that something must be seen in to be told.
        learners: Models to train on either; none to leave that out.
        seed: Seed of the fit, and of the rows that the card is of.

    Raises:
        ConfigError: There is no label of clicks, or there are too few rows.
        InputError: The data are missing or bad.

    """
    dataset = resolve(data)
    with terminal.progress() as bar:
        task = bar.add_task("Fitting", total=2 + 2 * len(learners))
        model = ClickModel.fit(dataset, threshold, seed)
        write_sealed(out, model.to_dict(), indent=None)
        bar.advance(task)
        rows = sum(len(dataset.split(name)) for name in ("train", "validation"))
        synthetic = pl.concat(model.frames(rows, seed, real_values(dataset)))
        real = decoded(dataset, synthetic)
        card = compare(real, synthetic, model.label)
        bar.advance(task)
        scores: dict[str, dict[str, dict[str, float | None]]] = {}
        with tempfile.TemporaryDirectory() as folder:
            encoded = _encoded(dataset, synthetic, Path(folder) / "synthetic", model.label)
            for name in learners:
                scores[name] = {}
                for origin, rows_of in (("real", dataset), ("synthetic", encoded)):
                    path = Path(folder) / f"{name}-{origin}"
                    scores[name][origin] = _scores(name, rows_of, dataset, path, seed)
                    bar.advance(task)
    return FitLogResult(
        out=out,
        size_bytes=out.stat().st_size,
        rows=len(dataset.split("train")),
        threshold=threshold,
        card=card,
        learners=scores,
        quality=quality(real, synthetic),
    )


def decoded(dataset: Dataset, like: pl.DataFrame) -> pl.DataFrame:
    """Return the training rows of a dataset with the columns of a table, as raw data have them."""
    features, split = Features.load(dataset.path), dataset.split("train")
    columns = [pl.Series(dataset.schema.labels[0], split.labels[:, 0])]
    dense = {one.name: place for place, one in enumerate(dataset.schema.dense)}
    ids = {one.name: place for place, one in enumerate(dataset.schema.one_hot_features)}
    for name in like.columns[1:]:
        if name in ids:
            values = features.vocabulary(name).frame["value"]
            values = values.extend_constant(None, 1)
            columns.append(values.gather(split.ids[:, ids[name]]).alias(name))
        else:
            numbers = raw_numbers(dataset, features, name, split.dense[:, dense[name]])
            columns.append(pl.Series(name, numbers, nan_to_null=True))
    return pl.DataFrame(columns)


def _encoded(dataset: Dataset, rows: pl.DataFrame, path: Path, label: str) -> Dataset:
    """Return rows with the values of a dataset, encoded as it is."""
    config = PrepareConfig(label=(label,), split="random", fractions=(0.9, 0.1, 0.0))
    known = Known(features=Features.load(dataset.path))
    return prepare(FrameSource(rows), path, config, known=known, quiet=True).dataset


def _scores(
    name: str, data: Dataset, tested: Dataset, path: Path, seed: int
) -> dict[str, float | None]:
    """Return what a model that is trained on some rows reaches on the test rows of others."""
    from dlrm.training.evaluate import measured, predict_split

    config = replace(
        find("demo")(), model=models.find(name)(), data=str(data.path), seed=seed, baseline=False
    )
    with terminal.quiet(), terminal.muted():
        model = Trainer.create(path, "demo", config, data).fit().model
    predictions = predict_split(model, tested.split("test"), config.eval.batch_size)
    values = measured(predictions, tested.schema)
    return {"auc": values.mean("auc"), "log_loss": values.mean("log_loss")}


def quality(real: pl.DataFrame, synthetic: pl.DataFrame) -> float | None:
    """Return the score of sdmetrics' QualityReport of two tables; None without sdmetrics."""
    if find_spec("sdmetrics") is None:
        return None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sdmetrics.reports.single_table import (  # pyright: ignore[reportMissingImports]
            QualityReport,
        )

        kinds = {
            name: {"sdtype": "numerical" if dtype.is_float() else "categorical"}
            for name, dtype in real.schema.items()
        }
        import pandas as pd

        frames = [
            pd.DataFrame(table.head(10_000).to_dict(as_series=False)) for table in (real, synthetic)
        ]
        report = QualityReport()
        report.generate(frames[0], frames[1], {"columns": kinds}, verbose=False)
        score = report.get_score()
        return None if score is None else float(score)
