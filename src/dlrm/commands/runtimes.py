"""`dlrm runtimes`: one trained model on every runtime that is installed, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Group, RenderableType
from rich.text import Text
from tyro.conf import arg

from dlrm import terminal
from dlrm.commands.compare import without_extra
from dlrm.data.loader import Loader
from dlrm.errors import ConfigError
from dlrm.files import write_json
from dlrm.reporting import runtimes as page
from dlrm.reporting.page import save
from dlrm.run import Run
from dlrm.runtimes import runtime
from dlrm.runtimes.contrast import SIZES, Row, contrast
from dlrm.runtimes.runtime import Options
from dlrm.runtimes.trained import TrainedModel
from dlrm.training.run_data import split_of

ROWS = 1024
"""Rows of a batch that is asked of every runtime."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimesResult:
    """The runtimes of a run, beside each other."""

    run: Path
    model: str
    split: str
    samples: int
    rows: list[Row]
    report: Path | None
    """runtimes.html; None without the extra that draws it."""

    @property
    def status(self) -> int:
        """The exit status: 1 where a runtime failed."""
        return int(any(row.verdict == "failed" for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.run),
            "model": self.model,
            "split": self.split,
            "samples": self.samples,
            "runtimes": {row.name: row.to_dict() for row in self.rows},
            "conclusion": page.conclusion(self.rows),
            "report": str(self.report) if self.report else None,
        }

    def __rich__(self) -> RenderableType:
        sizes = sorted({size for row in self.rows for size in row.latency or {}})
        grid = terminal.table(
            f"{self.run} ({self.model}), {self.samples:,} {self.split} rows",
            "",
            "differs by",
            "start",
            "size",
            *(f"{size}, us" for size in sizes),
            "verdict",
        )
        for row in self.rows:
            if row.verdict is None:
                continue
            times = [f"{latency.p50_us:,.0f}" for latency in (row.latency or {}).values()]
            grid.add_row(
                row.name,
                f"{row.max_abs_diff:.1e}",
                f"{row.start_up_s:.2f} s",
                terminal.human_bytes(row.size_bytes or 0),
                *times,
                row.verdict,
            )
        lines: list[RenderableType] = [grid]
        lines += [Text(f"Not run: {row.name}: {row.missing}") for row in self.rows if row.missing]
        lines.append(Text(page.conclusion(self.rows)))
        if self.report:
            lines.append(Text(f"Report: {self.report}"))
        return Group(*lines)


def compare_runtimes(
    run: Annotated[Path | str, tyro.conf.Positional, arg(metavar="RUN")],
    *,
    only: tuple[str, ...] = (),
    artefacts: tuple[Path, ...] = (),
    data: str | None = None,
    split: str = "test",
    rows: int = 16384,
    threads: int = 0,
    precision: Literal["fp32", "run"] = "fp32",
    openvino_precision: Literal["f32", "bf16", "auto"] = "f32",
) -> RuntimesResult:
    """Compare the runtimes that can run a trained model: parity, ranks, time, size.

    Writes runtimes.json and runtimes.html into the run directory. The exit status is 1 where a
    runtime answers otherwise than PyTorch.

    Args:
        run: The run directory.
        only: Names of runtimes: eager, torch, aoti, onnx, openvino, jax; all by default.
        artefacts: Exports that are there already, each checked and run in place of a new one.
        data: A prepared dataset with the schema of the run; its own by default.
        split: train, validation or test.
        rows: Rows of it, at most.
        threads: Threads of every runtime; 0 for as many as torch takes.
        precision: What eager computes in: fp32, or what the run was trained in.
        openvino_precision: What OpenVINO computes in; auto leaves it the choice.

    Raises:
        RunError: The run has no model yet, or an artefact was altered or is of another model.
        ConfigError: There is no such runtime.

    """
    opened = Run.open(run)
    names = list(only or runtime.RUNTIMES)
    for name in names:
        runtime.find(name)
    if rows < 1 or threads < 0:
        raise ConfigError(f"--rows is {rows} and --threads {threads}: rows must be positive")
    _, chosen = split_of(opened, data, split)
    samples = min(rows, len(chosen))
    batches = []
    for batch in Loader(chosen, batch_size=min(ROWS, samples)).epoch(0):
        if sum(map(len, batches)) < samples:
            batches.append(batch)
    trained = TrainedModel.of(opened, "fp32" if precision == "fp32" else None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with terminal.progress() as bar:
            task = bar.add_task("running", total=len(names))
            measured = contrast(
                trained,
                names,
                batches,
                Options(threads=threads, openvino_precision=openvino_precision),
                artefacts=artefacts,
                sizes=SIZES,
                tick=lambda: bar.advance(task),
            )
    finally:
        torch.set_num_threads(before)
    samples = sum(map(len, batches))
    about = f"{trained.name} · {split} · {samples:,} rows"
    result = RuntimesResult(
        run=opened.path,
        model=trained.name,
        split=split,
        samples=samples,
        rows=measured,
        report=without_extra(
            lambda: save(
                page.page(measured, opened.path.name, about), opened.path / "runtimes.html"
            )
        ),
    )
    write_json(opened.path / "runtimes.json", result.to_dict())
    return result
