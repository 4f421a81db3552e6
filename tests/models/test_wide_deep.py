"""Wide & Deep against its equation in float64, crosses included."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, ids_of, lists_of_one, with_kind
from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.wide_deep import WideDeep, WideDeepConfig
from dlrm.nn.crosses import Crosses, crossed_schema
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    apply_mlp,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    first_order,
    inputs,
    make_schema,
)

CROSSES = ("C0*C2", "C2*C1", "C2*C0")


def make(
    schema: Schema, seed: int, crosses: tuple[str, ...], cross_rows: int = 1000, dim: int = 3
) -> WideDeep:
    config = WideDeepConfig(dim=dim, deep=(6, 5), crosses=crosses, cross_rows=cross_rows)
    return draw_parameters(config.build(schema), seed)


def equation(
    model: WideDeep, schema: Schema, batch: Batch, crosses: tuple[str, ...]
) -> list[np.ndarray]:
    rows = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    logits = []
    for b in range(len(batch)):
        logit = first_order(model.linear, schema, batch, b)
        for x, cross in enumerate(crosses):
            s, t = cross.split("*")
            assert model.crosses is not None
            assert isinstance(model.crosses.weights, EmbeddingCollection)
            weights = model.crosses.weights.table(x).numpy()
            assert len(weights) == rows[s] * rows[t]
            for i in ids_of(schema, batch, b, s):
                for j in ids_of(schema, batch, b, t):
                    logit += weights[i * rows[t] + j]
        x = batch.dense[b].numpy()
        if model.embeddings is not None:
            x = inputs(model.embeddings, schema, batch, b)
        logits.append(logit + apply_mlp(model.deep, x))
    return logits


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    crosses=st.sampled_from([(), CROSSES[:1], CROSSES[1:2], CROSSES]),
    dim=st.sampled_from([0, 3]),
    **SCHEMAS,
)
def test_is_its_equation(seed, crosses, dim, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, seed, crosses, dim=dim), draw_batch(schema, seed, 5)
    assert_logits(model, batch, equation(model, schema, batch, crosses))


@every_schema
@pytest.mark.parametrize("cross_rows", [4, 1000])
def test_gradients_are_those_of_finite_differences(cross_rows, ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, 3, CROSSES, cross_rows), draw_batch(schema, 3, 6))


def cross(left: int, right: int, rows: int, kind: str = "one_hot") -> Crosses:
    """The cross of two features whose weights are the numbers of its rows."""
    schema = Schema.one_hot(0, [left, right], kind=kind)  # pyright: ignore[reportArgumentType]
    weights = EmbeddingCollection(Layout.of(crossed_schema(["C1*C2"], schema, rows)), 1)
    crosses = materialize(Crosses(schema, weights))
    weights.fill(lambda values, t, first: values.copy_(torch.arange(len(values))[:, None] + first))
    return crosses


@settings(deadline=None, max_examples=40)
@given(
    left=st.integers(1, 2**31 - 1),
    right=st.integers(1, 2**31 - 1),
    rows=st.integers(1, 50),
    seed=SEEDS,
)
def test_hashed_pairs_stay_within_their_table(left, right, rows, seed):
    batch = draw(Schema.one_hot(0, [left, right]), 64, seed=seed)
    crosses = cross(left, right, rows)
    out = crosses(batch)
    assert out.shape == (64, 1)
    assert (out < min(rows, left * right)).all()
    # A list of one hashes as the id itself.
    assert torch.equal(cross(left, right, rows, "bag")(lists_of_one(batch)), out)


@pytest.mark.parametrize("step", [1, 5, 256])
def test_hashing_spreads_pairs_evenly(step):
    # Pairs that differ in their higher bits alone must not meet.
    rows = 64
    grid = torch.cartesian_prod(torch.arange(4096), torch.arange(0, 1024, step))
    batch = Batch(torch.empty(len(grid), 0), grid, torch.zeros(len(grid), 1))
    counts = torch.bincount(cross(4096, 1024, rows)(batch)[:, 0].long(), minlength=rows)
    expected = len(grid) / rows
    assert (counts - expected).abs().max() < 6 * expected**0.5


def test_hashed_and_whole_crosses_of_ids_and_lists_stand_beside_each_other():
    schema = make_schema("mixed", 2)
    batch = draw_batch(schema, 1, 7)
    # C0*C2 has 35 pairs, C2*C1 25: only the first is hashed, and only the second a list.
    model = make(schema, 2, CROSSES, cross_rows=30)
    assert model.crosses is not None
    assert model.crosses.hashed.tolist() == [True, False, True]
    assert [f.kind for f in model.crosses.weights.layout.features] == ["one_hot", "bag", "one_hot"]
    whole = model.crosses(batch)
    alone = []
    for x, name in enumerate(CROSSES):
        single = make(schema, 2, (name,), cross_rows=30)
        assert single.crosses is not None
        ours, theirs = single.crosses.weights, model.crosses.weights
        assert isinstance(ours, EmbeddingCollection)
        assert isinstance(theirs, EmbeddingCollection)
        ours.table(0).copy_(theirs.table(x))
        alone.append(single.crosses(batch))
    torch.testing.assert_close(whole, torch.stack(alone).sum(dim=0))


@pytest.mark.parametrize("compression", ["qr", "hash", "mixed_dim"])
def test_crosses_are_compressed_as_first_order_weights_are(compression):
    schema = make_schema("mixed", 2, rows=(700, 50, 30))
    config = WideDeepConfig(
        dim=8,
        deep=(6,),
        crosses=CROSSES,
        tables=TablesConfig(compression=compression, threshold=20),
    )
    model = draw_parameters(config.build(schema), 1)
    assert model(draw_batch(schema, 1, 5)).shape == (5, 2)


def test_a_deep_part_without_embeddings_needs_dense_features():
    with pytest.raises(ConfigError, match="no dense features"):
        WideDeepConfig(dim=0).build(replace(make_schema(), dense=()))
    with pytest.raises(ConfigError, match="-1"):
        WideDeepConfig(dim=-1)


def test_crosses_start_at_zero_and_without_them_there_are_none():
    schema = with_kind(make_schema(), "bag")
    batch = draw_batch(schema, 0, 4)
    plain, crossed = (
        materialize(WideDeepConfig(dim=3, deep=(6,), crosses=crosses).build(schema)).double()
        for crosses in ((), CROSSES)
    )
    assert plain.crosses is None
    assert isinstance(crossed.crosses, Crosses)
    assert crossed.crosses.weights.names == CROSSES
    crossed.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(batch), crossed(batch))


@pytest.mark.parametrize(
    ("crosses", "message"),
    [
        (("C0",), 'cross "C0" must name two columns, such as'),
        (("C0*C1*C2",), "must name two columns"),
        (("C1*C1",), "must name two columns"),
        (("C0*C7",), r'no categorical column "C7"; choose from: C0, C1, C2'),
        (("C0*I1",), r'no categorical column "I1"'),
        (("C0*C1", "C0*C1"), r'the cross "C0\*C1" is there twice'),
    ],
)
def test_wrong_crosses_are_named(crosses, message):
    with pytest.raises(ConfigError, match=message):
        WideDeepConfig(crosses=crosses).build(make_schema())
