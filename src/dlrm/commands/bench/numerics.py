"""`dlrm bench numerics`: what fewer bits cost in accuracy, and what they bring."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import recipes, terminal
from dlrm.bench import results
from dlrm.bench.numerics import verdict
from dlrm.bench.numerics.study import Study
from dlrm.bench.numerics.variants import Variant, chosen
from dlrm.bench.numerics.verdict import NEUTRAL, conclusion
from dlrm.bench.watch import Watch
from dlrm.commands.flags import parse_with_config
from dlrm.commands.run_config import with_model
from dlrm.data.options import PrepareConfig
from dlrm.data.resolve import CACHE, resolve
from dlrm.errors import Interrupted
from dlrm.training.config import TrainConfig

DEFAULT = "demo"
DATA = "clicks:120000"
PREPARE = PrepareConfig(split="chronological", fractions=(0.6, 0.05, 0.35))
"""Many test rows: what they leave to chance is part of every interval."""
SEEDS = 5


def main(words: list[str], prog: str) -> "NumericsResult":
    """Parse `[RECIPE | DATA] [--FLAG VALUE ...]` and measure."""
    recipe, flags = recipes.first_word(words)
    name = recipe or DEFAULT
    config = with_model(default(name), flags)
    config, given = parse_with_config(bench_numerics, config, flags, prog)
    return bench_numerics(name, config, **given)


def default(recipe: str) -> TrainConfig:
    """Return the config of a recipe as it is measured where nothing else is said."""
    config = recipes.find(recipe)()
    if recipe != DEFAULT:
        return config
    # Fewer rows take smaller batches and a shorter warm-up, or training ends before it has begun.
    return replace(
        config,
        data=DATA,
        prepare=PREPARE,
        loader=replace(config.loader, batch_size=256),
        optim=replace(config.optim, warmup_steps=100),
    )


def bench_numerics(
    recipe: str = DEFAULT,
    config: TrainConfig | None = None,
    *,
    seeds: int = SEEDS,
    variants: str = "",
    out: Path | None = None,
    html: Path | None = None,
) -> "NumericsResult":
    """Train a recipe with fewer bits in several ways and seeds, and measure what each costs.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here; without
    one it is demo on some 120,000 generated clicks. Nothing that is trained is kept.

    fp32 is what all are compared with, seed by seed. Others are trained (mlp-bf16, bf16-nearest,
    bf16-stochastic, split-bf16), made of the trained tables of fp32 (fp16, bf16, int8, int4, int2),
    or trained for codes (aware-int8, aware-int4, aware-int2).

    A change of the AUC comes with a 95% interval over seeds and test rows. `neutral` is what lies
    within +-.0002 as a whole; what cannot be told from 0 otherwise is `no verdict`. Speed is
    measured beside fp32, round by round: let nothing else run.

    Args:
        recipe: Its name.
        config: Config of the recipe, changed or not; None for its `default`.
        seeds: Seeds of initial parameters and the order of the rows; at least 2.
        variants: Which, separated by commas; all by default.
        out: Rows of results are appended to this file, as JSON lines.
        html: They are drawn as one page into this file.

    Raises:
        ConfigError: There is no such variant, or there are too few seeds.
        DatasetError: There are no rows to test on.
        DlrmError: The reference cannot be trained; see `dlrm.errors`.

    """
    config = config or default(recipe)
    ways = chosen(variants)
    with tempfile.TemporaryDirectory(prefix="dlrm-numerics-") as temporary:
        folder = Path(temporary)
        generated = config.data.split(":", 1)[0] == "clicks" and not Path(config.data).exists()
        with terminal.muted(generated):
            # What can be generated again is not kept.
            cache = folder / "prepared" if generated else CACHE
            dataset = resolve(config.data, config.prepare, cache=cache)
        study = Study(recipe, config, dataset, ways, seeds)
        stopped, watch = _run(study, folder)
        data = config.data if generated else Path(config.data).name
        judged = verdict.rows(study, data)
    seen = watch.seen
    measured = [results.row("numerics", {**row, **seen.to_dict()}) for row in judged]
    if out is not None and measured:
        results.save(measured, out)
    if html is not None and measured:
        from dlrm.reporting import bench

        bench.write(html, measured)
    return NumericsResult(
        rows=measured, stopped=stopped, warning=seen.warning, page=html if measured else None
    )


def _run(study: Study, folder: Path) -> tuple[bool, Watch]:
    """Run a study behind a progress bar; also return whether the user stopped it."""
    bar = terminal.progress()
    task = bar.add_task("training", total=study.units)
    done = 0

    def tick(variant: Variant, seed: int) -> None:
        nonlocal done
        text = f"{variant.name}, seed {seed + 1} of {study.seeds}"
        bar.update(task, completed=done, description=text)
        done += 1

    with Watch() as watch, bar:
        try:
            study.run(folder, tick)
        except (Interrupted, KeyboardInterrupt):
            if not study.reference.scores:
                raise KeyboardInterrupt from None
            return True, watch
        bar.update(task, completed=study.units)
    return False, watch


METRICS = {"normalized_entropy": "NE", "log_loss": "log loss", "calibration": "calibr."}
"""Shown beside the AUC, the first in any case."""
WIDE = 100
"""Columns of a terminal that has room for all of them."""
STYLES = {"neutral": "green", "better": "green", "worse": "red", "no verdict": "yellow"}
"""How verdicts are coloured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsResult:
    """What fewer bits cost and bring."""

    rows: list[dict[str, Any]]
    """One a variant, of the suite `numerics`, the reference first."""
    stopped: bool
    """Whether the user stopped it."""
    warning: str | None
    """Why speeds are doubtful."""
    page: Path | None = None

    @property
    def status(self) -> int:
        """Exit status, as of any command that the user stopped."""
        return 130 if self.stopped else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        first = self.rows[0]
        return {
            "recipe": first["recipe"],
            "data": first["data"],
            "seeds": len(first["seeds"]),
            "test_rows": first["test_rows"],
            "noise_auc": first["noise_auc"],
            "neutral": NEUTRAL,
            "verdict": conclusion(self.rows),
            "stopped": self.stopped,
            "warning": self.warning,
            "report": str(self.page) if self.page else None,
            "rows": self.rows,
        }

    def __rich__(self) -> RenderableType:
        first = self.rows[0]
        parts: list[RenderableType] = [self._table()]
        parts.append(
            "Changes are from fp32 of the same seed, means over seeds, with 95% intervals over "
            f"seeds and test rows; neutral: the whole interval lies within ±{NEUTRAL:g}. "
            "Bytes: of table rows that a sample reads. Score and train: speed, times fp32's, of "
            "scoring and of a training step. Bold: no other has a higher AUC at as few bytes."
        )
        parts.append(Text(conclusion(self.rows), style="bold"))
        parts += [
            Text(f"Failed: {row['variant']}: {row['error']}", style="bold")
            for row in self.rows
            if row["error"] is not None
        ]
        if self.stopped:
            text = f"Stopped: fp32 was measured with {_seeds(first)}."
            parts.append(Text(text, style="bold"))
        if self.warning:
            parts.append(Text(f"Speeds are doubtful: {self.warning}.", style="bold"))
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)

    def _table(self) -> Table:
        first = self.rows[0]
        names = METRICS if terminal.out.width >= WIDE else dict(islice(METRICS.items(), 1))
        noise = first["noise_auc"]
        text = "" if noise is None else f", whose luck moves the AUC by ±{_short(noise)}"
        grid = terminal.table(
            f"{first['recipe']} on {first['data']}, {first['test_rows']:,} test rows, "
            f"{_seeds(first)}{text}",
            "", "AUC", "95%", *names.values(), "bytes", "score", "train",
        )  # fmt: skip
        grid.add_column("verdict", no_wrap=True)
        # Lines between so many columns leave no room for the figures.
        grid.box, grid.pad_edge, grid.collapse_padding = box.SIMPLE_HEAD, False, True
        for row in self.rows:
            if not row["seeds"]:
                blank = [""] * (len(names) + 5)
                grid.add_row(row["variant"], *blank, Text("failed", style="bold red"))
                continue
            word = "failed" if row["error"] else row["verdict"] or ""
            grid.add_row(
                row["variant"],
                *_accuracy(row, names),
                f"{row['bytes_per_sample']:,.0f}",
                _times(row["speedup"]),
                _times(row["training_speedup"]),
                Text(word, style=STYLES.get(word, "bold red" if row["error"] else "")),
                style="bold" if row["pareto"] else "",
            )
        return grid


def _accuracy(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the changes; of the reference what the changes are from."""
    if row["kind"] == "reference":
        means = [fmean(row[metric]) for metric in names]
        return [_short(row["auc_mean"]), "", *(f"{mean:.4f}".lstrip("0") for mean in means)]
    low, high = row["auc_change_low"], row["auc_change_high"]
    return [
        _signed(row["auc_change"]),
        "" if low is None else f"±{_short((high - low) / 2)}",
        *(_signed(row[f"{metric}_change"]) for metric in names),
    ]


def _seeds(row: Mapping[str, Any]) -> str:
    count = len(row["seeds"])
    return f"{count} seed{'s' if count != 1 else ''}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("0.", ".", 1).replace("-.00000", "+.00000")


def _short(value: float) -> str:
    return f"{value:.5f}".removeprefix("0")


def _times(speedup: float | None) -> str:
    return "" if speedup is None else f"{speedup:.2f}"
