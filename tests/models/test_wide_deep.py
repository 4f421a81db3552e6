"""Wide & Deep against its equation in float64, crosses included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.wide_deep import WideDeep, WideDeepConfig
from dlrm.nn.crosses import Crosses
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.schema import Schema

from .float64 import (
    ROWS,
    apply_mlp,
    array,
    check_gradients,
    draw_batch,
    draw_parameters,
    inputs,
    schema,
    vectors,
)

CROSSES = ("C0*C2", "C2*C1")


def make(seed: int, crosses: tuple[str, ...], cross_rows: int = 1000, dim: int = 3) -> WideDeep:
    config = WideDeepConfig(dim=dim, deep=(6, 5), crosses=crosses, cross_rows=cross_rows)
    model = config.build(schema()).double()
    draw_parameters(model, seed)
    return model


def bag(batch: Batch, b: int, t: int) -> list[int]:
    if batch.offsets is None:
        return [int(batch.ids[b, t])]
    g = b * 3 + t
    return batch.ids[batch.offsets[g] : batch.offsets[g + 1]].tolist()


def equation(model: WideDeep, batch: Batch, crosses: tuple[str, ...]) -> np.ndarray:
    logits = []
    for b in range(len(batch)):
        linear = model.linear.linear
        logit = array(linear.bias)[0] + array(linear.weight)[0] @ batch.dense[b].numpy()
        logit += sum(vector[0] for vector in vectors(model.linear.embeddings, batch, b))
        for x, cross in enumerate(crosses):
            s, t = (int(name[1:]) for name in cross.split("*"))
            assert model.crosses is not None
            assert isinstance(model.crosses.weights, EmbeddingCollection)
            weights = model.crosses.weights.table(x).numpy()
            assert len(weights) == ROWS[s] * ROWS[t]
            for i in bag(batch, b, s):
                logit += sum(weights[i * ROWS[t] + j][0] for j in bag(batch, b, t))
        x = batch.dense[b].numpy()
        if model.embeddings is not None:
            x = inputs(model.embeddings, batch, b)
        logits.append(logit + apply_mlp(model.deep, x)[0])
    return np.array(logits)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    crosses=st.sampled_from([(), CROSSES[:1], CROSSES]),
    longest=st.sampled_from([None, 1, 4]),
    dim=st.sampled_from([0, 3]),
)
def test_is_its_equation(seed, crosses, longest, dim):
    model = make(seed, crosses, dim=dim)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch, crosses), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("cross_rows", [4, 1000])
@pytest.mark.parametrize("longest", [None, 2])
def test_gradients_are_those_of_finite_differences(longest, cross_rows):
    check_gradients(make(3, CROSSES, cross_rows), draw_batch(3, 6, longest=longest))


@settings(deadline=None, max_examples=40)
@given(
    left=st.integers(1, 2**31 - 1),
    right=st.integers(1, 2**31 - 1),
    rows=st.integers(1, 50),
    seed=st.integers(0, 2**31),
)
def test_hashed_pairs_stay_within_their_table(left, right, rows, seed):
    rows = min(rows, left * right)
    crosses = Crosses((left, right), [(0, 1)], EmbeddingCollection([rows], 1))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack(
        [torch.randint(0, n, (64,), generator=generator) for n in (left, right)], dim=1
    )
    assert crosses(ids).shape == (64,)
    # A bag of one hashes as the id itself.
    assert torch.equal(crosses(ids.flatten(), torch.arange(129)), crosses(ids))


@pytest.mark.parametrize("step", [1, 5, 256])
def test_hashing_spreads_pairs_evenly(step):
    # Pairs that differ in their higher bits alone must not meet.
    rows = 64
    crosses = Crosses((4096, 1024), [(0, 1)], EmbeddingCollection([rows], 1))
    crosses.weights.get_parameter("weight").data.copy_(torch.arange(float(rows))[:, None])
    grid = torch.cartesian_prod(torch.arange(4096), torch.arange(0, 1024, step))
    counts = torch.bincount(crosses(grid).long(), minlength=rows)
    expected = len(grid) / rows
    assert (counts - expected).abs().max() < 6 * expected**0.5


def test_a_deep_part_without_embeddings_needs_dense_features():
    bare = Schema(dense=(), categorical=schema().categorical)
    with pytest.raises(ConfigError, match="no dense features"):
        WideDeepConfig(dim=0).build(bare)
    with pytest.raises(ConfigError, match="-1"):
        WideDeepConfig(dim=-1)


def test_crosses_start_at_zero_and_without_them_there_are_none():
    batch = draw_batch(0, 4)
    torch.manual_seed(0)
    plain = WideDeepConfig(dim=3, deep=(6,)).build(schema()).double()
    torch.manual_seed(0)
    crossed = WideDeepConfig(dim=3, deep=(6,), crosses=CROSSES).build(schema()).double()
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
    ],
)
def test_wrong_crosses_are_named(crosses, message):
    with pytest.raises(ConfigError, match=message):
        WideDeepConfig(crosses=crosses).build(schema())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": -1}, "model.dim is -1"),
        ({"cross_rows": 0}, "model.cross_rows is 0"),
        ({"deep": (-1,)}, "model.deep is"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        WideDeepConfig(**wrong)
