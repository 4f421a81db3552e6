"""Quantised tables: against their formula in float64 numpy, torch's kernels, and their size."""

import copy
import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from batches import draw, history_schema, schemas
from dlrm.errors import ConfigError, IdError
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn import quantized
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, Layout, materialize
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.initializer import normal
from dlrm.nn.quantized import QuantizedCollection, TableDtype, quantize
from dlrm.nn.tables import TablesConfig
from dlrm.ops.storage import Storage
from dlrm.schema import Schema

from .bags import ROWS, SEEDS, assert_is, ids, layout, number

KINDS = [(16, "fp16"), (8, "fp32"), (4, "fp16"), (2, "fp16")]
"""Bits, and the type of scale and bias."""


def exact(row: np.ndarray, bits: int, scales: str) -> np.ndarray:
    """The numbers that a row stands for, by the formula of `dlrm.nn.codes`."""
    if bits == 16:
        return row.astype(np.float16).astype(np.float64)
    kind = np.float32 if scales == "fp32" else np.float16
    most = 2**bits - 1
    bias = kind(row.min())
    scale = kind((row.max() - np.float32(bias)) / np.float32(most))
    if scale <= 0:
        return np.full(len(row), float(bias))
    codes = np.clip(np.round((row - np.float32(bias)) / np.float32(scale)), 0, most)
    return codes.astype(np.float64) * float(scale) + float(bias)


def plain(*rows: int, dim: int, std: float = 0.1, storage: Storage = "fp32") -> EmbeddingCollection:
    return materialize(
        EmbeddingCollection(layout(*rows), dim, storage=storage, initializer=normal(std))
    )


@settings(deadline=None, max_examples=60)
@given(
    schema=schemas(ROWS),
    dim=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_is_its_formula(schema, dim, kind, samples, seed):
    torch.manual_seed(seed)
    bits, scales = kind
    collection = materialize(EmbeddingCollection(Layout.of(schema), dim, initializer=normal(0.5)))
    collection.table(0)[0] = 0.25  # a row of equal numbers
    small = QuantizedCollection.of(collection, bits)

    def vector(table: str, i: int) -> np.ndarray:
        return exact(collection.table(number(collection, table))[i].numpy(), bits, scales)

    for t, table in enumerate(collection.layout.tables):
        expected = np.stack([vector(table.name, i) for i in range(table.num_embeddings)])
        np.testing.assert_allclose(small.table(t).numpy(), expected, rtol=1e-5, atol=1e-6)
        # No number is off by more than half a step, or what rounding scale and bias costs.
        step = np.ptp(collection.table(t).numpy(), axis=1, keepdims=True) / (2**bits - 1)
        slack = 0.5 + (0.02 if scales == "fp32" else min(1.0, 2**bits / 2**11))
        off = np.abs(expected - collection.table(t).numpy())
        assert (off <= slack * step + 2e-3 * (scales == "fp16") + 1e-6).all()
    assert_is(small, schema, vector, samples, seed, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    schema=schemas(ROWS),
    dim=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_rows_count_as_their_weights_say(schema, dim, kind, samples, seed):
    torch.manual_seed(seed)
    collection = materialize(EmbeddingCollection(Layout.of(schema), dim, initializer=normal(0.5)))
    small = QuantizedCollection.of(collection, kind[0])
    for block in small.layout.blocks(draw(schema, samples, seed=seed)):
        weights = torch.rand(block.ids.shape)
        rows = small.vectors(block) * weights[..., None]
        expected = rows
        if block.offsets is not None:
            offsets = block.offsets.tolist()
            bags = [rows[a:b].sum(0) for a, b in itertools.pairwise(offsets)]
            expected = torch.stack(bags).view(samples, -1, dim)
        torch.testing.assert_close(small.pooled(block, weights), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "prepack"), [(8, "byte"), (4, "4bit"), (2, "2bit")])
def test_layout_and_lookups_are_those_of_torch(bits, prepack):
    torch.manual_seed(1)
    collection = plain(300, dim=8)
    small = QuantizedCollection.of(collection, bits)
    pack = getattr(torch.ops.quantized, f"embedding_bag_{prepack}_prepack")
    unpack = getattr(torch.ops.quantized, f"embedding_bag_{prepack}_unpack")
    theirs = pack(collection.weight.detach())
    assert small.packed.shape == theirs.shape
    np.testing.assert_allclose(unpack(small.packed).numpy(), small.table(0).numpy(), atol=1e-7)
    # Codes at a half may be rounded the other way.
    step = np.ptp(collection.table(0).numpy(), axis=1).max() / (2**bits - 1)
    off = np.abs(unpack(theirs).numpy() - small.table(0).numpy())
    assert off.max() < 1.1 * step
    assert np.mean(off > 1e-4 * step) < 0.02


def test_plain_torch_agrees_with_torchs_kernels(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(2)
    rows, offsets = torch.randint(0, 50, (40,)), torch.tensor([0, 3, 3, 17, 39, 40])
    tables = [
        QuantizedCollection.of(plain(30, 20, dim=dim), bits)
        for dim in (1, 2, 3, 5, 7, 16)
        for bits in (8, 4, 2)
    ]
    weights = (None, torch.rand(len(rows)))
    compiled = [small.pooled_rows(rows, offsets, w) for small in tables for w in weights]
    monkeypatch.setattr("dlrm.nn.quantized._operator", lambda _: None)
    oracle = [small.pooled_rows(rows, offsets, w) for small in tables for w in weights]
    torch.testing.assert_close(compiled, oracle)


def test_bytes_are_counted():
    collection = plain(1000, 24, dim=16)
    assert collection.size_bytes == 1024 * 64
    assert QuantizedCollection.of(collection).size_bytes == 1024 * (16 + 8)
    assert QuantizedCollection.of(collection, 4).size_bytes == 1024 * (8 + 4)
    assert QuantizedCollection.of(collection, 2).size_bytes == 1024 * (4 + 4)
    assert quantize(collection, "fp16").size_bytes == 1024 * 32
    assert quantize(collection, "bf16").size_bytes == 1024 * 32


def test_large_tables_are_quantised_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    collection = plain(100, dim=4)
    whole = QuantizedCollection.of(collection, 4)
    monkeypatch.setattr(quantized, "_ROWS", 7)
    assert torch.equal(QuantizedCollection.of(collection, 4).packed, whole.packed)


def test_saved_and_loaded_without_a_pickle(tmp_path):
    torch.manual_seed(4)
    small = QuantizedCollection.of(plain(30, 5, dim=6), 4)
    save_file(small.state_dict(), tmp_path / "tables.safetensors")
    assert (tmp_path / "tables.safetensors").stat().st_size < 35 * 7 + 200
    other = QuantizedCollection(layout(30, 5), 6, bits=4)
    other.load_state_dict(load_file(tmp_path / "tables.safetensors"))
    assert torch.equal(other(ids([29, 4])), small(ids([29, 4])))
    with pytest.raises(RuntimeError, match="size mismatch"):
        QuantizedCollection(layout(30, 5), 6, bits=8).load_state_dict(small.state_dict())


def test_a_gradient_is_an_error():
    schema = history_schema(rows=(30, 5, 9))
    collection = materialize(EmbeddingCollection(Layout.of(schema), 6))
    small = QuantizedCollection.of(collection)
    batch = draw(schema, 4)
    for out in (small(batch), small.sequence(batch, "history").values):
        with pytest.raises(ConfigError, match="quantised tables cannot be trained"):
            out.sum().backward()
    with torch.no_grad():
        assert not small(batch).requires_grad


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e6])
def test_numbers_without_codes_are_named(wrong):
    collection = plain(30, 5, dim=6)
    collection.table(1)[3, 2] = wrong
    with pytest.raises(ConfigError, match="C2: row 3 of its table holds numbers that are not"):
        QuantizedCollection.of(collection, 4)
    with pytest.raises(ConfigError, match=r"C2: row 3 .* not finite or too large for float16"):
        quantize(collection, "fp16")


