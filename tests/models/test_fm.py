"""FM against its equation, all pairs written out in float64, and a case by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.fm import FM, FMConfig
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.factorization import SecondOrder

from .float64 import (
    DENSE,
    array,
    check_gradients,
    draw_batch,
    draw_parameters,
    embeddings,
    schema,
    vectors,
)


def make(seed: int) -> FM:
    model = FM(DENSE, embeddings(1), embeddings()).double()
    draw_parameters(model, seed)
    return model


def equation(model: FM, batch: Batch) -> np.ndarray:
    logits = []
    for b in range(len(batch)):
        x = batch.dense[b].numpy()
        linear = model.linear.linear
        logit = array(linear.bias)[0] + array(linear.weight)[0] @ x
        logit += sum(vector[0] for vector in vectors(model.linear.embeddings, batch, b))
        every = [x[i] * array(model.pairs.vectors)[i] for i in range(len(x))]
        every += vectors(model.embeddings, batch, b)
        logit += sum(every[i] @ every[j] for i in range(len(every)) for j in range(i))
        logits.append(logit)
    return np.array(logits)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), longest=st.sampled_from([None, 1, 4]))
def test_linear_time_form_is_the_double_sum(seed, longest):
    model = make(seed)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch), rtol=1e-10, atol=1e-10
    )


def test_a_case_by_hand():
    model = FM(1, EmbeddingCollection([2, 1], 1), EmbeddingCollection([2, 1], 2))
    with torch.no_grad():
        assert model.linear.linear.bias is not None
        model.embeddings.get_parameter("weight").copy_(
            torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, -1.0]])
        )
        model.linear.embeddings.get_parameter("weight").copy_(torch.tensor([[9.0], [0.5], [0.25]]))
        model.linear.linear.weight.fill_(2)
        model.linear.linear.bias.fill_(100)
        model.pairs.vectors.copy_(torch.tensor([[1.0, 1.0]]))
    # x v = (5, 5): with (1, 2) it makes 15, with (3, -1) 10; (1, 2) with (3, -1) makes 1.
    # logit = 100 + 2 * 5 + 0.5 + 0.25 + 15 + 10 + 1
    batch = Batch(torch.tensor([[5.0]]), torch.tensor([[1, 0]]), torch.zeros(1))
    assert model(batch).item() == 136.75


@pytest.mark.parametrize("longest", [None, 2])
def test_gradients_are_those_of_finite_differences(longest):
    check_gradients(make(3), draw_batch(3, 6, longest=longest))


def test_all_three_inputs_of_the_pairs_have_their_gradient():
    torch.manual_seed(0)
    pairs = SecondOrder(2, 3).double()
    torch.nn.init.normal_(pairs.vectors)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    e = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairs, (x, e))


def test_starts_without_first_order_weights():
    batch = draw_batch(0, 9)
    model = FMConfig().build(schema()).double()
    assert model.linear(batch).tolist() == [0.0] * 9
    assert model(batch).abs().min() > 0


def test_config_builds_it_for_a_schema():
    model = FMConfig(dim=3).build(schema())
    assert [tuple(p.shape) for p in model.parameters()] == [(15, 1), (1, 4), (1,), (15, 3), (4, 3)]
    with pytest.raises(ConfigError, match=r"model\.dim is 0"):
        FMConfig(dim=0)
