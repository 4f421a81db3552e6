"""The vectors of all rows of a table, however the embeddings keep them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings, embeddings_of
from dlrm.schema import Feature, Schema

_IDS = 1 << 18
"""Ids of all features that are looked up together."""


def embeddings_with(model: nn.Module, table: str) -> list[tuple[Embeddings, int]]:
    """Return the embeddings of a model that serve a table, and the place of a feature of it.

    Those of the longest vectors come first: what models call first-order weights is a vector, too.
    """
    served = [
        (part, next(f for f, feature in enumerate(part.layout.features) if feature.table == table))
        for part in embeddings_of(model)
        if not part.derived and any(feature.table == table for feature in part.layout.features)
    ]
    return sorted(served, key=lambda pair: -pair[0].dim)


@torch.inference_mode()
def table_vectors(model: nn.Module, schema: Schema, table: str, dim: int | None = None) -> Tensor:
    """Return the vectors (num_embeddings, D) of all ids of a table, float32 on the CPU.

    They are looked up as a model does, so that compressed and quantised tables give what the model
    sees: a row of each id, in the order of the ids.

    The model is in evaluation mode, on any device. Where it has several vectors of an id, `dim`
    chooses among them; None takes the longest.

    Raises:
        ConfigError: The model keeps no such vectors in `dlrm.nn` embeddings.

    """
    served = embeddings_with(model, table)
    dims = sorted({embeddings.dim for embeddings, _ in served}, reverse=True)
    chosen = next((pair for pair in served if dim in (None, pair[0].dim)), None)
    if chosen is None:
        numbers = " or ".join(map(str, dims))
        problem = f" of {dim} numbers, but of {numbers}" if dims else " in embeddings of dlrm.nn"
        raise ConfigError(f"the model has no vectors of the table {table}{problem}")
    embeddings, place = chosen
    feature = embeddings.layout.features[place]
    rows = next(t.num_embeddings for t in schema.tables if t.name == table)
    device = next(iter(embeddings.state_dict().values())).device
    batches = _single_ids(schema, feature, rows)
    return torch.cat([embeddings(batch.to(device))[:, place].float().cpu() for batch in batches])


def _single_ids(schema: Schema, feature: Feature, rows: int) -> Iterator[Batch]:
    """Yield batches whose samples are the ids of one feature in order; others have id 0 or none."""
    step = max(1, _IDS // len(schema.features))
    for first in range(0, rows, step):
        chunk = torch.arange(first, min(first + step, rows))
        ids = torch.zeros(len(chunk), len(schema.one_hot_features), dtype=torch.int64)
        lengths = torch.zeros(len(chunk), len(schema.list_features), dtype=torch.int64)
        if feature.is_list:
            lengths[:, schema.list_features.index(feature)] = 1
        else:
            ids[:, schema.one_hot_features.index(feature)] = chunk
        offsets = torch.cat([lengths.new_zeros(1), lengths.flatten().cumsum(0)])
        values = chunk if feature.is_list else chunk[:0]
        yield Batch(
            torch.zeros(len(chunk), len(schema.dense)),
            ids,
            torch.zeros(len(chunk), schema.num_labels),
            Jagged(values, offsets) if schema.list_features else None,
        )
