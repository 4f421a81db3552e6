"""Batches from a prepared dataset, shuffled, as training reads them."""

from dlrm.bench.arch import NUM_DENSE, Arch
from dlrm.bench.cost.work import Work
from dlrm.bench.loading import write_split
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.data.encoded import consecutive
from dlrm.data.loader import WINDOW_ROWS, Loader
from dlrm.data.store import Split
from dlrm.models.dlrm import DLRMConfig

WINDOWS = 2
"""Of an epoch, at least: the second is read while the first is used."""
LABEL_BYTES = 1
"""On disk."""

CALLS = 9
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what a batch takes: every number read once, and written once into the batch.

    In order: of a sample, 13 dense features (4 bytes), T P ids (4 bytes), offsets (8 T bytes, only
    with bags) and a label (1 byte, in the batch 4).
    """
    sample_bytes = _sample_bytes(setting)
    return Work(calls=CALLS, stream_bytes=setting.batch * (2 * sample_bytes + 4 - LABEL_BYTES))


def need(setting: Setting) -> Need:
    """Return the memory of the files, which the system keeps, and of the loader's windows."""
    return Need(
        tables_bytes=_rows(setting) * _sample_bytes(setting) * 2,
        inputs_bytes=3 * max(setting.batch, WINDOW_ROWS) * _sample_bytes(setting),
    )


def build(setting: Setting, stock: Stock) -> Case:
    """Return epochs over files that were just written; and over a single window of them."""
    rows = _rows(setting)
    split = stock.once(
        ("split", rows, setting.all_rows, setting.pooling, setting.ids),
        lambda: _write(setting, stock, rows),
    )
    turns = iter(range(1 << 62))

    def run(loader: Loader) -> None:
        for _ in loader.epoch(next(turns)):
            pass

    whole = Loader(split, batch_size=setting.batch, shuffle=True)
    window = Loader(
        _first(split, max(setting.batch, WINDOW_ROWS), setting.tables),
        batch_size=setting.batch,
        shuffle=True,
    )
    return Case(run, [whole], batches=len(whole), again=[window], again_batches=len(window))


def _rows(setting: Setting) -> int:
    """Return the rows of an epoch."""
    least = max(WINDOWS * WINDOW_ROWS, 2 * setting.batch)
    return max(least, rotation.count(_sample_bytes(setting), 1 << 40))


def _sample_bytes(setting: Setting) -> int:
    """Return the bytes of a sample in a dataset."""
    offsets = 8 * setting.tables if setting.pooling > 1 else 0
    return 4 * NUM_DENSE + 4 * setting.tables * setting.pooling + offsets + LABEL_BYTES


def _write(setting: Setting, stock: Stock, rows: int) -> Split:
    arch = Arch("", setting.all_rows, DLRMConfig(), pooling=setting.pooling)
    return write_split(stock.folder(), arch, rows, setting.ids)


def _first(split: Split, rows: int, tables: int) -> Split:
    """Return the first rows of a split."""
    lists = None if split.lists is None else consecutive(split.lists, tables, 0, rows)
    return Split("train", split.dense[:rows], split.ids[:rows], split.labels[:rows], lists)


LOADER = Operator(
    "loader",
    "batches from a prepared dataset, shuffled",
    ("batch", "tables", "pooling", "threads"),
    work,
    need,
    build,
)