def test_an_id_out_of_range_names_its_feature():
    small = QuantizedCollection.of(plain(5, 3, dim=2))
    with pytest.raises(IdError, match=r"C2: id 3 is out of range.*3 rows"):
        small(ids([0, 3]))


COMPRESSED = {
    "none": TablesConfig(),
    "qr": TablesConfig(compression="qr", threshold=20),
    "concat": TablesConfig(compression="qr", threshold=20, operation="concat"),
    "mixed_dim": TablesConfig(compression="mixed_dim", threshold=20, temperature=0.2),
    "hash": TablesConfig(compression="hash", threshold=20),
    "weighted": TablesConfig(compression="hash", threshold=20, weighted=True),
}


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("to", get_args(TableDtype))
def test_a_model_with_any_tables(name, to):
    torch.manual_seed(5)
    schema = history_schema(rows=(400, 300, 10))
    config = DLRMConfig(dim=32, bottom=(4,), top=(4,), tables=COMPRESSED[name])
    model = materialize(config.build(schema))
    before = copy.deepcopy(model.state_dict())
    batch = draw(schema, 8, seed=6)
    smaller = quantize(model, to)
    assert isinstance(smaller.embeddings, Embeddings)
    assert smaller.embeddings.size_bytes < 0.75 * model.embeddings.size_bytes
    with torch.no_grad():
        apart = 0.6 if to == "int2" else 0.2
        torch.testing.assert_close(smaller(batch), model(batch), atol=apart, rtol=0)
        assert not torch.equal(smaller(batch), model(batch))
        off = smaller.embeddings(batch) - model.embeddings(batch)
    most = {"fp16": 2e-3, "bf16": 0.02, "int8": 0.02, "int4": 0.3, "int2": 1.2}
    assert float(off.abs().max()) < most[to]
    for feature in ("history", "words"):
        # What stands behind a sequence is as small, and the same rows.
        values = smaller.embeddings.sequence(batch, feature).values
        rest = values - model.embeddings.sequence(batch, feature).values
        assert float(rest.detach().abs().max()) < most[to]
    # The model itself stays as it was.
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_large_tables_are_not_copied_on_the_way(monkeypatch: pytest.MonkeyPatch):
    tables = TablesConfig(compression="qr", threshold=20)
    embeddings = materialize(tables.build(Schema.one_hot(0, [400, 10]), 8))

    def refuse(*_: object) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(EmbeddingCollection, "__deepcopy__", refuse, raising=False)
    quantize(embeddings, "int8")


def test_tables_that_would_grow_stay():
    weighted = materialize(HashedEmbeddings(layout(1000), 16, weighted=True))
    smaller = quantize(weighted, "int8")
    assert smaller.size_bytes == 250 * 24 + 1000 * 2 * 4
    with pytest.raises(ConfigError, match=r"C1: rows of 1 numbers, stored as fp32, are no smaller"):
        quantize(plain(10, dim=1), "int8")
    with pytest.raises(ConfigError, match="stored as bf16, are no smaller as bf16"):
        quantize(plain(10, dim=4, storage="bf16"), "bf16")
