"""Is this version slower than one before? Step, preparation and predictions of both, interleaved.

    python benchmarks/before_after.py CHECKOUT

CHECKOUT (or DLRM_BEFORE) is a work tree of the version before. Each version is a process of its
own with its own code, and both do the same in turn: training steps of the Criteo Kaggle model, on
equal batches and from equal parameters; `dlrm data prepare` of generated raw Criteo lines; `dlrm
predict` on those lines. Where the 95% interval of the ratio holds 1 there is no verdict. Ends with
status 1 if something is slower.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import MOST_BATCHES, batches_of
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.timer import Timing, figures, interleave, ratio, round_steps, verdict
from dlrm.bench.watch import Watch
from dlrm.errors import DlrmError
from dlrm.nn import precision
from dlrm.planning.quantities import counts
from raw_to_model import write_log

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).parent / "versions" / "worker.py"
ARCH = "criteo-kaggle"
COMPARED = 5
"""First steps whose losses are compared: both versions must do the same work."""
TRAINED_STEPS = 20
"""Of the run that predicts: what it has learned does not matter to its speed."""
WHAT = ("step", "prepare", "predict")


class Version:
    """A process with the code of one version.

    Args:
        name: before or after.
        checkout: Its work tree.
        folder: For what it writes.

    """

    def __init__(self, name: str, checkout: Path, folder: Path):
        self.name, self.code, self.folder = name, checkout / "src", folder / name
        self.folder.mkdir()
        self._complaints = folder / f"{name}.txt"
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                env={**os.environ, "PYTHONPATH": str(self.code)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=self.folder,
                text=True,
            )

    def __enter__(self) -> "Version":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.wait(60)

    def verify(self) -> None:
        """Return if the process has the code of its version.

        Raises:
            DlrmError: It has not.

        """
        if not Path(self.do("where")["path"]).resolve().is_relative_to(self.code):
            raise DlrmError(f"{self.code} has no package dlrm; expected a work tree of this one")

    def do(self, what: str, **task: Any) -> dict[str, Any]:
        """Let the process do something, wait for it, and return its answer.

        Raises:
            DlrmError: It has ended; says why.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **task}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise DlrmError(f"{self.name}: {what} failed: {self._complaint()}")
        return json.loads(line)

    def command(self, *words: object) -> None:
        """Run a command line of `dlrm`.

        Raises:
            DlrmError: It failed; says why.

        """
        if self.do("command", words=[str(word) for word in words])["status"]:
            raise DlrmError(f"{self.name}: dlrm {words[0]} failed: {self._complaint()}")

    def _complaint(self) -> str:
        return self._complaints.read_text()[-2000:].strip()


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    there = os.environ.get("DLRM_BEFORE")
    flags.add_argument("checkout", nargs="?", type=Path, default=there, help="the version before")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--only", default=",".join(WHAT), help="some of them, between commas")
    flags.add_argument("--batch", default="128,2048,16384")
    flags.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    flags.add_argument("--optim", default="sgd")
    flags.add_argument("--rows-scale", type=float, default=0.1)
    flags.add_argument("--lines", type=int, default=200_000, help="raw lines")
    flags.add_argument("--rounds", type=int, default=15)
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if given.checkout is None:
        print("Without a version before: name a work tree of it, or let DLRM_BEFORE")
        return 0
    if given.quick:
        given.batch, given.rounds, given.rows_scale, given.lines = "8", 2, 0.0005, 400
    given.precision = precision.resolve(given.precision)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack, Watch() as watch:
        folder = Path(name)
        checkouts = {"before": Path(given.checkout).resolve(), "after": ROOT}
        versions = []
        for called, checkout in checkouts.items():
            versions.append(stack.enter_context(Version(called, checkout, folder)))
            versions[-1].verify()
        asked = given.only.split(",")
        if "step" in asked:
            rows += steps(versions, given)
        if {"prepare", "predict"} & {*asked}:
            rows += commands(versions, given, folder, asked)
    row_of = {"before": _commit(checkouts["before"]), **watch.seen.to_dict()}
    path = results.save([results.row("before-after", {**row_of, **row}) for row in rows], given.out)
    show(rows)
    if warning := watch.seen.warning:
        print(f"Doubtful: {warning}")
    print(f"Saved: {path}")
    slower = [row["what"] for row in rows if row["verdict"].startswith("after is slower")]
    if slower:
        print(f"SLOWER THAN BEFORE: {', '.join(slower)}")
    return 1 if slower and not given.quick else 0


