import pytest
import torch

from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError
from dlrm.models import MODELS, FMConfig, build
from dlrm.nn.dense_gradients import dense_gradients
from dlrm.nn.tables import TablesConfig
from dlrm.schema import DenseFeature, Feature, Schema, Table

SCHEMA = Schema(
    dense=(DenseFeature(name="price"),),
    tables=(Table(name="user", num_embeddings=9), Table(name="item", num_embeddings=300)),
    features=(
        Feature(name="user", table="user"),
        Feature(name="item", table="item"),
        Feature(name="history", table="item", kind="bag"),
    ),
)
BATCH = Batch(
    torch.tensor([[0.5], [1.0]]),
    torch.tensor([[1, 7], [1, 299]]),
    torch.tensor([[1.0], [0.0]]),
    Jagged(torch.tensor([7, 7, 3]), torch.tensor([0, 3, 3])),
)


@pytest.mark.parametrize("name", MODELS)
def test_they_are_the_sparse_ones_added_up(name):
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        pair.append(build(MODELS[name](), SCHEMA))
    dense_gradients(pair[1])
    for model in pair:
        # Twice: gradients of several batches add up.
        for _ in range(2):
            model(BATCH).sum().backward()
    for sparse, dense in zip(*(model.parameters() for model in pair), strict=True):
        assert dense.grad is None or not dense.grad.is_sparse
        if sparse.grad is not None:
            assert dense.grad is not None
            torch.testing.assert_close(dense.grad, sparse.grad.to_dense())


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_optimizers_of_torch_take_them(optimizer):
    torch.manual_seed(0)
    model = dense_gradients(build(FMConfig(), SCHEMA))
    updates = optimizer(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(BATCH), BATCH.labels)
        updates.zero_grad()
        loss.backward()
        updates.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1.2


def test_tables_of_bfloat16_are_refused():
    model = build(FMConfig(tables=TablesConfig(storage="split")), SCHEMA)
    with pytest.raises(ConfigError, match="user: its table is stored as split"):
        dense_gradients(model)
