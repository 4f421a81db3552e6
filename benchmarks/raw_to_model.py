"""From raw text to a trained model, by the command lines that users type: ours and the original's.

    ours       dlrm data prepare, dlrm train                    two processes
    original   its training program, which preprocesses first   one process

Both leave a model behind and the accuracy on half of the last of seven days. Each run begins with
raw text alone. What was in the caches of the operating system stays there, for both alike.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import polars as pl

from dlrm.bench.arch import ARCHS
from dlrm.bench.timer import peak_bytes
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.sources.criteo import write_lines
from dlrm.data.split import DAYS
from dlrm.errors import DlrmError
from dlrm.optim.config import OptimConfig
from dlrm.run import Run

ARCH = "criteo-kaggle"
PARTS = 10
"""Of the epoch, after each of which the original says its loss."""
POLL_S = 0.05
"""Between looks at the memory of a process."""
LARGEST = 2**31 - 1
"""Of the original's categories: it keeps them as int32."""

WAYS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "parallel": ("--dataset-multiprocessing",),
    "parallel, workers": ("--dataset-multiprocessing", "--num-workers=2"),
    "parallel, memory map": ("--dataset-multiprocessing", "--memory-map"),
}
"""Ways in which the original can go about it -> its flags."""


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A run from raw text to a trained model."""

    lines: int
    total_s: float
    """By the clock on the wall, starting of processes included."""
    stages: dict[str, float]
    """Seconds of its parts; what is missing to the total is the start of processes."""
    peak_bytes: int
    """Resident memory of its largest process at its peak."""
    table_bytes: int | None
    """Of its embedding tables; None where it does not say."""
    train_loss: float
    """Mean over the epoch, of each batch before it was learnt from."""
    test_accuracy: float

    def to_dict(self, name: str) -> dict[str, Any]:
        """Return the figures with flat keys that begin with a name."""
        return {
            f"{name}_s": self.total_s,
            **{f"{name}_{stage}": seconds for stage, seconds in self.stages.items()},
            f"{name}_peak_bytes": self.peak_bytes,
            f"{name}_table_bytes": self.table_bytes,
            f"{name}_train_loss": self.train_loss,
            f"{name}_test_accuracy": self.test_accuracy,
        }


def write_log(path: Path, lines: int) -> Path:
    """Write the generated click log as raw text that the original can read too.

    It fails at categories of 80000000 and above, so the highest bit of each is cleared.
    """
    log = ClicksSource(lines)
    with path.open("wb") as stream:
        for frame in log.read():
            fits = frame.with_columns(pl.col(log.categorical) & LARGEST)
            write_lines(fits, stream, label=log.label, dense=log.dense, categorical=log.categorical)
    return path


def ours(
    raw: Path, lines: int, folder: Path, batch_size: int, flags: Sequence[str] = ()
) -> EndToEnd:
    """Prepare and train into an empty folder.

    Args:
        raw: Raw text.
        lines: Of it.
        folder: For all that is made.
        batch_size: B.
        flags: More flags of `dlrm train`.

    Raises:
        DlrmError: A command failed; says what it said.

    """
    run, dataset = folder / "run", folder / "dataset"
    began = time.perf_counter()
    words = ("criteo", raw, "--out", dataset, "--split", "kaggle")
    _, peak = _call("-m", "dlrm", "data", "prepare", *words, folder=folder)
    prepared_s = time.perf_counter() - began
    words = ("--data", dataset, "--run", run, "--loader.batch-size", batch_size, *flags)
    said, peak_training = _call("-m", "dlrm", "train", ARCH, *words, "--json", folder=folder)
    total_s = time.perf_counter() - began
    result = json.loads(said.splitlines()[-1])
    loss = steps = 0
    trained = Run.open(run)
    for row in trained.metrics():
        if row["event"] == "train":
            loss, steps = loss + row["loss"] * (row["step"] - steps), row["step"]
    return EndToEnd(
        lines=lines,
        total_s=total_s,
        stages={
            "prepare_s": prepared_s,
            "train_s": result["elapsed_s"],
            "other_s": total_s - prepared_s - result["elapsed_s"],
        },
        peak_bytes=max(peak, peak_training),
        table_bytes=4
        * ARCHS[ARCH].model.dim
        * sum(table.num_embeddings for table in trained.schema.tables),
        train_loss=loss / steps,
        test_accuracy=result["accuracy"],
    )


def original(
    clone: Path, raw: Path, lines: int, folder: Path, batch_size: int, flags: Sequence[str] = ()
) -> EndToEnd:
    """Let the original preprocess, train and test into an empty folder.

    Args:
        clone: Of facebookresearch/dlrm.
        raw: Raw text.
        lines: Of it.
        folder: For all that is made.
        batch_size: B.
        flags: One of `WAYS`.

    Raises:
        DlrmError: It failed; says what it said.

    """
    arch = ARCHS[ARCH]
    # It writes beside what it reads.
    copy = folder / "train.txt"
    os.link(raw, copy)
    steps = ceil((lines - lines // DAYS) / batch_size)
    words = [
        f"--arch-sparse-feature-size={arch.model.dim}",
        "--arch-mlp-bot=" + "-".join(map(str, arch.bottom)),
        "--arch-mlp-top=" + "-".join(map(str, (*arch.model.top, 1))),
        "--data-generation=dataset",
        "--data-set=kaggle",
        f"--raw-data-file={copy}",
        f"--processed-data-file={folder / 'kaggleAdDisplayChallenge_processed.npz'}",
        "--loss-function=bce",
        "--round-targets=True",
        f"--learning-rate={OptimConfig().lr}",
        f"--mini-batch-size={batch_size}",
        "--test-mini-batch-size=16384",
        "--test-num-workers=0",
        f"--print-freq={max(1, steps // PARTS)}",
        # So that it tests once, at the end, and keeps its model.
        f"--test-freq={10 * steps}",
        f"--save-model={folder / 'model.pt'}",
        *flags,
    ]
    began = time.perf_counter()
    program = Path(__file__).with_name("original_program.py")
    said, peak = _call(program, clone.resolve(), *words, folder=folder)
    total_s = time.perf_counter() - began
    loss = done = 0
    for step, value in re.findall(r"Finished training it (\d+)/.* loss ([\d.]+)", said):
        loss, done = loss + float(value) * (int(step) - done), int(step)
    accuracy = re.findall(r"accuracy ([\d.]+) %", said)
    if not (done and accuracy):
        raise DlrmError(f"the original said nothing of its loss or accuracy: {said[-500:]}")
    return EndToEnd(
        lines=lines,
        total_s=total_s,
        stages=json.loads(said.splitlines()[-1]),
        peak_bytes=peak,
        table_bytes=None,
        train_loss=loss / done,
        test_accuracy=float(accuracy[-1]) / 100,
    )


def extrapolated_s(small: EndToEnd, large: EndToEnd, lines: int) -> float:
    """Return the seconds of a longer log, along the line through two runs.

    Starting costs the same for any log, so that the line does not begin at zero.
    """
    slope = (large.total_s - small.total_s) / (large.lines - small.lines)
    return large.total_s + slope * (lines - large.lines)


def _call(*words: object, folder: Path) -> tuple[str, int]:
    """Run Python with these words in a folder.

    It speaks into a file: the original says something of every line, and nobody has to listen.

    Returns:
        What it said on standard output, and its peak memory in bytes.

    """
    out, err = folder / "out.txt", folder / "err.txt"
    with out.open("wb") as said, err.open("wb") as complained:
        command = [sys.executable, "-P", *map(str, words)]
        process = subprocess.Popen(command, stdout=said, stderr=complained, cwd=folder)
        peak = 0
        while process.poll() is None:
            # What the system counts at the end would include what we had in memory ourselves.
            peak = max(peak, peak_bytes(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
    if process.returncode:
        why = err.read_text()[-2000:].strip()
        raise DlrmError(f"{' '.join(map(str, words[:4]))} failed: {why}")
    return out.read_text(), peak
