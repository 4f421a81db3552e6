"""Mixed dimensions: the solver against its formula, the tables against plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import history_schema, schemas
from dlrm.errors import ConfigError
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, Layout, materialize
from dlrm.nn.initializer import normal
from dlrm.nn.layout import Block
from dlrm.nn.mixed_dim import ProjectedEmbeddings, dimensions, mixed
from dlrm.schema import Schema

from .bags import ROWS, SEEDS, assert_gradients, assert_is, ids, layout, number


def mixed_of(schema: Schema, dim: int, dims: list[int], **options) -> Embeddings:
    names = [table.name for table in schema.tables]
    return mixed(schema, schema.feature_names, dim, dict(zip(names, dims, strict=True)), **options)


def test_dimensions_of_the_originals_example():
    assert dimensions([500, 300, 100, 7], 8) == [2, 3, 4, 8]
    assert dimensions([500, 300, 100, 7], 8, powers_of_two=True) == [2, 4, 4, 8]


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(st.integers(1, 10**8), min_size=1, max_size=8),
    dim=st.integers(1, 200),
    temperature=st.floats(0, 1),
    powers=st.booleans(),
)
def test_smaller_tables_never_get_shorter_rows(rows, dim, temperature, powers):
    dims = dimensions(rows, dim, temperature=temperature, powers_of_two=powers)
    assert all(1 <= d <= dim for d in dims)
    by_rows = [d for _, d in sorted(zip(rows, dims, strict=True), key=lambda pair: pair[0])]
    assert by_rows == sorted(by_rows, reverse=True)
    if not powers:
        assert dims[int(np.argmin(rows))] == dim
        for n, d in zip(rows, dims, strict=True):
            exact = dim * (min(rows) / n) ** temperature
            assert abs(d - max(1.0, exact)) <= 0.5 + 1e-9
    else:
        assert all(d == dim or d & (d - 1) == 0 for d in dims)


def test_temperature_zero_changes_nothing():
    assert dimensions([10, 10**6], 16, temperature=0.0) == [16, 16]


@settings(deadline=None, max_examples=40)
@given(schema=schemas(ROWS), samples=st.integers(1, 5), seed=SEEDS, data=st.data())
def test_is_its_definition(schema, samples, seed, data):
    torch.manual_seed(seed)
    dims = data.draw(st.lists(st.integers(1, 4), min_size=4, max_size=4))[: len(schema.tables)]
    embeddings = materialize(mixed_of(schema, 4, dims)).double()
    assert embeddings.names == schema.feature_names
    parts = embeddings.typed_parts() if isinstance(embeddings, ConcatEmbeddings) else [embeddings]

    def vector(table: str, i: int) -> np.ndarray:
        (part,) = [p for p in parts if table in [entry.name for entry in p.layout.tables]]
        t = number(part, table)
        if isinstance(part, EmbeddingCollection):
            return part.table(t).numpy()[i]
        assert isinstance(part, ProjectedEmbeddings)
        return part.maps[t].detach().numpy() @ part.tables.table(t).numpy()[i]

    assert_is(embeddings, schema, vector, samples, seed)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    schema = history_schema(rows=(9, 20, 30))
    assert_gradients(materialize(mixed_of(schema, 4, [4, 2, 2])).double(), schema, seed=1)


def test_vectors_of_several_lists_have_the_map_of_their_table():
    schema = history_schema(rows=(9, 20, 30))
    projected = materialize(ProjectedEmbeddings(Layout.of(schema, ["history", "words"]), 4, 2))
    # A sample with history (3, 7) and words (5), and one with words (2).
    block = Block(1, torch.tensor([3, 7, 5, 2]), torch.tensor([0, 2, 3, 3, 4]))
    items, words = (projected.tables.table(t) @ projected.maps[t].t() for t in (0, 1))
    expected = torch.stack([items[3], items[7], words[5], words[2]])
    torch.testing.assert_close(projected.vectors(block), expected)


def test_equal_dimensions_are_looked_up_as_one():
    embeddings = mixed_of(Schema.one_hot(0, [9, 20, 30, 8], "abcd"), 4, [4, 2, 2, 4])
    assert isinstance(embeddings, ConcatEmbeddings)
    assert [part.names for part in embeddings.typed_parts()] == [("b", "c"), ("a", "d")]
    assert embeddings.size_bytes == 4 * (50 * 2 + 2 * 4 * 2 + 17 * 4)


def test_fresh_vectors_have_the_variance_of_a_plain_table():
    torch.manual_seed(2)
    batch = ids(*([i] for i in range(5000)))
    for init_std in (None, 0.3):
        initializer = normal(init_std) if init_std else None
        plain = materialize(EmbeddingCollection(layout(5000), 16, initializer=initializer))(batch)
        stds = [
            materialize(ProjectedEmbeddings(layout(5000), 16, 4, init_std=init_std))(batch)
            .std()
            .item()
            for _ in range(20)
        ]
        assert np.mean(stds) == pytest.approx(plain.std().item(), rel=0.08)


def test_zero_can_be_left():
    projected = ProjectedEmbeddings(layout(20), 4, 2)
    projected.start_at_zero()
    out = materialize(projected)(ids([3]))
    assert not out.any()
    out.sum().backward()
    (weight,) = projected.tables.parameters()
    assert weight.grad is not None
    assert weight.grad.to_dense()[3].all()


def test_a_dimension_out_of_range_names_the_table():
    with pytest.raises(ConfigError, match="b: its table has dimension 5, expected 1 to 4"):
        mixed_of(Schema.one_hot(0, [5, 6], "ab"), 4, [4, 5])
