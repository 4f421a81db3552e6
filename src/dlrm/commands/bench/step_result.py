"""What `dlrm bench train` and `dlrm bench infer` found: operator by operator, and a verdict."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.arch import Arch
from dlrm.bench.cost.fit import OTHER
from dlrm.bench.cost.verdict import off
from dlrm.bench.cost.what_if import WhatIf
from dlrm.bench.step import StepMeasured
from dlrm.bench.subject import Subject
from dlrm.nn import precision
from dlrm.planning.machine import Machine
from dlrm.terminal import human_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Steps at some batch sizes."""

    subject: Subject
    arch: Arch | None
    """None of a recipe or data."""
    rows_scale: float
    train: bool
    machine: Machine
    measured: list[StepMeasured]
    change: WhatIf | None
    html: Path | None

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        config = self.subject.config
        return {
            "arch": self.subject.name,
            "model": config.model.name,
            "precision": precision.resolve(config.precision),
            "storage": config.model.tables.storage,
            "optim": config.optim.name,
            "ids": "data" if self.subject.dataset is not None else self.subject.ids,
            "pooling": self.subject.shape(1).pooling,
            "rows_scale": self.rows_scale,
            "dim": getattr(config.model, "dim", None),
        }

    def batches(self) -> list[dict[str, Any]]:
        """Return the figures of each batch size."""
        found = []
        for each in self.measured:
            row = each.to_dict()
            row["what_if"] = each.what_if(self.change) if self.change else None
            row |= self._published(row)
            found.append(row)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of results."""
        suite = "train" if self.train else "infer"
        tables = self._tables()
        return [
            results.row(
                suite,
                {**self.setting(), "tables": tables, **row},
                seed=self.subject.config.seed,
                steal=row["steal_share"],
            )
            for row in self.batches()
        ]

    def machine_row(self) -> dict[str, Any]:
        """Return the row of the machine that they were measured on."""
        of = self.machine
        return results.row(
            "machine",
            {
                "facts": of.facts.to_dict(),
                "ceilings": of.ceilings.to_dict(),
                "costs": of.costs,
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            **self.setting(),
            "tables": self._tables(),
            "batches": self.batches(),
            "fingerprint": self.machine.fingerprint,
            "page": str(self.html) if self.html else None,
            **results.machine(),
        }

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._machine(), self._input()]
        for row, measured in zip(self.batches(), self.measured, strict=True):
            parts.append(_grid(row))
            parts.append(Text(row["verdict"]))
            if published := row.get("published_samples"):
                parts.append(Text(_beside(row, published)))
            if row["what_if"]:
                parts.append(Text(_what_if(row["what_if"])))
            if warning := measured.seen.warning:
                parts.append(Text(f"Doubtful: {warning}", style="bold"))
        parts.append(
            "roof: the least time at this machine's limits, over the time taken; model: ms by the "
            "fitted model"
        )
        if self.html:
            parts.append(f"Page: {self.html}")
        return Group(*parts)

    def _machine(self) -> Text:
        of, rates = self.machine, self.machine.ceilings
        threads = rates.threads
        flops = ", ".join(
            f"{name} {each[threads] / 1e9:,.0f}" for name, each in rates.flops.items()
        )
        return Text(
            f"Machine {of.fingerprint}: {of.facts.cpu}, {threads} threads, copies "
            f"{rates.copy[threads] / 1e9:.0f} GB/s, multiplies {flops} GFLOP/s"
        )

    def _input(self) -> Text:
        of, setting = self.subject, self.setting()
        tables = of.schema.tables
        rows = f"{sum(table.num_embeddings for table in tables):,} rows in {len(tables)} tables"
        size = sum(each["bytes"] for each in self._tables())
        return Text(
            f"Model {setting['model']} on {of.name}: {rows} ({human_bytes(size)}), "
            f"{len(of.schema.dense)} dense features; {setting['precision']}, tables "
            f"{setting['storage']}, {setting['ids']} ids, {setting['pooling']:g} a table"
            + (f"; {setting['optim']}" if self.train else "")
        )

    def _tables(self) -> list[dict[str, Any]]:
        """Return the size of each table, and of its rows."""
        dim = getattr(self.subject.config.model, "dim", 1)
        row_bytes = dim * (4 if self.subject.config.model.tables.storage == "fp32" else 2)
        return [
            {
                "name": table.name,
                "bytes": table.num_embeddings * row_bytes,
                "row_bytes": row_bytes,
            }
            for table in self.subject.schema.tables
        ]

    def _published(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.arch is None or not self.arch.samples or not self.train or self.rows_scale != 1:
            return {}
        samples = self.arch.samples
        return {
            "published_samples": samples,
            "published_ours_s": samples / row["samples_per_s"],
            **{f"published_{name}_s": s for name, s in self.arch.published_s.items()},
        }


def _grid(row: dict[str, Any]) -> Table:
    low, high = row["step_low"], row["step_high"]
    title = f"Batch {row['batch_size']:,}: {row['step_ms']:.3g} ms ({low:.3g} to {high:.3g}), "
    title += f"{row['samples_per_s']:,.0f} samples/s; predicted {row['predicted_ms']:.3g} ms"
    heads = ("ms", "share", "GFLOP/s", "GB/s", "roof", "bound by", "model")
    grid = terminal.table(title, "operator", *heads)
    for each in row["operators"]:
        share = each["roofline_share"]
        grid.add_row(
            each["name"],
            f"{each['ms']:.3g}",
            f"{each['share']:.0%}",
            _rate(each["gflops_per_s"]),
            _rate(each["gb_per_s"]),
            f"{share:.0%}" if share else "-",
            "" if each["name"] == OTHER else each["bound"].removeprefix("memory "),
            f"{each['predicted_ms']:.3g}",
        )
    return grid


def _rate(value: float | None) -> str:
    return "-" if not value else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _beside(row: dict[str, Any], samples: int) -> str:
    said = f"{samples:,} samples would take {row['published_ours_s']:.0f} s here; published: "
    names = [key for key in row if key.startswith("published_") and key.endswith("_s")]
    return said + ", ".join(
        f"{row[key]:g} s on a {key.removeprefix('published_').removesuffix('_s')}"
        for key in names
        if key != "published_ours_s"
    )


def _what_if(found: dict[str, Any]) -> str:
    change = ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:.3g}x'}"
        for name, value in found["change"].items()
    )
    return (
        f"With {change}: {found['step_ms']:.3g} ms, {found['gain']:.2f} times as fast, predicted "
        f"{off(found['model_error'], found['error_here'])}"
    )
