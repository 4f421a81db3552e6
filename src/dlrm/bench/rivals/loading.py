"""The training step with its batches read from a prepared dataset, beside the original's."""

import contextlib
import io
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from dlrm.bench.arch import Arch
from dlrm.bench.batches import write_split
from dlrm.bench.local_step import LocalStep
from dlrm.bench.rivals.original import Original
from dlrm.bench.timer import beside, figures, interleave
from dlrm.data.loader import Loader
from dlrm.data.store import Split
from dlrm.planning.work import Ids

ROWS = 131_072
"""More than one window of the loader."""
EPOCH_ROWS = 1_048_576
"""Rows of an epoch of ours alone: so many that its beginning is a small part, as in training."""
FEW_ROWS = 4096
"""Rows for models whose tables have no more than `ROWS`."""
MOST_ROUNDS = 5
"""The original takes some ten seconds each."""
LEAST_STEPS = 4


def measure_loading(
    arch: Arch, batch_size: int, ids: Ids, rounds: int, ours: LocalStep, original: Original | None
) -> dict[str, Any]:
    """Train over the same rows, each project reading them from its own files by its own loader.

    A round is an epoch, its first batch and the reader's start included. The original reads all
    rows into memory before it begins, which is not timed. How long training waits for data is seen
    over one epoch of ours.

    Returns:
        The figures of a step, reading included, with flat keys.

    """
    rows = max(ROWS if arch.rows_total > ROWS else FEW_ROWS, LEAST_STEPS * batch_size)
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
    timings = {name: timing.per(steps) for name, timing in timed.items()}
    epoch_rows, epoch_s, waited_s, first_s = _waiting(arch, batch_size, ids, ours)
    values = {
        **figures(timings["ours_loading"]),
        "loading_epoch_rows": epoch_rows,
        "loading_epoch_s": epoch_s,
        "loading_waited_share": waited_s / epoch_s,
        # Before it nothing can be read ahead.
        "loading_first_batch_ms": first_s * 1e3,
    }
    if original is not None:
        values |= figures(timings["original_loading"])
        values |= beside(timings["ours_loading"], timings["original_loading"], "loading_")
    return values


def _waiting(
    arch: Arch, batch_size: int, ids: Ids, local_step: LocalStep
) -> tuple[int, float, float, float]:
    """Train an epoch over a dataset: its rows, its seconds, those of waiting, and for the first."""
    few = arch.rows_total <= EPOCH_ROWS
    rows = max(FEW_ROWS if few else EPOCH_ROWS, LEAST_STEPS * batch_size)
    with tempfile.TemporaryDirectory() as name:
        loader = Loader(
            write_split(Path(name), arch, rows, ids), batch_size=batch_size, shuffle=True
        )
        first: float | None = None
        began = time.perf_counter()
        for batch in loader.epoch():
            first = loader.waited_s if first is None else first
            local_step.step(batch)
        epoch_s = time.perf_counter() - began
    return rows, epoch_s, loader.waited_s, first or 0.0


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
