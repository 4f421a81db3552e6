"""`dlrm bench train` and `dlrm bench infer`: where the time of a step goes, and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import recipes, terminal
from dlrm.bench import results, step
from dlrm.bench.arch import ARCHS
from dlrm.bench.known import known
from dlrm.bench.subject import Subject
from dlrm.bench.watch import Seen
from dlrm.commands.flags import parse_with_config
from dlrm.commands.run_config import with_model
from dlrm.data.resolve import resolve
from dlrm.errors import ConfigError, unknown
from dlrm.nn import precision
from dlrm.nn.tables import tables_of
from dlrm.planning import what_if as changes
from dlrm.planning.costs import OTHER
from dlrm.planning.machine import Machine
from dlrm.planning.quantities import counts
from dlrm.planning.what_if import WhatIf
from dlrm.planning.work import NUMBER_BYTES, Ids
from dlrm.terminal import human_bytes
from dlrm.training.config import TrainConfig

DEFAULT = "criteo-kaggle"


ARGUMENTS = """

Args:
    name: Name of the model, or of a recipe.
    config: What is measured, changed or not; None for what the name stands for.
    batch: Batch sizes, separated by commas; those of the model if not given.
    ids: How random ids are distributed: uniform, or zipf, by a power law.
    pooling: Random ids of a sample in each table; as the model has it if not given.
    rows_scale: Share of the rows of each random table, where memory is short.
    rounds: Timed rounds.
    what_if: Also say what another machine would take:
        bandwidth=2x,cores=4,cache=64MB,precision=int8. There are cores, bandwidth, flops, latency,
        cache, precision and rows.
    out: Rows of results are appended to this file, as JSON lines.
    html: They are drawn as one page into this file.

Raises:
    DlrmError: A setting has no meaning, it does not fit, or the data are too few.
"""


def _command(about: str, *, train: bool) -> "Callable[..., StepResult]":
    """Return the function behind a command, described in words."""

    def bench(
        name: str = DEFAULT,
        config: TrainConfig | None = None,
        *,
        batch: str = "",
        ids: Ids = "uniform",
        pooling: int = 0,
        rows_scale: float = 1.0,
        rounds: int = 11,
        what_if: str = "",
        out: Path | None = None,
        html: Path | None = None,
    ) -> "StepResult":
        config = config or default(name)
        if rounds < 2:
            raise ConfigError(f"rounds is {rounds}, expected at least 2")
        measured, sizes = subject(
            name, config, batch=batch, ids=ids, pooling=pooling, rows_scale=rows_scale
        )
        for size in sizes:
            measured.check(size, train=train)
        before = torch.get_num_threads()
        if config.threads:
            # Before anything is measured or predicted: both are of so many threads.
            torch.set_num_threads(config.threads)
        try:
            machine = known()
            change = _change(what_if, machine) if what_if else None
            with terminal.progress() as bar:
                task = bar.add_task(f"building {name}", total=len(sizes) * rounds)

                def tick() -> None:
                    bar.update(task, advance=1, description="timing steps")

                steps = list(
                    step.measure(measured, sizes, machine, train=train, rounds=rounds, tick=tick)
                )
        finally:
            torch.set_num_threads(before)
        result = StepResult(
            subject=measured,
            rows_scale=rows_scale,
            train=train,
            machine=machine,
            measured=steps,
            change=change,
            html=html,
        )
        if out is not None:
            results.save(result.rows(), out)
        if html is not None:
            from dlrm.reporting import bench as page

            page.write(html, [result.machine_row(), *result.rows()])
        return result

    bench.__doc__ = about + ARGUMENTS
    return bench


bench_train = _command(
    """Show where the time of a training step goes, and what would change it.

