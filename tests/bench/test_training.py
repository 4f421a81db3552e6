"""The steps that are measured do what they say."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dlrm.batch import Batch
from dlrm.bench import batches
from dlrm.bench.arch import Arch
from dlrm.bench.batches import write_split
from dlrm.bench.local_step import LocalStep
from dlrm.bench.rivals import loading
from dlrm.bench.rivals.loading import its_loader
from dlrm.bench.rivals.tables import Bags, Tables, torch_optimizer
from dlrm.bench.timer import in_turn, round_steps
from dlrm.errors import IdError
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.optim import OPTIMIZERS

ARCH = Arch("small", (30, 4, 1), DLRMConfig(dim=4, bottom=(8,), top=(8,)))


def test_rounds_go_on_where_the_last_one_ended() -> None:
    seen: list[str] = []
    run = in_turn(seen.append, ["a", "b", "c"], steps=4)
    run()
    run()
    assert "".join(seen) == "abcabcab"


def test_rounds_have_two_steps_at_least_and_are_not_endless() -> None:
    assert round_steps(1) == 200
    assert round_steps(2048) == 32
    assert round_steps(10**6) == 2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_our_step_trains(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 1000)
    (batch, *_) = batches.rotation(ARCH.schema, 32, "uniform")
    ours = LocalStep(ARCH, "fp32", optimizer)
    losses = [ours.step(batch) for _ in range(50)]
    assert losses[-1] < losses[0]
    assert all(p.grad is None for p in ours.model.parameters())


def test_the_check_of_ids_finds_a_wrong_one() -> None:
    ours = LocalStep(ARCH, "fp32", "sgd")
    batch = batches.random_batch(ARCH.schema, 16, "uniform", np.random.default_rng(0))
    ours.check_ids(batch)
    batch.ids[5, 1] = ARCH.num_embeddings[1]
    with pytest.raises(IdError, match="C2: id 4 is out of range"):
        ours.check_ids(batch)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
def test_tables_are_stored_as_asked(storage: Storage) -> None:
    arch = ARCH.stored(storage)
    tables = LocalStep(arch, "fp32", "sgd").model.embeddings
    assert isinstance(tables, EmbeddingCollection)
    assert tables.storage == Tables(arch, "sgd").collection.storage == storage
    assert arch.num_embeddings == ARCH.num_embeddings


def test_waiting_is_a_part_of_an_epoch_and_its_first_batch_a_part_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch = Arch("large", (6000, 4, 1), ARCH.model)
    seen: list[int] = []
    monkeypatch.setattr(loading, "EPOCH_ROWS", 100)
    ours: Any = SimpleNamespace(step=lambda batch: seen.append(len(batch)))
    rows, epoch_s, waited_s, first_s = loading._waiting(arch, 16, "zipf", ours)
    assert (rows, sum(seen), len(seen)) == (100, 100, 7)
    assert 0 < first_s <= waited_s < epoch_s


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if torch_optimizer(name)])
def test_our_tables_and_one_bag_a_table_learn_the_same(optimizer: str) -> None:
    ours, bags = Tables(ARCH, optimizer), Bags(ARCH, optimizer)
    weights = [weight.data for weight in bags.bags.parameters()]
    for t, weight in enumerate(weights):
        weight.copy_(ours.collection.table(t))
    torch.manual_seed(0)
    for _ in range(3):
        ids = torch.stack([torch.randint(n, (16,)) for n in ARCH.num_embeddings], 1)
        grad = torch.randn(16, 3, 4)
        ours.step((Batch(torch.zeros(16, 13), ids.int(), torch.zeros(16, 1)), grad))
        bags.step((ids.t().contiguous(), torch.arange(16), grad.unbind(1)))
    for t, weight in enumerate(weights):
        torch.testing.assert_close(weight, ours.collection.table(t))


def test_the_rows_of_a_dataset_are_of_the_shapes_of_the_batches(tmp_path: Path) -> None:
    split = write_split(tmp_path, ARCH, 100, "zipf")
    assert len(split) == 100
    assert split.dense.shape == (100, 13)
    assert split.ids.shape == (100, 3)
    assert (split.ids < [30, 4, 1]).all()
    assert 0 < split.labels.mean() < 1


def test_the_original_reads_the_same_rows_from_files_of_its_own_form(tmp_path: Path) -> None:
    def data(raw_path: str, pro_data: str, **settings: Any) -> list[Any]:
        assert (settings["dataset"], settings["split"]) == ("kaggle", "train")
        counts = np.load(raw_path.removesuffix(".txt") + "_day_count.npz")["total_per_file"]
        assert len(counts) == 7
        arrays = np.load(pro_data)
        assert len(arrays["y"]) == counts.sum()
        assert arrays["counts"].tolist() == list(ARCH.num_embeddings)
        columns = (arrays[name][: counts[:6].sum()] for name in ("X_int", "X_cat", "y"))
        return list(zip(*columns, strict=True))

    split = write_split(tmp_path, ARCH, 50, "uniform")
    module: Any = ModuleType("original")
    module.dp = SimpleNamespace(CriteoDataset=data, collate_wrapper_criteo_offset=list)
    loader = its_loader(module, tmp_path, split, ARCH, 16)
    samples = [sample for batch in loader for sample in batch]
    assert len(samples) == 50
    counts, ids, labels = (np.stack(column) for column in zip(*samples, strict=True))
    np.testing.assert_allclose(np.log1p(counts), split.dense, rtol=1e-6)
    np.testing.assert_array_equal(ids, split.ids)
    np.testing.assert_array_equal(labels, split.labels[:, 0])
