"""Every figure that has a target on this kind of CPU, by one command; the table of all hardware.

    DLRM_ORIGINAL=CLONE python benchmarks/hardware.py [--only bf16,fp32]

Other benchmarks measure, each in a process of its own, and what the targets are of becomes one row
of results, named by its hardware: the training step beside the original's and the limit, bags of 16
ids, raw text to a model (the original's time for 2M lines is extrapolated from fewer), a single row
through `Predictor.scores`; and our kernels for AVX2 beside plain torch, both with newer instruction
sets masked. Without a clone of facebookresearch/dlrm what is beside the original is left out. Then
the Markdown table of the newest rows of all hardware is printed. It takes some ten minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dlrm import cores
from dlrm.bench import results
from dlrm.bench.timer import interleave, ratio, round_steps
from dlrm.errors import DlrmError, unknown
from dlrm.planning.facts import facts
from workers import Task, Workers

HERE = Path(__file__).parent
MASKS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Variables by which torch takes a CPU for one with AVX2 alone."""
KINDS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bf16"}
"""Instruction set -> kind of CPU; the first that it has. Others have AVX2."""


class Figure(NamedTuple):
    """A line of the table."""

    words: str
    unit: str
    """`x` for times, `%` for shares, `us` for microseconds, of which fewer are better."""
    targets: Mapping[str, float]
    """Kind of CPU -> what is to be reached; none where nothing is."""

    def text(self, value: float | None) -> str:
        """Return a value as the table has it."""
        if value is None:
            return "–"
        if self.unit == "%":
            return f"{value:.0%}"
        return f"{value:.0f} us" if self.unit == "us" else f"{value:.3g}"

    def reached(self, value: float, target: float) -> bool:
        """Whether a value is as good as a target."""
        return value <= target if self.unit == "us" else value >= target


def _targets(amx: float, avx512: float) -> dict[str, float]:
    return {"AMX": amx, "AVX-512 with bf16": avx512}


FIGURES = {
    "bf16_128_speedup": Figure("step bf16, 128, times the original", "x", _targets(4, 4.5)),
    "bf16_2048_speedup": Figure("step bf16, 2048, times the original", "x", _targets(6.5, 5.5)),
    "bf16_16384_speedup": Figure("step bf16, 16384, times the original", "x", _targets(5, 5.5)),
    "bf16_128_share": Figure("step bf16, 128, share of the limit", "%", _targets(0.55, 0.75)),
    "bf16_2048_share": Figure("step bf16, 2048, share of the limit", "%", _targets(0.7, 0.8)),
    "bf16_16384_share": Figure("step bf16, 16384, share of the limit", "%", _targets(0.85, 0.85)),
    "fp32_2048_speedup": Figure("step fp32, 2048, times the original", "x", {}),
    "fp32_2048_share": Figure("step fp32, 2048, share of the limit", "%", _targets(0.75, 0.8)),
    "bags_lookup_share": Figure("bags of 16, lookup, share of the limit", "%", _targets(0.6, 0.6)),
    "bags_update_share": Figure(
        "bags of 16, SGD update, share of the limit", "%", _targets(0.6, 0.6)
    ),
    "end_to_end_speedup": Figure("raw text to model, times the original", "x", _targets(10, 10)),
    "one_row_us": Figure("one row through Predictor.scores", "us", _targets(300, 300)),
    "avx2_128_speedup": Figure(
        "AVX2 alone, fp32, 128, times plain torch", "x", {**_targets(1, 1), "AVX2": 1}
    ),
    "avx2_2048_speedup": Figure(
        "AVX2 alone, fp32, 2048, times plain torch", "x", {**_targets(1, 1), "AVX2": 1}
    ),
    "avx2_16384_speedup": Figure(
        "AVX2 alone, fp32, 16384, times plain torch", "x", {**_targets(1, 1), "AVX2": 1}
    ),
}
"""Name of a figure in a row of results -> its line of the table."""
Figures = Iterator[tuple[str, float]]


def measured(*words: object) -> list[dict[str, Any]]:
    """Run a benchmark in a process of its own, and return its rows.

    Raises:
        DlrmError: It failed; its own words stand above.

    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        command = [sys.executable, *map(str, words), "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            raise DlrmError(f"{results.command(list(map(str, words)))} failed")
        return results.load(out)


def step(precision: str, sizes: str, given: argparse.Namespace) -> Figures:
    """Yield the training step's times of the original, and its shares of the limit."""
    clone = [given.original] if given.original else []
    words = ["-m", "dlrm", "bench", "original", *clone, "--precision", precision]
    if given.quick:
        words += ["--rows-scale", 0.0005, "--batch", "128", "--rounds", 1]
    else:
        words += ["--batch", sizes, "--rounds", 7]
    for row in measured(*words):
        name = f"{precision}_{row['batch_size']}"
        yield f"{name}_share", row["roofline_share"]
        if row["speedup"] is not None:
            yield f"{name}_speedup", row["speedup"]


