"""Models that grow with the square of the features, or are not what they promise, say so."""

from dlrm.models.deepfm import DeepFMConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.schema import Feature, Schema, Table
from dlrm.training.growth import warnings_of


def schema(features: int) -> Schema:
    names = [f"c{k}" for k in range(features)]
    return Schema(
        dense=(),
        tables=tuple(Table(name=name, num_embeddings=3) for name in names),
        features=tuple(Feature(name=name, table=name) for name in names),
        labels=("y",),
    )


def test_what_grows_is_said():
    wide = DLRMConfig(top=(512, 64))
    assert warnings_of([wide], schema(20)) == []
    (warning,) = warnings_of([wide, wide, DeepFMConfig()], schema(1000))
    assert "dlrm grows with the square of the features: for these 1,000" in warning
