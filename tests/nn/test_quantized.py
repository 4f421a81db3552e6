"""Quantised tables: against their formula in float64 numpy, torch's kernels, and their size."""

import copy
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models.dlrm import DLRM
from dlrm.nn import quantized
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, normal
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.quantized import QuantizedCollection, TableDtype, quantize
from dlrm.nn.tables import TablesConfig

from .bags import SEEDS, draw, one_hot, sums

KINDS = [(16, "fp16"), (8, "fp32"), (8, "fp16"), (4, "fp16"), (4, "fp32"), (2, "fp16"), (2, "fp32")]


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


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dim=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    weighted=st.booleans(),
    samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_is_its_formula(rows, dim, kind, weighted, samples, seed):
    torch.manual_seed(seed)
    bits, scales = kind
    collection = EmbeddingCollection(rows, dim, draw=normal(0.5))
    collection.table(0)[0] = 0.25  # a row of equal numbers
    made = QuantizedCollection.of(collection, bits, scales)

    def vector(t: int, i: int) -> np.ndarray:
        return exact(collection.table(t)[i].numpy(), bits, scales)

    for t, n in enumerate(rows):
        expected = np.stack([vector(t, i) for i in range(n)])
        np.testing.assert_allclose(made.table(t).numpy(), expected, rtol=1e-5, atol=1e-6)
        # No number is off by more than half a step, or what rounding scale and bias costs.
        step = np.ptp(collection.table(t).numpy(), axis=1, keepdims=True) / (2**bits - 1)
        slack = 0.5 + (0.02 if scales == "fp32" else min(1.0, 2**bits / 2**11))
        off = np.abs(expected - collection.table(t).numpy())
        assert (off <= slack * step + 2e-3 * (scales == "fp16") + 1e-6).all()
    ids, offsets = draw(rows, samples, 3, seed)
    factors = torch.rand(len(ids)) if weighted else None
    lookups = iter(torch.ones(len(ids)).tolist() if factors is None else factors.tolist())
    expected = sums(lambda t, i: next(lookups) * vector(t, i), len(rows), dim, ids, offsets)
    found = made(ids, offsets, factors)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        made.each(ids, offsets).detach().numpy(),
        np.array(
            [
                vector(g % len(rows), i)
                for g in range(len(offsets) - 1)
                for i in ids[offsets[g] : offsets[g + 1]].tolist()
            ]
        ).reshape(-1, dim),
        rtol=1e-5,
        atol=1e-5,
    )
    ids = one_hot(rows, samples, seed)
    assert torch.equal(made(ids), made(ids.flatten(), torch.arange(ids.numel() + 1)))
    assert torch.equal(made(ids), made.each(ids))


@pytest.mark.parametrize(("bits", "prepack"), [(8, "byte"), (4, "4bit"), (2, "2bit")])
def test_layout_and_lookups_are_those_of_torch(bits, prepack):
    torch.manual_seed(1)
    collection = EmbeddingCollection([300], 8, draw=normal(0.1))
    made = QuantizedCollection.of(collection, bits)
    pack = getattr(torch.ops.quantized, f"embedding_bag_{prepack}_prepack")
    unpack = getattr(torch.ops.quantized, f"embedding_bag_{prepack}_unpack")
    theirs = pack(collection.weight.detach())
    assert made.packed.shape == theirs.shape
    np.testing.assert_allclose(unpack(made.packed).numpy(), made.table(0).numpy(), atol=1e-7)
    # Codes at a half may be rounded the other way.
    step = np.ptp(collection.table(0).numpy(), axis=1).max() / (2**bits - 1)
    off = np.abs(unpack(theirs).numpy() - made.table(0).numpy())
    assert off.max() < 1.1 * step
    assert np.mean(off > 1e-4 * step) < 0.02


def test_plain_torch_agrees_with_torchs_kernels():
    torch.manual_seed(2)
    ids, offsets = draw([30, 20], 9, 4, seed=3)
    for dim in (1, 2, 3, 5, 7, 16):
        collection = EmbeddingCollection([30, 20], dim, draw=normal(0.1))
        for bits in (8, 4, 2):
            made = QuantizedCollection.of(collection, bits)
            rows = made.rows_of(ids, offsets, made.starts)
            for factors in (None, torch.rand(len(ids))):
                torch.testing.assert_close(
                    made._pooled(rows, offsets, factors),
                    made._plainly_pooled(rows, offsets, factors),
                )


