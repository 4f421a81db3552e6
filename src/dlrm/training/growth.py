"""Models that grow with the square of the features, said before one takes all memory."""

from dataclasses import replace

import torch

from dlrm.models import ModelConfig
from dlrm.schema import Schema

MOST = 50_000_000
"""Parameters outside tables up to which nothing is said: with gradients and state, some 600 MB."""


def growth(config: ModelConfig, schema: Schema) -> str | None:
    """Say that a model grows with the square of the features; None where it is small or does not.

    Args:
        config: The model.
        schema: Of its data.

    """
    features = schema.features
    if len(features) < 2 or (whole := _dense_parameters(config, schema)) <= MOST:
        return None
    half = features[: len(features) // 2]
    tables = {feature.table for feature in half}
    smaller = replace(
        schema,
        features=half,
        tables=tuple(table for table in schema.tables if table.name in tables),
    )
    if whole < 3 * _dense_parameters(config, smaller):
        return None
    return (
        f"{config.name} grows with the square of the features: for these {len(features):,} it has "
        f"{whole:,} parameters outside tables, some {12 * whole / 1e9:.1f} GB in training. "
        "--model deepfm grows with the features alone"
    )


def _dense_parameters(config: ModelConfig, schema: Schema) -> int:
    """Return how many parameters a model has outside tables."""
    with torch.device("meta"):
        model = config.build(schema)
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith("embeddings.")
    )
