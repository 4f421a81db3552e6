"""The vectors of a table are those that a model sees, whatever keeps them."""

import pytest
import torch

from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError
from dlrm.models import MODELS, DeepFMConfig, build
from dlrm.nn.embedding import embeddings_of, materialize
from dlrm.nn.quantized import quantize
from dlrm.nn.table_vectors import table_vectors
from dlrm.nn.tables import TablesConfig
from dlrm.schema import DenseFeature, Feature, Schema, Table

ROWS, DIM = 300, 8
SCHEMA = Schema(
    dense=(DenseFeature(name="price"),),
    tables=(Table(name="user", num_embeddings=7), Table(name="item", num_embeddings=ROWS)),
    features=(
        Feature(name="history", table="item", kind="sequence"),
        Feature(name="user", table="user"),
        Feature(name="item", table="item"),
    ),
)
TABLES = {
    "plain": TablesConfig(),
    "bf16": TablesConfig(storage="bf16"),
    "qat": TablesConfig(qat="int4"),
    "qr": TablesConfig(compression="qr"),
    "mixed_dim": TablesConfig(compression="mixed_dim"),
    "hash": TablesConfig(compression="hash", weighted=True),
}


# Rows of so few numbers in bfloat16 are no smaller in four bits, and stay as they are.
@pytest.mark.parametrize(
    ("kind", "quantized"),
    [(kind, quantized) for kind in TABLES for quantized in (False, True)
     if (kind, quantized) != ("bf16", True)],
)  # fmt: skip
@pytest.mark.parametrize("table", ["user", "item"])
def test_they_are_what_the_model_sees(kind, table, quantized):
    torch.manual_seed(0)
    model = materialize(TABLES[kind].build(SCHEMA, DIM)).eval()
    if quantized:
        model = quantize(model, "int4")
    rows = 7 if table == "user" else ROWS
    vectors = table_vectors(model, SCHEMA, table)
    assert vectors.shape == (rows, DIM)
    ids = torch.tensor([0, rows // 2, rows - 1])
    single = Jagged(ids if table == "item" else ids * 0, torch.arange(4))
    columns = [ids, ids * 0] if table == "user" else [ids * 0, ids]
    batch = Batch(torch.zeros(3, 1), torch.stack(columns, 1), torch.zeros(3, 1), single)
    with torch.inference_mode():
        seen = embeddings_of(model)[0](batch)
    for name in ("history", "item") if table == "item" else ("user",):
        torch.testing.assert_close(seen[:, SCHEMA.feature_names.index(name)], vectors[ids])


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_catalogue_have_some(name):
    model = build(MODELS[name](), SCHEMA).eval()
    assert len(table_vectors(model, SCHEMA, "item")) == ROWS


def test_first_order_weights_are_vectors_too():
    model = build(DeepFMConfig(), SCHEMA).eval()
    assert table_vectors(model, SCHEMA, "item", dim=1).shape == (ROWS, 1)
    with pytest.raises(ConfigError, match="table item of 3 numbers, but of 16 or 1"):
        table_vectors(model, SCHEMA, "item", dim=3)
    with pytest.raises(ConfigError, match=r"in embeddings of dlrm\.nn"):
        table_vectors(torch.nn.Linear(2, 1), SCHEMA, "item")
