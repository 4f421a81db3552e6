"""The training step with its batches read from a prepared dataset, beside the original's."""

import contextlib
import io
import tempfile
import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.bench.arch import Arch
from dlrm.bench.batches import CLICK_RATE, Ids, draw_ids, draw_lists
from dlrm.bench.local_step import LocalStep
from dlrm.bench.original import Original
from dlrm.bench.timer import Timing, figures, interleave, ratio, verdict
from dlrm.data.encoded import Lists
from dlrm.data.loader import Loader
from dlrm.data.store import LIST_IDS, LIST_OFFSETS, Split

ROWS = 131_072
"""More than one window of the loader."""
MOST_ROUNDS = 5
"""The original takes some ten seconds each."""
LEAST_STEPS = 4
EPOCH_ROWS = 1_048_576
"""Rows of an epoch of our loader alone: its beginning is a small part, as in training."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Training over a dataset; timings are of a step, reading included."""

    ours: Timing
    original: Timing | None
    waiting: "Waiting"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with flat keys."""
        values: dict[str, Any] = {**figures(self.ours), **self.waiting.to_dict()}
        if self.original is not None:
            middle, low, high = ratio(self.original, self.ours)
            values |= figures(self.original)
            values |= {
                "loading_speedup": middle,
                "loading_speedup_interval": [low, high],
                "loading_verdict": verdict(self.ours, self.original),
            }
        return values


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long training waits for data, over one epoch from files that were just written."""

    rows: int
    epoch_s: float
    waited_s: float
    first_s: float
    """Seconds of waiting for the first batch, before which nothing can be read ahead."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with flat keys."""
        return {
            "loading_epoch_rows": self.rows,
            "loading_epoch_s": self.epoch_s,
            "loading_waited_share": self.waited_s / self.epoch_s,
            "loading_first_batch_ms": self.first_s * 1e3,
        }


def measure_waiting(arch: Arch, batch_size: int, ids: Ids, local_step: LocalStep) -> Waiting:
    """Train an epoch over a prepared dataset and add up the waiting for its loader."""
    rows = max(EPOCH_ROWS if arch.rows_total > EPOCH_ROWS else 4096, LEAST_STEPS * batch_size)
    with tempfile.TemporaryDirectory() as name:
        split = write_split(Path(name), arch, rows, ids)
        loader = Loader(split, batch_size=batch_size, shuffle=True)
        first: float | None = None
        began = time.perf_counter()
        for batch in loader.epoch():
            first = loader.waited_s if first is None else first
            local_step.step(batch)
        epoch_s = time.perf_counter() - began
    return Waiting(rows, epoch_s, loader.waited_s, first or 0.0)


def measure_loading(
    arch: Arch,
    batch_size: int,
    ids: Ids,
    rounds: int,
    ours: LocalStep,
    original: Original | None,
) -> Loading:
    """Train over the same rows, each project reading them from its own files by its own loader.

    A round is an epoch, its first batch and the reader's start included. The original reads all
    rows into memory before it begins, which is not timed.
    """
    rows = max(ROWS if arch.rows_total > ROWS else 4096, LEAST_STEPS * batch_size)
    steps = rows // batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = write_split(folder, arch, rows, ids)
        loader = Loader(split, batch_size=batch_size, shuffle=True)

        def train_ours() -> None:
            epoch = loader.epoch()
            for batch in islice(epoch, steps):
                ours.step(batch)
            epoch.close()

        candidates = {"ours_loading": train_ours}
        if original is not None:
            its = its_loader(original.module, folder, split, arch, batch_size)

            def train_original() -> None:
                # Its collation makes torch warn of what it costs.
                with warnings.catch_warnings(action="ignore"):
                    for batch in islice(its, steps):
                        original.step(batch)

            candidates["original_loading"] = train_original
        timed = interleave(candidates, rounds=min(rounds, MOST_ROUNDS))
    mine = timed["ours_loading"]
    return Loading(
        ours=mine.per(steps),
        original=timed["original_loading"].per(steps) if original is not None else None,
        waiting=measure_waiting(arch, batch_size, ids, ours),
    )


def write_split(folder: Path, arch: Arch, rows: int, ids: Ids) -> Split:
    """Write samples of equal shapes as the arrays of a dataset, and map them into memory.

    Args:
        folder: For the files.
        arch: Of whose tables ids are drawn: lists of `pooling` ids where that is above 1.
        rows: Samples.
        ids: How ids are distributed.

    """
    rng = np.random.default_rng(1)
    counts = rng.pareto(0.7, (rows, arch.num_dense)).clip(0, 60_000).astype(np.int32)
    schema = arch.schema
    sizes = arch.num_embeddings
    arrays: dict[str, NDArray[Any]] = {
        "dense": np.log1p(counts.astype(np.float32)),
        "ids": draw_ids(sizes if schema.one_hot_features else (), rows, ids, rng),
    }
    if schema.list_features:
        drawn = draw_lists(sizes, rows, ids, rng, arch.pooling, varied=arch.varied)
        arrays |= {LIST_IDS: drawn.ids, LIST_OFFSETS: drawn.offsets}
    arrays["labels"] = (rng.random((rows, 1)) < CLICK_RATE).astype(np.uint8)
    mapped = {}
    for name, array in arrays.items():
        array.tofile(folder / f"{name}.bin")
        # An empty file cannot be mapped.
        mapped[name] = array
        if array.size:
            mapped[name] = np.memmap(folder / f"{name}.bin", array.dtype, "r", shape=array.shape)
    lists = Lists(mapped[LIST_IDS], mapped[LIST_OFFSETS]) if schema.list_features else None
    return Split("train", mapped["dense"], mapped["ids"], mapped["labels"], lists)


def its_loader(
    module: ModuleType, folder: Path, split: Split, arch: Arch, batch_size: int
) -> torch.utils.data.DataLoader[Any]:
    """Return the original's loader over the same rows, as it preprocesses Criteo Kaggle.

    Its training set is six days of seven; the last day here has two rows, which must be.
    """
    rows = len(split)
    days = np.full(7, rows // 6)
    days[:6] += np.arange(6) < rows % 6
    days[6] = 2
    over = np.arange(rows + 2) % rows
    np.savez(
        folder / "processed.npz",
        X_int=np.expm1(split.dense[over]).round().astype(np.int32),
        X_cat=split.ids[over],
        y=split.labels[over, 0].astype(np.int32),
        counts=np.array(arch.num_embeddings),
    )
    np.savez(folder / "train_day_count.npz", total_per_file=days)
    # It says on standard output what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        data = module.dp.CriteoDataset(
            dataset="kaggle",
            max_ind_range=-1,
            sub_sample_rate=0.0,
            randomize="total",
            split="train",
            raw_path=str(folder / "train.txt"),
            pro_data=str(folder / "processed.npz"),
            memory_map=False,
            dataset_multiprocessing=False,
        )
    return torch.utils.data.DataLoader(
        data,
        batch_size=batch_size,
        collate_fn=module.dp.collate_wrapper_criteo_offset,
    )
