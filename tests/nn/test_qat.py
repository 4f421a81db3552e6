"""Tables that are trained for codes: rounded forwards as `quantize` does, backwards not at all."""

import copy
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS, another
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.codes import Codes
from dlrm.nn.embedding import EmbeddingCollection, constant, normal
from dlrm.nn.qat import QATEmbeddings
from dlrm.nn.quantized import QuantizedCollection, quantize
from dlrm.nn.tables import TablesConfig
from dlrm.optim import build
from dlrm.schema import CategoricalFeature, DenseFeature, Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict

from .bags import SEEDS, draw, one_hot, train

CODES = get_args(Codes)


def both(rows, dim, to, seed=0) -> tuple[EmbeddingCollection, QATEmbeddings]:
    """Plain tables, and aware ones of the same numbers."""
    torch.manual_seed(seed)
    plain = EmbeddingCollection(rows, dim, draw=normal(0.3))
    aware = QATEmbeddings(rows, dim, codes=to)
    (weight,) = aware.parameters()
    weight.data.copy_(plain.weight)
    return plain, aware


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dim=st.integers(8, 19),
    to=st.sampled_from(CODES),
    weighted=st.booleans(),
    samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_forwards_it_is_the_quantised_tables_and_backwards_the_plain_ones(
    rows, dim, to, weighted, samples, seed
):
    plain, aware = both(rows, dim, to, seed)
    small = quantize(plain, to)
    assert isinstance(small, QuantizedCollection)
    ids, offsets = draw(rows, samples, 3, seed)
    factors = torch.rand(len(ids)) if weighted else None
    hot = one_hot(rows, samples, seed)
    with torch.no_grad():
        for arguments in ((hot,), (ids, offsets), (ids, offsets, factors)):
            torch.testing.assert_close(aware(*arguments), small(*arguments))
        torch.testing.assert_close(aware.each(ids, offsets), small.each(ids, offsets))
    for t in range(len(rows)):
        assert torch.equal(aware.table(t), small.table(t))
    for arguments in ((hot,), (ids, offsets), (ids, offsets, factors)):
        slope = torch.randn(samples, len(rows), dim)
        grads = []
        for tables in (plain, aware):
            (weight,) = tables.parameters()
            weight.grad = None
            (tables(*arguments) * slope).sum().backward()
            assert weight.grad is not None
            assert weight.grad.is_sparse
            grads.append(weight.grad.to_dense())
        torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("to", CODES)
def test_quantising_afterwards_changes_no_vector(to):
    torch.manual_seed(1)
    rows = [300, 10, 250]
    tables = TablesConfig(qat=to, init_std=0.1).build(rows, 16, ["a", "b", "c"])
    model = DLRM(1, tables, bottom=(), top=(16,))
    before = train(model, rows, build("adagrad", model.parameters(), 0.05))
    assert before[-1] < 0.97 * before[0]
    small = quantize(model, to)
    assert isinstance(small.embeddings, QuantizedCollection)
    assert small.embeddings.size_bytes < 0.4 * tables.size_bytes
    ids = one_hot(rows, 50, seed=2)
    batch = Batch(torch.zeros(50, 1), ids, torch.zeros(50))
    with torch.no_grad():
        torch.testing.assert_close(small(batch), model(batch), atol=1e-5, rtol=1e-5)
    # Copies and saved ones are the same.
    again = copy.deepcopy(model)
    assert torch.equal(again(batch), model(batch))
    fresh = DLRM(1, TablesConfig(qat=to).build(rows, 16, ["a", "b", "c"]), bottom=(), top=(16,))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(batch), model(batch))


def test_training_for_codes_beats_rounding_afterwards():
    rows, losses = [40, 30], {}
    for aware in (TablesConfig(init_std=0.1), TablesConfig(init_std=0.1, qat="int2")):
        torch.manual_seed(3)
        tables = aware.build(rows, 16, ["a", "b"])
        model = DLRM(1, tables, bottom=(), top=(16,))
        train(model, rows, build("adagrad", model.parameters(), 0.05))
        small = quantize(model, "int2")
        ids = one_hot(rows, 256, seed=5)
        rng = np.random.default_rng(6)
        scores = [torch.from_numpy(rng.normal(size=n)) for n in rows]
        signal = torch.stack([score[ids[:, t]] for t, score in enumerate(scores)]).sum(0)
        with torch.no_grad():
            logits = small(Batch(torch.zeros(256, 1), ids, (signal > 0).float()))
        labels = (signal > 0).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        losses[aware.qat] = float(loss)
    assert losses["int2"] < losses["none"]


def test_small_updates_add_up_until_a_code_changes():
    aware = QATEmbeddings([1], 16, codes="int2")
    aware.fill(lambda values, t, first: values.copy_(torch.linspace(0, 3, 16)))
    ids = torch.zeros(1, 1, dtype=torch.int64)
    before, moved = aware(ids).detach(), []
    for _ in range(30):
        aware.zero_grad()
        aware(ids)[0, 0, 8].backward()
        build("sgd", aware.parameters(), 0.01).step()
        moved.append(not torch.equal(aware(ids).detach(), before))
    assert not moved[0]
    assert moved[-1]


def test_the_seam_is_kept():
    aware = QATEmbeddings([5, 3], 16, ["C1", "C2"], codes="int8")
    with pytest.raises(IdError, match=r"C2: id 3 is out of range.*3 rows"):
        aware(torch.tensor([[0, 3]]))
    aware.fill(constant(0.25))
    assert torch.equal(aware.table(1), torch.full((3, 16), 0.25))
    assert not aware(torch.empty(0, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)).any()
    assert aware(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2, 16)
    aware.start_at_zero()
    assert not aware(torch.tensor([[0, 1]])).any()


def test_only_their_own_codes_can_be_made_of_them():
    aware = QATEmbeddings([5, 3], 16, ["C1", "C2"], codes="int8")
    with pytest.raises(ConfigError, match="C1: its table was trained for int8 codes, not for int4"):
        quantize(aware, "int4")


def test_rows_that_would_grow_stay_plain():
    for dim, config in (
        (1, TablesConfig(qat="int2")),
        (2, TablesConfig(qat="int8")),
        (8, TablesConfig(qat="int8", storage="bf16")),
    ):
        assert isinstance(config.build([50], dim, ["C1"]), EmbeddingCollection)
    fewer = TablesConfig(qat="int4", storage="bf16").build([50], 8, ["C1"])
    assert isinstance(fewer, QATEmbeddings)
    with pytest.raises(ConfigError, match=r"tables\.qat is int8, but says nothing to .* qr"):
        TablesConfig(qat="int8", compression="qr")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_them(name):
    schema = Schema(
        dense=(DenseFeature(name="I1"),),
        categorical=tuple(CategoricalFeature(name=n, rows=30) for n in ("user", "item")),
    )
    config = another(DLRMConfig(dim=16, bottom=(8,), top=(8,)), name)
    config = TrainConfig(model=replace(config, tables=TablesConfig(qat="int4")))
    assert from_dict(to_dict(config)) == config
    model = config.model.build(schema)
    batch = Batch(torch.ones(4, 1), one_hot([30, 30], 4, seed=1), torch.zeros(4))
    model(batch).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
