"""How fast are raw rows scored in memory? One row, as a service gets it, and ten thousand.

    python benchmarks/predictor.py

The model is that of criteo-kaggle with 100,000 values in each of 26 vocabularies, trained for a few
steps on counts and clicks of the generated log; values are drawn evenly, which is the worst case
for caches. All of `Predictor.scores` is timed: raw columns in a Polars frame to probabilities, in
the precision that the run takes by default. Goals on two cores: a row in at most 300 us, and
300,000 rows a second.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl

from dlrm.bench.results import append
from dlrm.bench.timer import Timing, in_turn, interleave
from dlrm.bench.watch import Watch
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.nn import precision
from dlrm.recipes import find
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer

VALUES, ROWS, ROUNDS, CALLS = 100_000, 10_000, 25, 200
"""Values of each vocabulary; rows of a large frame; rounds, in which a frame and so many single
rows are scored."""
BATCHES = 8
"""Large frames that take turns."""


class ManyValues(ClicksSource):
    """The generated log with as many values in each category as it has rows.

    Args:
        rows: Rows, and values of each category.
        seed: Of their order.

    """

    def __init__(self, rows: int, seed: int = 0):
        super().__init__(rows, seed)
        rng = np.random.default_rng(seed)
        self.values = {
            name: rng.permutation(np.uint32(2**32 // rows) * np.arange(rows, dtype=np.uint32))
            for name in self.categorical
        }

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order."""
        start = 0
        for frame in super().read():
            rows = slice(start, start + frame.height)
            yield frame.with_columns(
                pl.Series(name, values[rows]) for name, values in self.values.items()
            )
            start += frame.height

    def drawn(self, rows: int, seed: int) -> pl.DataFrame:
        """Return new rows whose values are drawn evenly, without labels."""
        rng = np.random.default_rng(seed)
        counts = pl.concat(list(ClicksSource(rows, seed + 1).read())).select(self.dense)
        return counts.with_columns(
            pl.Series(name, rng.choice(values, rows)) for name, values in self.values.items()
        )


def trained(folder: Path, source: ManyValues) -> Predictor:
    """Return the predictor of a run that was trained for a few steps."""
    config = find("criteo-kaggle")()
    config = replace(
        config,
        prepare=replace(config.prepare, split="chronological"),
        max_steps=20,
    )
    dataset = prepare(source, folder / "data", config.prepare, quiet=True).dataset
    trainer = Trainer.create(folder / "run", "criteo-kaggle", config, dataset)
    trainer.fit()
    return Predictor.open(trainer.run)


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--json", action="store_true", help="print the row as JSON, and only that")
    flags.add_argument("--quick", action="store_true", help="few rows: does it work at all?")
    given = flags.parse_args(list(words))
    values, rows, rounds, calls = (500, 200, 2, 5) if given.quick else (VALUES, ROWS, ROUNDS, CALLS)
    with tempfile.TemporaryDirectory() as folder:
        source = ManyValues(values)
        predictor = trained(Path(folder), source)
    frames = [source.drawn(rows, seed) for seed in range(BATCHES)]
    singles = [frame[row] for frame in frames for row in range(min(rows, calls))]
    seconds: list[float] = []

    def one(row: pl.DataFrame) -> None:
        started = perf_counter()
        predictor.scores(row)
        seconds.append(perf_counter() - started)

    with Watch() as watch:
        timings = interleave(
            {
                "many": in_turn(predictor.scores, frames, 1),
                "encode": in_turn(predictor.encode, frames, 1),
                "one": in_turn(one, singles, calls),
            },
            rounds=rounds,
            warmup=2,
        )
    many, encode = timings["many"], timings["encode"]
    single = Timing("one", seconds[2 * calls :])
    speeds = Timing("rows", [rows / each for each in many.seconds])
    (p99, *p99_interval), (low, high) = single.percentile(99), single.interval
    row = {
        "rows": rows,
        "vocabulary": values,
        "precision": precision.resolve("auto"),
        "rounds": rounds,
        "one_row_ms": single.median * 1e3,
        "one_row_interval": [low * 1e3, high * 1e3],
        "one_row_p99_ms": p99 * 1e3,
        "one_row_p99_interval": [end * 1e3 for end in p99_interval],
        "many_rows_ms": many.median * 1e3,
        "many_rows_interval": [end * 1e3 for end in many.interval],
        "encode_ms": encode.median * 1e3,
        "encode_interval": [end * 1e3 for end in encode.interval],
        "rows_per_s": speeds.median,
        "rows_per_s_low": speeds.interval[0],
        "rows_per_s_high": speeds.interval[1],
    }
    path = append("predictor", row, given.out)
    if given.json:
        print(json.dumps(row))
        return
    if warning := watch.seen.warning:
        print(f"Doubtful: {warning}")
    print(f"1 row: {single.median * 1e6:.0f} us ({low * 1e6:.0f} to {high * 1e6:.0f}), ", end="")
    print(f"99% within {p99 * 1e6:.0f} us; the goal is 300 us")
    print(f"{rows:,} rows: {many.median * 1e3:.1f} ms, {speeds.median:,.0f} rows/s ", end="")
    print(f"({speeds.interval[0]:,.0f} to {speeds.interval[1]:,.0f}); the goal is 300,000")
    print(f"of which {encode.median * 1e3:.1f} ms make arrays of raw columns")
    print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
