"""The data that a plan is made for: prepared ones, or a description of some that are elsewhere."""

from dataclasses import dataclass

from dlrm.bench.arch import ARCHS, NUM_DENSE
from dlrm.data.resolve import resolve
from dlrm.data.split import SPLITS, kaggle_sizes
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, InputError, unknown
from dlrm.planning.footprint import Data, dataset_bytes
from dlrm.schema import Schema
from dlrm.training.build import pooling
from dlrm.training.config import TrainConfig

SAMPLES: dict[str, tuple[int, int, int]] = {
    "criteo-kaggle": kaggle_sizes(45_840_617),
    "criteo-terabyte": (4_195_197_692, 89_137_318, 89_137_319),
}
"""Rows of train, validation and test in the public data."""


@dataclass(frozen=True, slots=True)
class Described:
    """Data, and where they are known from."""

    data: Data
    dataset: Dataset | None
    """None where there is only a description."""
    name: str
    """What to call them."""


def prepared(config: TrainConfig, recipe: str | None) -> Described:
    """Return the data of a config, prepared if they are not yet.

    Of a recipe whose public data are not there, what is known of these.

    Raises:
        DlrmError: The data are not there, or cannot be prepared.

    """
    try:
        dataset = resolve(config.data, config.prepare)
    except InputError:
        if recipe in ARCHS:
            return arch(recipe)
        raise
    rows = {name: len(dataset.split(name)) for name in dataset.splits}
    data = Data(dataset.schema, rows, pooling(dataset), dataset_bytes(dataset))
    return Described(data, dataset, str(dataset.path))


def arch(name: str) -> Described:
    """Return what is known of a public data set.

    Raises:
        ConfigError: There is none of that name.

    """
    if name not in ARCHS:
        raise unknown("arch", name, ARCHS)
    samples = dict(zip(SPLITS, SAMPLES[name], strict=True))
    return Described(Data(ARCHS[name].schema, samples, {}), None, f"the tables of {name}")


def tables(rows: str, samples: int) -> Described:
    """Return data of tables with so many rows, e.g. `10M,2M,300`, and 13 dense features.

    Raises:
        ConfigError: A number is none.

    """
    sizes = [_count(word) for word in rows.split(",")]
    schema = Schema.one_hot(NUM_DENSE, sizes)
    return Described(Data(schema, {"train": samples}, {}), None, f"{len(sizes)} tables")


def _count(word: str) -> int:
    text = word.strip()
    factor = {"k": 1000, "K": 1000, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    try:
        count = round(float(text[:-1] if factor > 1 else text) * factor)
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(f'rows has "{text}", expected numbers of rows such as 10M,250k,300')
    return count
