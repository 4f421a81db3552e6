"""The projection interaction by hand, and its width."""

import torch

from dlrm.nn.interaction import Projection


def test_a_case_by_hand():
    projection = Projection(tables=1, dim=2, count=2)
    with torch.no_grad():
        projection.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
    x, e = torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0, -1.0]]])
    # p = (4, 1), (-3, 1); x . p = 6, -1; e . p = 11, -10
    out = projection(x, e)
    assert out.tolist() == [[1, 2, 6, -1, 11, -10]]
    assert out.shape[1] == projection.width


def test_takes_and_returns_a_dense_vector_in_bfloat16():
    torch.manual_seed(0)
    projection = Projection(tables=26, dim=16, count=8)
    x, e = torch.randn(5, 16), torch.randn(5, 26, 16)
    out = projection(x.bfloat16(), e)
    assert out.dtype == torch.bfloat16
    assert out.shape == (5, 16 + 27 * 8)
    torch.testing.assert_close(out.float(), projection(x, e), rtol=0.02, atol=0.1)
