"""`dlrm compress`: the tables of a run made smaller, and what that costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.commands.compare import without_extra
from dlrm.errors import ConfigError, unknown
from dlrm.files import write_json
from dlrm.nn.tables import tables_of
from dlrm.reporting import compression as page
from dlrm.reporting.page import save
from dlrm.run import Run
from dlrm.training.compression import METHODS, PRECISIONS, Sweep, sweep, variants
from dlrm.training.config import from_dict
from dlrm.training.ensemble import model_name
from dlrm.training.run_data import split_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressResult:
    """The cost of smaller tables in metrics."""

    run: Path
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    data: Path
    split: str
    samples: int
    """Rows that were measured."""
    sweep: Sweep
    report: Path | None
    """compress.html; None without the extra that draws it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.run),
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "samples": self.samples,
            **self.sweep.to_dict(),
            "conclusion": page.conclusion(self.sweep),
            "report": str(self.report) if self.report else None,
        }

    def __rich__(self) -> RenderableType:
        clicks = self.sweep.metric == "log_loss"
        heads = ("AUC", "change", "log loss", "change") if clicks else ("RMSE", "change")
        grid = terminal.table(
            f"{self.run} ({self.model}), {self.samples:,} {self.split} rows",
            "",
            "size",
            "x",
            *heads,
        )
        best = {candidate.name for candidate in self.sweep.frontier}
        for candidate in self.sweep.candidates:
            numbers = (candidate.auc, candidate.auc_change) if clicks else ()
            numbers += (self.sweep.error(candidate), self.sweep.change(candidate))
            cells = [
                "-" if value is None else f"{value:+.5f}" if place % 2 else f"{value:.4f}"
                for place, value in enumerate(numbers)
            ]
            grid.add_row(
                candidate.name,
                terminal.human_bytes(candidate.size_bytes),
                f"{candidate.ratio:.2f}",
                *cells,
                style="bold" if candidate.name in best else "",
            )
        lines: list[RenderableType] = [grid]
        lines.append("x: times smaller than plain float32 tables; bold: no other is better in both")
        lines += [Text(f"Not tried: {name}: {why}") for name, why in self.sweep.skipped.items()]
        lines.append(page.conclusion(self.sweep))
        if self.report:
            lines.append(f"Report: {self.report}")
        return Group(*lines)


def compress(
    run: Annotated[Path | str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    *,
    data: str | None = None,
    split: str = "test",
    train: bool = False,
    methods: tuple[str, ...] = METHODS,
    collisions: tuple[int, ...] = (4, 16, 64),
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6),
) -> CompressResult:
    """Measure the tables of a run with fewer bits and, on request, train smaller ones.

    Writes compress.json and compress.html into the run directory. What is trained lies in
    `compress/` there: the same command goes on where it was stopped.

    Args:
        run: The run directory.
        data: A prepared dataset with the schema of the run; its own by default.
        split: train, validation or test.
        train: Also train other tables in the place of the run's, with its config.
        methods: What to train: qr, mixed_dim, hash.
        collisions: Sizes of qr and hash: ids a row.
        temperatures: Sizes of mixed_dim: the higher, the smaller.

    Raises:
        RunError: The run has no model yet, or was trained on another schema.
        DatasetError: The dataset is damaged, or its split has no rows.
        ConfigError: There is no such method, or a size has no meaning.

    """
    opened = Run.open(run)
    config = from_dict(opened.config)
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    if train and not methods:
        raise ConfigError(f"--train needs methods: {', '.join(METHODS)}")
    dataset, rows = split_of(opened, data, split)
    trained = list(variants(tables_of(config.model), methods, collisions, temperatures))
    bar = terminal.progress()
    task = bar.add_task("measuring", total=1 + len(PRECISIONS))
    bar.start()

    def tick() -> None:
        bar.advance(task)
        # Trainings have bars of their own, and a terminal shows one at a time.
        if bar.finished:
            bar.stop()

    try:
        swept = sweep(opened, config, dataset, rows, trained if train else [], tick)
    finally:
        bar.stop()
    model = model_name(config)
    about = f"{model} · {dataset.path} · {split} · {len(rows):,} rows"
    result = CompressResult(
        run=opened.path,
        model=model,
        data=dataset.path,
        split=split,
        samples=len(rows),
        sweep=swept,
        report=without_extra(
            lambda: save(page.page(swept, opened.path.name, about), opened.path / "compress.html")
        ),
    )
    write_json(opened.path / "compress.json", result.to_dict())
    return result
