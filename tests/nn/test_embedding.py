import copy
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import IdError
from dlrm.nn.embedding import EmbeddingCollection, Storage, made_by, normal, pieces, uniform
from dlrm.nn.qr import QREmbeddings

ROWS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def draw_bags(rows: list[int], samples: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (samples * len(rows),), generator=generator)
    ids = torch.cat(
        [
            torch.randint(0, rows[g % len(rows)], (int(n),), generator=generator)
            for g, n in enumerate(lengths)
        ]
        or [torch.empty(0, dtype=torch.int64)]
    )
    return ids, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, samples=st.integers(0, 5), dim=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_bags_of_one_equal_one_hot(rows, samples, dim, seed):
    collection = EmbeddingCollection(rows, dim)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, n, (samples,), generator=generator) for n in rows], dim=1)
    one_hot = collection(ids)
    assert one_hot.shape == (samples, len(rows), dim)
    offsets = torch.arange(samples * len(rows) + 1)
    assert torch.equal(one_hot, collection(ids.flatten(), offsets))
    assert torch.equal(one_hot, collection(ids.to(torch.int32)))


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, samples=st.integers(1, 5), dim=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_bags_and_their_gradient_equal_separate_tables(rows, samples, dim, seed):
    collection = EmbeddingCollection(rows, dim).double()
    ids, offsets = draw_bags(rows, samples, seed)
    out = collection(ids, offsets)
    tables = [collection.table(t).clone().requires_grad_() for t in range(len(rows))]
    expected = torch.stack(
        [
            torch.stack(
                [
                    tables[t][ids[offsets[g] : offsets[g + 1]]].sum(dim=0)
                    for t in range(len(rows))
                    for g in [b * len(rows) + t]
                ]
            )
            for b in range(samples)
        ]
    )
    torch.testing.assert_close(out, expected)
    factor = torch.randn_like(out)
    (out * factor).sum().backward()
    (expected * factor).sum().backward()
    assert collection.weight.grad is not None
    assert collection.weight.grad.is_sparse
    dense = torch.cat([t.grad if t.grad is not None else torch.zeros_like(t) for t in tables])
    torch.testing.assert_close(collection.weight.grad.to_dense(), dense)


def test_gradients_accumulate_over_batches():
    collection = EmbeddingCollection([4, 3], 2)
    a, b = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])
    collection(a).sum().backward()
    collection(b).sum().backward()
    assert collection.weight.grad is not None
    grad = collection.weight.grad.to_dense()
    assert grad[:, 0].tolist() == [2, 0, 0, 0, 0, 1, 1]


def test_rows_are_drawn_within_the_bound_of_their_table():
    torch.manual_seed(0)
    collection = EmbeddingCollection([10_000, 100], 4)
    for t, n in enumerate([10_000, 100]):
        table = collection.table(t)
        assert table.abs().max() <= sqrt(1 / n)
        assert table.abs().max() > 0.9 * sqrt(1 / n)
        assert abs(float(table.mean())) < 0.1 * sqrt(1 / n)


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("bag", [False, True])
def test_an_id_out_of_range_names_its_feature(wrong, bag):
    collection = EmbeddingCollection([5, 3], 2, names=["C1", "C2"])
    ids = torch.tensor([[4, 2], [0, wrong]])
    arguments = (ids.flatten(), torch.arange(5)) if bag else (ids,)
    with pytest.raises(IdError, match=rf"C2: id {wrong} is out of range.*3 rows"):
        collection(*arguments)


def test_ids_for_another_number_of_tables_are_refused():
    with pytest.raises(IdError, match="ids for 3 tables, expected 2"):
        EmbeddingCollection([5, 3], 2)(torch.zeros(1, 3, dtype=torch.int64))


@pytest.mark.parametrize("storage", ["bf16", "bf16_nearest", "split"])
def test_tables_in_bfloat16_give_float32_and_take_its_gradients(storage):
    torch.manual_seed(3)
    full = EmbeddingCollection([50, 7], 8)
    torch.manual_seed(3)
    half = EmbeddingCollection([50, 7], 8, storage=storage)
    assert half.weight.dtype == torch.bfloat16
    assert torch.equal(half.weight, full.weight.bfloat16())
    ids = torch.tensor([[0, 6], [49, 0], [0, 1]])
    for collection in (half, copy.deepcopy(half)):
        for arguments in ((ids,), (ids.flatten(), torch.arange(7))):
            collection.weight.grad = None
            out = collection(*arguments)
            assert out.dtype == torch.float32
            assert torch.equal(out, collection.weight.detach().float()[ids + torch.tensor([0, 50])])
            (out * 1.001).sum().backward()
            assert collection.weight.grad is not None
            # 1.001 in bfloat16 would be 1.
            assert torch.equal(collection.weight.grad._values(), torch.full((6, 8), 1.001))


@pytest.mark.parametrize("offsets", [[0, 1, 3], [1, 2, 4], [0, 3, 2, 2, 4]])
def test_offsets_that_do_not_cover_the_ids_are_refused(offsets):
    with pytest.raises(IdError, match="offsets must rise from 0 to the number of ids, 4"):
        EmbeddingCollection([5, 3], 2)(torch.zeros(4, dtype=torch.int64), torch.tensor(offsets))


@pytest.mark.parametrize("draw", [normal(2.0), uniform([0.5])])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (40, 3), (999, 5), (3000, 1), (31, 16)])
def test_pieces_draw_the_numbers_that_are_drawn_at_once(draw, rows, dim, monkeypatch):
    torch.manual_seed(1)
    whole = EmbeddingCollection([rows], dim, draw=draw).table(0)
    monkeypatch.setattr("dlrm.nn.embedding.PIECE_NUMBERS", 64)
    assert rows * dim < 200 or len(list(pieces(rows, dim))) > 1
    torch.manual_seed(1)
    assert EmbeddingCollection([rows], dim, draw=draw).table(0).equal(whole)


def test_another_maker_makes_the_tables_within():
    made = []

    def maker(rows, dim, names=None, *, storage: Storage = "fp32", draw=None):
        made.append((tuple(rows), dim, storage))
        return EmbeddingCollection(rows, dim, names, storage=storage, draw=draw)

    with made_by(maker):
        QREmbeddings([100, 50], 4, storage="bf16")
    QREmbeddings([100, 50], 4)
    assert made == [((25, 13), 4, "bf16"), ((4, 4), 4, "bf16")]


def test_on_the_meta_device_tables_take_no_memory_and_draw_nothing():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with torch.device("meta"):
        made = EmbeddingCollection([10**12, 3], 64)
    assert made.weight.is_meta
    assert torch.rand(1) == expected
