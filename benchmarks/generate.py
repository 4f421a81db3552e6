"""How fast is the generated click log written as raw text?

    python benchmarks/generate.py

Beside it, what it is made of: the rows alone, and a plain copy of the file with a sync, which is
as fast as this disk writes. Each round writes other rows. The goal is 200,000 rows/s.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from rich.console import Console

from dlrm.bench.results import append
from dlrm.bench.timer import interleave
from dlrm.commands.generate import generate
from dlrm.data.sources.clicks import ClicksSource
from dlrm.terminal import human_bytes, table

ROWS, ROUNDS = 500_000, 5


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--rows", type=int, default=ROWS)
    flags.add_argument("--rounds", type=int, default=ROUNDS)
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.rows, given.rounds = 2_000, 2
    with tempfile.TemporaryDirectory() as name:
        seeds, folder = count(1), Path(name)
        plain, packed, copy = folder / "log.txt", folder / "log.txt.gz", folder / "copy.txt"

        def write(out: Path) -> None:
            generate("clicks", out=out, rows=given.rows, seed=next(seeds), force=True)

        def rows() -> None:
            for _ in ClicksSource(given.rows, seed=next(seeds)).read():
                pass

        def copied() -> None:
            shutil.copyfile(plain, copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())

        timings = interleave(
            {
                "raw text": lambda: write(plain),
                "raw text, .gz": lambda: write(packed),
                "rows alone": rows,
                "copy of the text": copied,
            },
            rounds=given.rounds,
        )
        sizes = {"raw text": plain.stat().st_size, "raw text, .gz": packed.stat().st_size}
    shown = table("Generating clicks", "what", "rows/s", "95% interval", "size")
    path = given.out
    for what, timing in timings.items():
        low, high = timing.interval
        result = {
            "what": what,
            "rows": given.rows,
            "rows_per_s": given.rows / timing.median,
            "duration_s": timing.median,
            "duration_low_s": low,
            "duration_high_s": high,
            "rounds": given.rounds,
            "size_bytes": sizes.get(what),
        }
        path = append("generate", result, path)
        shown.add_row(
            what,
            f"{given.rows / timing.median:,.0f}",
            f"{given.rows / high:,.0f} to {given.rows / low:,.0f}",
            human_bytes(sizes[what]) if what in sizes else "",
        )
    Console().print(shown)
    Console().print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