def steps(versions: Sequence[Version], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the training step at each batch size."""
    arch = ARCHS[ARCH].scaled(given.rows_scale)
    sizes = counts("batch", given.batch)
    task = {
        "num_dense": arch.num_dense,
        "num_embeddings": arch.num_embeddings,
        "dim": arch.model.dim,
        "bottom": arch.model.bottom,
        "top": arch.model.top,
        "optim": given.optim,
        "lr": LEARNING_RATE,
        "precision": given.precision,
        "compared": COMPARED,
        "batches": [(size, batches_of(arch.schema, size, 1, MOST_BATCHES)) for size in sizes],
    }
    losses = [version.do("begin", **task)["losses"] for version in versions]
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    print(f"Losses of the first {COMPARED} steps differ by {difference:.1e} at most")
    rows = []
    for size in sizes:
        number = 2 if given.quick else round_steps(size)
        timed = timings(
            versions,
            lambda version, size=size, n=number: version.do("steps", batch_size=size, steps=n),
            given.rounds,
        )
        settings = {
            "what": f"step {size}",
            "arch": ARCH,
            "batch_size": size,
            "steps": number,
            "precision": given.precision,
            "optim": given.optim,
            "rows_scale": given.rows_scale,
            "max_abs_diff": difference,
        }
        rows.append({**settings, **compared([timing.per(number) for timing in timed])})
    return rows


def commands(
    versions: Sequence[Version], given: argparse.Namespace, folder: Path, asked: Sequence[str]
) -> list[dict[str, Any]]:
    """Time the preparation of raw lines, and predictions of them."""
    raw = write_log(folder / "raw.txt", given.lines)
    numbers = count()

    def prepare(version: Version) -> None:
        out = version.folder / f"dataset-{next(numbers)}"
        version.command("data", "prepare", "criteo", raw, "--out", out, "--split", "kaggle")

    def predict(version: Version) -> None:
        scores = version.folder / f"scores-{next(numbers)}.csv"
        version.command("predict", version.folder / "run", raw, "--out", scores)

    rows = []
    if "prepare" in asked:
        timed = timings(versions, prepare, given.rounds)
        rows.append({"what": "prepare", "lines": given.lines, **compared(timed)})
    if "predict" in asked:
        for version in versions:
            dataset = version.folder / "dataset"
            version.command("data", "prepare", "criteo", raw, "--out", dataset, "--split", "kaggle")
            version.command(
                "train", ARCH, "--data", dataset, "--run", version.folder / "run",
                "--max-steps", TRAINED_STEPS,
            )  # fmt: skip
        timed = timings(versions, predict, given.rounds)
        rows.append({"what": "predict", "lines": given.lines, **compared(timed)})
    return rows


def timings(
    versions: Sequence[Version], run: Callable[[Version], object], rounds: int
) -> list[Timing]:
    """Time what both versions do, round by round; before and after."""
    with terminal.progress() as bar:
        task = bar.add_task("timing", total=rounds)
        candidates = {v.name: lambda version=v: run(version) for v in versions}
        timed = interleave(candidates, rounds=rounds, after_round=lambda: bar.advance(task))
    return [timed[version.name] for version in versions]


def compared(timed: Sequence[Timing]) -> dict[str, Any]:
    """Return the figures of both versions, how many times as fast this one is, and the verdict."""
    before, after = timed
    middle, low, high = ratio(before, after)
    return {
        **figures(before),
        **figures(after),
        "speedup": middle,
        "speedup_interval": [low, high],
        "verdict": verdict(after, before),
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print medians, their intervals and verdicts."""
    grid = terminal.table("Before and after", "what", "before, ms", "after, ms", "verdict")
    for row in rows:
        cells = []
        for name in ("before", "after"):
            low, high = row[f"{name}_interval"]
            cells.append(f"{row[f'{name}_ms']:.3g} ({low:.3g} to {high:.3g})")
        grid.add_row(row["what"], *cells, row["verdict"])
    Console().print(grid)


def _commit(checkout: Path) -> str:
    """Return the commit of a work tree; its version where it is none."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
