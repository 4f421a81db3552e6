"""What is said of a model before it is trained: that it is huge, or not what its name promises."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from dlrm.data.features.column import CROSS_NAME
from dlrm.models import ModelConfig
from dlrm.models.wide_deep import WideDeepConfig
from dlrm.schema import Schema

MOST = 50_000_000
"""Parameters outside tables up to which nothing is said: with gradients and state, some 600 MB."""


def warnings_of(models: Iterable[ModelConfig], schema: Schema) -> list[str]:
    """Return what users should know of these models for data of this schema, each line once."""
    return list(dict.fromkeys(line for model in models for line in _warnings(model, schema)))


def _warnings(config: ModelConfig, schema: Schema) -> Iterator[str]:
    features = schema.features
    if len(features) >= 2 and (whole := _dense_parameters(config, schema)) > MOST:
        half = features[: len(features) // 2]
        tables = {feature.table for feature in half}
        half_tables = tuple(table for table in schema.tables if table.name in tables)
        # Half of the features leave a quarter of what grows with their square.
        if whole >= 3 * _dense_parameters(
            config, replace(schema, features=half, tables=half_tables)
        ):
            yield (
                f"{config.name} grows with the square of the features: for these "
                f"{len(features):,} it has {whole:,} parameters outside tables, some "
                f"{12 * whole / 1e9:.1f} GB in training. --model deepfm grows with the features "
                "alone"
            )
    crossed = any(CROSS_NAME in name for name in schema.feature_names)
    if isinstance(config, WideDeepConfig) and not config.crosses and not crossed:
        yield (
            "wide_deep without --model.crosses: its wide part is the first-order weights, and "
            "pairs are left to the MLP"
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
