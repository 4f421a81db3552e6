from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from dlrm.compat.criteo_data import criteo_data
from dlrm.compat.flags import Flags

from .logs import write_log


@pytest.mark.parametrize("rows", [105, 112, 110])
@pytest.mark.parametrize("memory_map", [False, True])
def test_rows_of_training_and_test(tmp_path: Path, rows: int, memory_map: bool):
    log = write_log(tmp_path / "train.txt", rows)
    flags = Flags(
        raw_data_file=str(log),
        memory_map=memory_map,
        data_randomize="none",
        mini_batch_size=10,
        test_mini_batch_size=3,
    )
    data = criteo_data(flags, RandomState(1))
    labels = np.array([float(line[0]) for line in log.read_text().splitlines()])
    last_day = rows // 7
    test = last_day - last_day // 2
    train = list(data.train.read())
    assert len(data.train) == len(train) == -(-(rows - last_day) // 10)
    assert torch.cat([b.labels[:, 0] for b in train]).tolist() == labels[: rows - last_day].tolist()
    tested = torch.cat([b.labels[:, 0] for b in data.test.read()])
    assert tested.tolist() == labels[rows - last_day : rows - last_day + test].tolist()
    assert len(data.test) == -(-test // 3)
    # Ids run up to the rows of their table: there is none for values never seen.
    ids = torch.cat([b.ids for b in (*train, *data.test.read())])
    assert all(int(ids[:, t].max()) < n for t, n in enumerate(data.schema.num_embeddings))
    assert sum(data.schema.num_embeddings) <= len(ids) * 26
    assert data.schema.feature_names[0] == "C1"
    assert len(data.schema.dense) == 13
    # Reading on in the middle gives the rest.
    (rest,) = list(data.train.read(len(train) - 1))
    assert torch.equal(rest.ids, train[-1].ids)


def test_missing_is_the_value_0(tmp_path: Path):
    log = write_log(tmp_path / "train.txt", 70)
    data = criteo_data(Flags(raw_data_file=str(log)), RandomState(1))
    values = [line.split("\t")[14:] for line in log.read_text().splitlines()]
    distinct = [len({int(row[t] or "0", 16) for row in values}) for t in range(26)]
    assert list(data.schema.num_embeddings) == distinct