def bags(given: argparse.Namespace) -> Figures:
    """Yield how near bags and their updates come to the limit, at the worse of two dimensions."""
    words = ["-m", "dlrm", "bench", "ops", "lookup", "update", "--pooling", 16]
    sizes = (8, 10, 1) if given.quick else (2048, "1M", 11)
    for flag, size in zip(("--batch", "--rows", "--rounds"), sizes, strict=True):
        words += [flag, size]
    rows = measured(*words)
    for name in ("lookup", "update"):
        shares = (row["roofline_share"] for row in rows if row["operator"] == name)
        yield f"bags_{name}_share", min(shares)


def end_to_end(given: argparse.Namespace) -> Figures:
    """Yield how many times as fast as the original raw text becomes a model and its report."""
    if not given.original:
        return
    words = [HERE / "end_to_end.py", "--original", given.original]
    words += ["--quick"] if given.quick else ["--original-lines", 400_000, "--trial-lines", 100_000]
    (row,) = measured(*words)
    yield "end_to_end_speedup", row["speedup"]


def one_row(given: argparse.Namespace) -> Figures:
    """Yield the microseconds of a row through `Predictor.scores`."""
    (row,) = measured(HERE / "predictor.py", *(["--quick"] if given.quick else []))
    yield "one_row_us", row["one_row_ms"] * 1e3


def avx2(given: argparse.Namespace) -> Figures:
    """Yield how many times as fast as plain torch a step is where both have AVX2 alone."""
    before = dict(os.environ)
    os.environ.update(MASKS)
    try:
        for size in (128,) if given.quick else (128, 2048, 16384):
            steps = 2 if given.quick else round_steps(size)
            tasks = {
                kernels: Task(
                    procs=1,
                    threads=cores.count(),
                    batch_size=size,
                    rows_scale=0.0005 if given.quick else 0.1,
                    kernels=kernels,
                )
                for kernels in ("avx2", "reference")
            }
            with Workers(tasks["avx2"]) as ours, Workers(tasks["reference"]) as torchs:
                runs = {"ours": partial(ours.steps, steps), "torch": partial(torchs.steps, steps)}
                took = interleave(runs, rounds=1 if given.quick else 7)
            yield f"avx2_{size}_speedup", ratio(took["torch"], took["ours"])[0]
    finally:
        os.environ.clear()
        os.environ.update(before)


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "bf16": partial(step, "bf16", "128,2048,16384"),
    "fp32": partial(step, "fp32", "2048"),
    "bags": bags,
    "end-to-end": end_to_end,
    "one-row": one_row,
    "avx2": avx2,
}
"""Part of the table -> what measures it."""


def kind_of(instructions: Sequence[str]) -> str:
    """Return the kind of a CPU with these instruction sets."""
    return next((kind for name, kind in KINDS.items() if name in instructions), "AVX2")


def kept(folder: Path) -> list[dict[str, Any]]:
    """Return for each hardware its figures, each from the newest row that has it."""
    by_machine: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*-hardware.jsonl")):
        for row in results.load(path):
            known = {name: value for name, value in row.items() if value is not None}
            by_machine.setdefault(row["machine"], {}).update(known)
    return list(by_machine.values())


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: a column for each hardware, `measured / target`, bold where reached."""
    names = [f"{row['cpu']}, {row['cores']} cores ({row['kind']})" for row in rows]
    lines = [
        "| figure, of its target | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(rows),
    ]
    for name, figure in FIGURES.items():
        cells = []
        for row in rows:
            value, target = row.get(name), figure.targets.get(row["kind"])
            text = figure.text(value)
            if value is not None and target is not None and figure.reached(value, target):
                text = f"**{text}**"
            cells.append(text if target is None else f"{text} / {figure.text(target)}")
        lines.append(f"| {figure.words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--original", type=Path, default=os.environ.get("DLRM_ORIGINAL"))
    flags.add_argument("--only", default=",".join(PARTS), help="parts, or `table` for none")
    flags.add_argument("--out", type=Path, help="the row is appended to this file, as JSON")
    flags.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    given = flags.parse_args(list(words))
    if not given.original:
        print("Without the original: give --original CLONE, or DLRM_ORIGINAL")
    figures: dict[str, Any] = {"kind": kind_of(facts().instructions)}
    for part in [name for name in given.only.split(",") if name != "table"]:
        if part not in PARTS:
            raise unknown("part", part, (*PARTS, "table"))
        figures |= PARTS[part](given)
    if len(figures) > 1:
        row = results.row("hardware", figures)
        path = results.save([row], given.out)
        print(f"Saved: {path}\n{json.dumps(figures)}")
    print(markdown(kept(given.out.parent.parent if given.out else results.RESULTS)))


if __name__ == "__main__":
    main(sys.argv[1:])
