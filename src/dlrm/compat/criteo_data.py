"""Criteo runs: raw log -> prepared dataset -> batches, with the lines that the original prints.

`--processed-data-file` names a folder here:

    dataset/     a prepared dataset, all rows in one split, in the order of the log
    days.json    how many rows each day has, and which log and flags the dataset was made from
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.compat import criteo_log
from dlrm.compat.batches import Data
from dlrm.compat.criteo_log import KAGGLE_DAYS, Day, OriginalCriteo, raw_files
from dlrm.compat.flags import Flags
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.store import Dataset, Split
from dlrm.errors import DatasetError
from dlrm.files import write_json
from dlrm.json_file import read_json
from dlrm.schema import Schema

DATASET_FOLDER, DAYS_FILE = "dataset", "days.json"


@dataclass(frozen=True, slots=True)
class CriteoBatches:
    """Rows of a prepared dataset in a given order."""

    split: Split
    order: NDArray[np.int64]
    """(rows,) numbers of rows"""
    batch_size: int

    def __len__(self) -> int:
        return ceil(len(self.order) / self.batch_size)

    def read(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on; the last may be short."""
        for first in range(start * self.batch_size, len(self.order), self.batch_size):
            rows = self.order[first : first + self.batch_size]
            dense, ids = np.asarray(self.split.dense[rows]), np.asarray(self.split.ids[rows])
            yield Batch.of(dense, ids, self.split.labels[rows])


def criteo_data(flags: Flags, rng: RandomState) -> Data:
    """Return training and test data of a Criteo log; prepares it at the first run.

    Of the last day the first half is for testing; the second, for validation, is not used.

    Raises:
        ConfigError, InputError, DatasetError: As `prepare` raises them.

    """
    dataset, days = _dataset(flags)
    split = dataset.split("train")
    day_rows = [day.sampled for day in days]
    if flags.data_sub_sample_rate:
        # Preparing drew a number a row. Drawing them again makes this run like the first one.
        for day in days:
            rng.random_sample(day.raw)
    shuffled = criteo_log.memory_mapped if flags.memory_map else criteo_log.in_memory
    train = shuffled(day_rows, flags.data_randomize, rng)
    _print_split(flags, dataset, "train")
    print(f"Reading pre-processed data={_processed(flags)}")
    if not flags.memory_map:
        criteo_log.in_memory(day_rows, flags.data_randomize, rng)
    _print_split(flags, dataset, "test")
    if flags.mlperf_bin_shuffle:
        train = criteo_log.batches_shuffled(train, flags.mini_batch_size, flags.numpy_rand_seed)
    test = np.arange(len(train), len(train) + ceil(day_rows[-1] / 2))
    test_size = flags.test_mini_batch_size
    return Data(
        # The last row of each table is for values never seen, which the original does not know.
        schema=Schema.one_hot(
            len(dataset.schema.dense),
            [n - 1 for n in dataset.schema.num_embeddings],
            dataset.schema.feature_names,
        ),
        train=CriteoBatches(split, train, flags.mini_batch_size),
        test=CriteoBatches(split, test, test_size if test_size > 0 else flags.mini_batch_size),
    )


def _processed(flags: Flags) -> Path:
    """Return where the prepared dataset is or will be; by default beside the raw log."""
    if flags.processed_data_file:
        return Path(flags.processed_data_file)
    name = {"kaggle": "kaggleAdDisplayChallenge", "terabyte": "terabyte"}[flags.data_set]
    return Path(flags.raw_data_file).parent / f"{name}_processed.npz"


def _dataset(flags: Flags) -> tuple[Dataset, list[Day]]:
    """Return the prepared dataset and its days; prepare it if it is not there."""
    path = _processed(flags)
    if path.is_file():
        raise DatasetError(
            f"{path} is a file, perhaps of the original; this project prepares the raw log itself, "
            "into a folder: give another --processed-data-file"
        )
    if (path / DAYS_FILE).is_file():
        print(f"Reading pre-processed data={path}")
        return Dataset.open(path / DATASET_FOLDER), _read_days(path, flags)
    print(f"Reading raw data={flags.raw_data_file}")
    source = _source(flags)
    for file in raw_files(flags):
        print(f"Reading data from path={file}", flush=True)
    dataset = prepare(
        source,
        path / DATASET_FOLDER,
        PrepareConfig(
            split="chronological",
            fractions=(1.0, 0.0, 0.0),
            max_rows_per_table=flags.max_ind_range if flags.max_ind_range > 0 else None,
        ),
        # A dataset without its days is of a run that was killed before it wrote them.
        force=True,
    ).dataset
    days = [asdict(day) for day in source.days]
    write_json(path / DAYS_FILE, {"made_from": _made_from(source, flags), "days": days})
    _print_prepared(flags, path, dataset.split("train").labels, source.days)
    return dataset, source.days


def _source(flags: Flags) -> OriginalCriteo:
    days_of_file = KAGGLE_DAYS if flags.data_set == "kaggle" else 1
    rate, seed = flags.data_sub_sample_rate, flags.numpy_rand_seed
    return OriginalCriteo(raw_files(flags), days_of_file, rate, seed)


def _made_from(source: OriginalCriteo, flags: Flags) -> dict[str, Any]:
    return {
        "--data-set": flags.data_set,
        "--data-sub-sample-rate": flags.data_sub_sample_rate,
        "--numpy-rand-seed": flags.numpy_rand_seed if flags.data_sub_sample_rate else None,
        "--max-ind-range": flags.max_ind_range,
        "--raw-data-file": source.fingerprint()["logs"],
    }


def _read_days(path: Path, flags: Flags) -> list[Day]:
    """Return the days of a prepared dataset that was made from the same log with the same flags."""
    try:
        values = read_json(path / DAYS_FILE, DatasetError)
        made_from: dict[str, Any] = values["made_from"]
        days = [Day(**day) for day in values["days"]]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path / DAYS_FILE} is damaged ({error})"
        raise DatasetError(f"{problem}; delete {path} to prepare it again") from None
    if flags.raw_data_file and all(file.exists() for file in raw_files(flags)):
        for name, value in _made_from(_source(flags), flags).items():
            if made_from.get(name) != value:
                values = (
                    "" if name == "--raw-data-file" else f": {made_from.get(name)}, not {value}"
                )
                raise DatasetError(
                    f"{path} was prepared with another {name}{values}; "
                    "give another --processed-data-file, or delete it to prepare it again"
                )
    return days


def _print_prepared(
    flags: Flags, path: Path, labels: NDArray[np.uint8], days: Sequence[Day]
) -> None:
    day_rows = [day.sampled for day in days]
    print("Total number of samples:", len(labels))
    print("Divided into days/splits:\n", day_rows)
    if flags.memory_map:
        return
    print(f"Concatenating multiple days into {path} file")
    for day, end in enumerate(np.cumsum(day_rows)):
        clicks = int(np.count_nonzero(labels[:end]))
        print("Loaded day:", day, "y = 1:", clicks, "y = 0:", end - clicks)
    print("Loaded counts!")


def _print_split(flags: Flags, dataset: Dataset, name: str) -> None:
    sparse, dense = len(dataset.schema.features), len(dataset.schema.dense)
    if flags.memory_map:
        print(f"Sparse features= {sparse}, Dense features= {dense}")
        return
    print(f"Sparse fea = {sparse}, Dense fea = {dense}")
    if flags.data_randomize == "day":
        print("Randomized indices per day ...")
    print(f"Defined {name} indices...")
    if flags.data_randomize == "total":
        print("Randomized indices across days ...")
    print("Split data according to indices...")