The first word names a model: criteo-kaggle (the paper's, and the default), criteo-terabyte
(MLPerf's), original-random (the random model of the original's benchmark), figure6 (the model that
the paper profiles); or a recipe or data, as in `dlrm train`, whose flags also hold here:
dlrm bench train figure6 --model.dim 32 --batch 1024,4096.

A step is forward, loss, backward and update, on batches in memory that rotate past the last-level
cache. Each operator is timed within real steps and set beside this machine's limits, which are
measured once (`dlrm bench machine`) and kept. Nothing else may compute meanwhile.""",
    train=True,
)
bench_infer = _command(
    """Show where the time of scoring a batch goes, and what would change it.

The first word names a model: criteo-kaggle (the default), criteo-terabyte, original-random,
figure6; or a recipe or data, as in `dlrm train`, whose flags also hold here:
dlrm bench infer criteo-kaggle --batch 1,64,1024 --precision bf16.

A step is the forward pass and the probabilities, without gradients, on batches in memory that
rotate past the last-level cache. Nothing else may compute meanwhile.""",
    train=False,
)


def train(words: list[str], prog: str) -> "StepResult":
    """Parse `[MODEL | RECIPE | DATA] [--FLAG VALUE ...]` and measure a training step."""
    return _parsed(bench_train, words, prog)


def infer(words: list[str], prog: str) -> "StepResult":
    """Parse `[MODEL | RECIPE | DATA] [--FLAG VALUE ...]` and measure scoring."""
    return _parsed(bench_infer, words, prog)


def _parsed(bench: "Callable[..., StepResult]", words: list[str], prog: str) -> "StepResult":
    first, flags = recipes.first_word(words)
    elsewhere = "--data" in {flag.split("=")[0] for flag in flags}
    name = first or ("demo" if elsewhere else DEFAULT)
    config, given = parse_with_config(bench, with_model(default(name), flags), flags, prog)
    return bench(name, config, **given)


def default(name: str) -> TrainConfig:
    """Return the config that is measured under a name where nothing else is said.

    Raises:
        ConfigError: There is no model or recipe of that name.

    """
    if name in ARCHS:
        known_recipe = recipes.find(name)() if name in recipes.RECIPES else TrainConfig()
        return replace(known_recipe, model=ARCHS[name].model)
    if name in recipes.RECIPES or ":" in name:
        return recipes.find(name)()
    raise unknown("model", name, [*ARCHS, *recipes.RECIPES, "module:function", "DATA"])


def subject(
    name: str,
    config: TrainConfig,
    *,
    batch: str = "",
    ids: Ids = "uniform",
    pooling: int = 0,
    rows_scale: float = 1.0,
) -> tuple[Subject, list[int]]:
    """Return what is measured, and the batch sizes; arguments as for `bench_train`.

    Raises:
        DlrmError: A setting has no meaning, or the data cannot be prepared.

    """
    if pooling < 0:
        raise ConfigError(f"pooling is {pooling}, expected at least 1")
    if name in ARCHS:
        arch = ARCHS[name].scaled(rows_scale)
        arch = replace(arch, pooling=pooling or arch.pooling, varied=arch.varied and not pooling)
        measured = Subject(
            name=name,
            config=config,
            schema=arch.schema,
            ids=ids,
            pooling=arch.pooling,
            varied=arch.varied,
        )
        return measured, counts("batch", batch or arch.batches)
    if pooling or rows_scale != 1:
        raise ConfigError(
            "pooling and rows-scale are of random tables and batches; these are of prepared data"
        )
    dataset = resolve(config.data, config.prepare)
    measured = Subject(name=name, config=config, schema=dataset.schema, dataset=dataset)
    return measured, counts("batch", batch or str(config.loader.batch_size))


def _change(text: str, machine: Machine) -> WhatIf:
    cache = machine.facts.last_level
    return changes.read(
        text,
        cores=machine.ceilings.threads,
        copy=machine.ceilings.copy[machine.ceilings.threads],
        cache_bytes=cache.total_bytes if cache else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Steps at some batch sizes."""

    subject: Subject
    rows_scale: float
    train: bool
    machine: Machine
    measured: list[tuple[dict[str, Any], Seen]]
    """The figures of each batch size, and what else the machine did meanwhile."""
    change: WhatIf | None
    html: Path | None

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        config = self.subject.config
        return {
            "arch": self.subject.name,
            "model": config.model.name,
            "precision": precision.resolve(config.precision),
            "storage": tables_of(config.model).storage,
            "optim": config.optim.name,
            "ids": "data" if self.subject.dataset is not None else self.subject.ids,
            "pooling": self.subject.shape(1).pooling,
            "rows_scale": self.rows_scale,
            "dim": getattr(config.model, "dim", None),
        }

    def batches(self) -> list[dict[str, Any]]:
        """Return the figures of each batch size."""
        return [
            {
                **row,
                "what_if": self.change.applied(row) if self.change else None,
                **self._published(row),
            }
            for row, _ in self.measured
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of results."""
        suite = "train" if self.train else "infer"
        tables = self._tables()
        return [
            results.row(
                suite,
                {**self.setting(), "tables": tables, **row},
                seed=self.subject.config.seed,
            )
            for row in self.batches()
        ]

    def machine_row(self) -> dict[str, Any]:
        """Return the row of the machine that they were measured on."""
        return results.row("machine", self.machine.measured())

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
        for row, (_, seen) in zip(self.batches(), self.measured, strict=True):
            parts.append(_grid(row))
            parts.append(Text(row["verdict"]))
            if published := row.get("published_samples"):
                parts.append(Text(_beside(row, published)))
            if row["what_if"]:
                parts.append(Text(_what_if(row["what_if"])))
            if warning := seen.warning:
                parts.append(Text(f"Doubtful: {warning}", style="bold"))
        parts.append(
            "roof: the least time at this machine's limits, over the time taken; model: ms by the "
            "fitted model"
        )
        if self.html:
            parts.append(f"Page: {self.html}")
        return Group(*parts)

    def _machine(self) -> Text:
        machine, rates = self.machine, self.machine.ceilings
        threads = rates.threads
        flops = ", ".join(
            f"{name} {by_threads[threads] / 1e9:,.0f}" for name, by_threads in rates.flops.items()
        )
        return Text(
            f"Machine {machine.fingerprint}: {machine.facts.cpu}, {threads} threads, copies "
            f"{rates.copy[threads] / 1e9:.0f} GB/s, multiplies {flops} GFLOP/s"
        )

    def _input(self) -> Text:
        subject, setting = self.subject, self.setting()
        tables = subject.schema.tables
        rows = f"{sum(table.num_embeddings for table in tables):,} rows in {len(tables)} tables"
        size = sum(table["bytes"] for table in self._tables())
        return Text(
            f"Model {setting['model']} on {subject.name}: {rows} ({human_bytes(size)}), "
            f"{len(subject.schema.dense)} dense features; {setting['precision']}, tables "
            f"{setting['storage']}, {setting['ids']} ids, {setting['pooling']:g} a table"
            + (f"; {setting['optim']}" if self.train else "")
        )

    def _tables(self) -> list[dict[str, Any]]:
        """Return the size of each table, and of its rows."""
        model = self.subject.config.model
        row_bytes = int(getattr(model, "dim", 1) * NUMBER_BYTES[tables_of(model).storage])
        return [
            {
                "name": table.name,
                "bytes": table.num_embeddings * row_bytes,
                "row_bytes": row_bytes,
            }
            for table in self.subject.schema.tables
        ]

    def _published(self, row: dict[str, Any]) -> dict[str, Any]:
        arch = ARCHS.get(self.subject.name)
        if arch is None or not arch.samples or not self.train or self.rows_scale != 1:
            return {}
        samples = arch.samples
        return {
            "published_samples": samples,
            "published_ours_s": samples / row["samples_per_s"],
            **{f"published_{name}_s": s for name, s in arch.published_s.items()},
        }


def _grid(row: dict[str, Any]) -> Table:
    low, high = row["step_low"], row["step_high"]
    title = f"Batch {row['batch_size']:,}: {row['step_ms']:.3g} ms ({low:.3g} to {high:.3g}), "
    title += f"{row['samples_per_s']:,.0f} samples/s; predicted {row['predicted_ms']:.3g} ms"
    heads = ("ms", "share", "GFLOP/s", "GB/s", "roof", "bound by", "model")
    grid = terminal.table(title, "operator", *heads)
    for operator in row["operators"]:
        share = operator["roofline_share"]
        grid.add_row(
            operator["name"],
            f"{operator['ms']:.3g}",
            f"{operator['share']:.0%}",
            _rate(operator["gflops_per_s"]),
            _rate(operator["gb_per_s"]),
            f"{share:.0%}" if share else "-",
            "" if operator["name"] == OTHER else operator["bound"].removeprefix("memory "),
            f"{operator['predicted_ms']:.3g}",
        )
    return grid


def _rate(value: float | None) -> str:
    return "-" if not value else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _beside(row: dict[str, Any], samples: int) -> str:
    text = f"{samples:,} samples would take {row['published_ours_s']:.0f} s here; published: "
    names = [key for key in row if key.startswith("published_") and key.endswith("_s")]
    return text + ", ".join(
        f"{row[key]:g} s on a {key.removeprefix('published_').removesuffix('_s')}"
        for key in names
        if key != "published_ours_s"
    )


def _what_if(change: dict[str, Any]) -> str:
    words = ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:.3g}x'}"
        for name, value in change["change"].items()
    )
    return (
        f"With {words}: {change['step_ms']:.3g} ms, {change['gain']:.2f} times as fast, predicted "
        f"{changes.off(change['model_error'], change['error_here'])}"
    )