def test_bytes_are_counted():
    collection = EmbeddingCollection([1000, 24], 16)
    assert collection.size_bytes == 1024 * 64
    assert QuantizedCollection.of(collection).size_bytes == 1024 * (16 + 8)
    assert QuantizedCollection.of(collection, 8, "fp16").size_bytes == 1024 * (16 + 4)
    assert QuantizedCollection.of(collection, 4).size_bytes == 1024 * (8 + 4)
    assert QuantizedCollection.of(collection, 2).size_bytes == 1024 * (4 + 4)
    assert quantize(collection, "fp16").size_bytes == 1024 * 32
    assert quantize(collection, "bf16").size_bytes == 1024 * 32


def test_large_tables_are_quantised_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    collection = EmbeddingCollection([100], 4)
    whole = QuantizedCollection.of(collection, 4)
    monkeypatch.setattr(quantized, "_ROWS", 7)
    assert torch.equal(QuantizedCollection.of(collection, 4).packed, whole.packed)


def test_saved_and_loaded_without_a_pickle(tmp_path):
    torch.manual_seed(4)
    made = QuantizedCollection.of(EmbeddingCollection([30, 5], 6), 4)
    save_file(made.state_dict(), tmp_path / "tables.safetensors")
    assert (tmp_path / "tables.safetensors").stat().st_size < 35 * 7 + 200
    other = QuantizedCollection([30, 5], 6, bits=4)
    other.load_state_dict(load_file(tmp_path / "tables.safetensors"))
    ids = torch.tensor([[29, 4]])
    assert torch.equal(other(ids), made(ids))
    with pytest.raises(RuntimeError, match="size mismatch"):
        QuantizedCollection([30, 5], 6, bits=8).load_state_dict(made.state_dict())


def test_a_gradient_is_an_error():
    made = QuantizedCollection.of(EmbeddingCollection([30, 5], 6))
    ids = torch.tensor([[29, 4]])
    for out in (made(ids), made.each(ids)):
        with pytest.raises(ConfigError, match="quantised tables cannot be trained"):
            out.sum().backward()
    with torch.no_grad():
        assert not made(ids).requires_grad


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e6])
def test_numbers_without_codes_are_named(wrong):
    collection = EmbeddingCollection([30, 5], 6, ["C1", "C2"])
    collection.table(1)[3, 2] = wrong
    with pytest.raises(ConfigError, match="C2: row 3 of its table holds numbers that are not"):
        QuantizedCollection.of(collection, 4)
    with pytest.raises(ConfigError, match=r"C2: row 3 .* not finite or too large for float16"):
        quantize(collection, "fp16")


def test_an_id_out_of_range_names_its_feature():
    made = QuantizedCollection.of(EmbeddingCollection([5, 3], 2, ["C1", "C2"]))
    with pytest.raises(IdError, match=r"C2: id 3 is out of range.*3 rows"):
        made(torch.tensor([[0, 3]]))


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
    rows = [400, 10, 300]
    embeddings = COMPRESSED[name].build(rows, 32, ["a", "b", "c"])
    model = DLRM(2, embeddings, bottom=(4,), top=(4,))
    before = copy.deepcopy(model.state_dict())
    ids, offsets = draw(rows, 8, 3, seed=6)
    batch = Batch(torch.randn(8, 2), ids, torch.zeros(8), offsets)
    smaller = quantize(model, to)
    assert isinstance(smaller.embeddings, Embeddings)
    assert smaller.embeddings.size_bytes < 0.75 * embeddings.size_bytes
    with torch.no_grad():
        apart = 0.6 if to == "int2" else 0.2
        torch.testing.assert_close(smaller(batch), model(batch), atol=apart, rtol=0)
        assert not torch.equal(smaller(batch), model(batch))
        exact_ones = smaller.embeddings(ids, offsets) - embeddings(ids, offsets)
    most = {"fp16": 2e-3, "bf16": 0.02, "int8": 0.02, "int4": 0.3, "int2": 1.2}
    assert float(exact_ones.abs().max()) < most[to]
    # The model itself stays as it was.
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_large_tables_are_not_copied_on_the_way(monkeypatch: pytest.MonkeyPatch):
    embeddings = TablesConfig(compression="qr", threshold=20).build([400, 10], 8, ["a", "b"])

    def refuse(*_: object) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(EmbeddingCollection, "__deepcopy__", refuse, raising=False)
    quantize(embeddings, "int8")


def test_tables_that_would_grow_stay():
    weighted = HashedEmbeddings([1000], 16, weighted=True)
    smaller = quantize(weighted, "int8")
    assert smaller.size_bytes == 250 * 24 + 1000 * 2 * 4
    with pytest.raises(ConfigError, match=r"C1: rows of 1 numbers, stored as fp32, are no smaller"):
        quantize(EmbeddingCollection([10], 1, ["C1"]), "int8")
    with pytest.raises(ConfigError, match="stored as bf16, are no smaller as bf16"):
        quantize(EmbeddingCollection([10], 4, storage="bf16"), "bf16")
