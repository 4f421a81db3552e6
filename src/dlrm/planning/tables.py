"""The tables of a model, and what else it has to keep.

A model whose tables have no memory yet says as much as any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.optim import Declaration, find
from dlrm.planning.shards import Table
from dlrm.schema import Feature


@dataclass(frozen=True, slots=True)
class Contents:
    """Sizes of a model and its optimizer state: bytes, and numbers of parameters."""

    tables: tuple[Table, ...]
    """Tables of all collections, in the order of the model."""
    parameters: int
    """Numbers that are learnt, those of the tables included."""
    weights_bytes: int
    """Bytes of the tables, without optimizer state."""
    dense_bytes: int
    """Bytes of all other parameters."""
    dense_state_bytes: int
    """Bytes that the optimizer keeps of them, and once for each parameter group."""
    buffers_bytes: int
    """Bytes of what is kept but not learnt, such as the statistics of batch norms."""

    @property
    def tables_bytes(self) -> int:
        """Bytes of the tables, with optimizer state."""
        return sum(table.size_bytes for table in self.tables)

    @property
    def model_bytes(self) -> int:
        """Bytes of everything but optimizer state."""
        return self.weights_bytes + self.dense_bytes + self.buffers_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        return self.tables_bytes - self.weights_bytes + self.dense_state_bytes

    @property
    def dense_total_bytes(self) -> int:
        """Bytes of everything but the tables, which each rank of a run has."""
        return self.dense_bytes + self.dense_state_bytes + self.buffers_bytes


def contents(
    model: nn.Module, optimizer: str, pooling: Mapping[str, float] | None = None
) -> Contents:
    """Return what a model, with memory or without, keeps when an optimizer trains it.

    `pooling` has the mean ids of a sample by feature; 1 where none is given.

    Raises:
        ConfigError: There is no such optimizer.

    """
    declaration = find(optimizer).declaration
    parameters = {id(p): p for p in model.parameters()}
    dense = dict(parameters)
    tables: list[Table] = []
    weights_bytes = 0
    collections = _collections(model)
    for path, collection, hashes in collections:
        dense.pop(id(collection.weight), None)
        weights_bytes += collection.weight.nbytes
        tables += _tables(path, collection, declaration, pooling or {}, hashes)
    groups = len(collections) + bool(dense)
    names = set(model.state_dict())
    return Contents(
        tables=tuple(tables),
        parameters=sum(p.numel() for p in parameters.values()),
        weights_bytes=weights_bytes,
        dense_bytes=sum(p.nbytes for p in dense.values()),
        dense_state_bytes=declaration.dense_state_bytes(sum(p.numel() for p in dense.values()))
        + declaration.state_bytes_per_group * groups,
        buffers_bytes=sum(b.nbytes for name, b in model.named_buffers() if name in names),
    )


def _collections(model: nn.Module) -> list[tuple[str, EmbeddingCollection, int]]:
    """Return path and collection of all tables, and into how many rows an id is hashed, or 0."""
    hashed = {
        id(module.tables): module.hashes
        for module in model.modules()
        if isinstance(module, HashedEmbeddings)
    }
    return [
        (path, module, hashed.get(id(module), 0))
        for path, module in model.named_modules()
        if isinstance(module, EmbeddingCollection)
    ]


def _tables(
    path: str,
    collection: EmbeddingCollection,
    declaration: Declaration,
    pooling: Mapping[str, float],
    hashes: int,
) -> list[Table]:
    layout, dim = collection.layout, collection.dim
    # Features that share a table look it up together.
    sharing: list[list[Feature]] = [[] for _ in layout.tables]
    for feature, t in zip(layout.features, layout.table_of, strict=True):
        sharing[t].append(feature)
    row_bytes = dim * collection.weight.itemsize
    row_bytes += declaration.row_state_bytes(dim, collection.storage)
    return [
        Table(
            name=f"{path}/{table.name}",
            num_embeddings=table.num_embeddings,
            dim=dim,
            row_bytes=row_bytes,
            pooling=sum(pooling.get(f.name, 1.0) * (hashes or 1) for f in sharing[t]),
            may_replicate=collection.storage != "bf16",
            shared_row_bytes=declaration.row_state_bytes(0),
            features=len(sharing[t]),
            # Rows of a hashed id are a list, too.
            lists=len(sharing[t]) if hashes else sum(f.is_list for f in sharing[t]),
        )
        for t, table in enumerate(layout.tables)
    ]
