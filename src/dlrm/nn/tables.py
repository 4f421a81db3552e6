"""The config of embedding tables: how they are stored and compressed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from dlrm.errors import ConfigError
from dlrm.nn.codes import BITS, row_bytes
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, Layout, Storage
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.initializer import fresh_rows
from dlrm.nn.mixed_dim import dimensions, mixed
from dlrm.nn.qat import QAT, QATEmbeddings
from dlrm.nn.qr import Operation, QREmbeddings
from dlrm.schema import Schema

Compression = Literal["none", "qr", "mixed_dim", "hash"]

_OPTIONS: dict[str, tuple[Compression, ...]] = {
    "qat": ("none",),
    "threshold": ("qr", "mixed_dim", "hash"),
    "collisions": ("qr", "hash"),
    "operation": ("qr",),
    "temperature": ("mixed_dim",),
    "powers_of_two": ("mixed_dim",),
    "hashes": ("hash",),
    "weighted": ("hash",),
}
"""Field of the config -> the compressions that it says something to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesConfig:
    """Storage and compression of the embedding tables of a model.

    Models with first-order weights, such as FM, compress those too, as far as they can be: see
    `build_first_order`.
    """

    storage: Storage = "fp32"
    """bf16 halves them and rounds updates at random, bf16_nearest to the nearest, which loses small
    ones; split keeps both halves of a float32 apart, so that lookups read half as much and nothing
    is lost."""
    init_std: float = 0.0
    """Standard deviation of the fresh rows; 0 draws uniformly from +-sqrt(1 / rows)."""
    qat: QAT = "none"
    """Train for rows of so few bits: lookups round them to the codes that `dlrm compress` and
    `quantize` then make of them. Rows that codes make no smaller stay as they are."""
    compression: Compression = "none"
    """qr makes two small tables of a large one, mixed_dim gives large tables short rows, and hash
    lets ids share rows."""
    threshold: int = 200
    """Tables with at most so many rows stay as they are."""
    collisions: int = 4
    """qr and hash: ids for each row of the smaller table."""
    operation: Operation = "mult"
    """qr: how the two vectors meet."""
    temperature: float = 0.3
    """mixed_dim: the higher, from 0 to 1, the shorter are the rows of large tables."""
    powers_of_two: bool = True
    """mixed_dim: round dimensions to powers of two."""
    hashes: int = 2
    """hash: rows that are added up for an id."""
    weighted: bool = False
    """hash: each id learns a weight for each of its rows."""

    def __post_init__(self) -> None:
        if self.init_std < 0:
            raise ConfigError(f"tables.init_std is {self.init_std}: it must not be negative")
        if self.threshold < 0:
            raise ConfigError(f"tables.threshold is {self.threshold}: it must not be negative")
        if self.collisions < 2:
            raise ConfigError(f"tables.collisions is {self.collisions}: at least 2 save anything")
        if self.hashes < 1:
            raise ConfigError(f"tables.hashes is {self.hashes}: at least 1 is needed")
        if not 0 < self.temperature <= 1:
            raise ConfigError(
                f"tables.temperature is {self.temperature}: expected more than 0, and at most 1"
            )
        for field in fields(self):
            meant = _OPTIONS.get(field.name, (self.compression,))
            value = getattr(self, field.name)
            if value != field.default and self.compression not in meant:
                raise ConfigError(
                    f"tables.{field.name} is {value}, but says nothing to tables.compression "
                    f"{self.compression}: it is for {' and '.join(meant)}"
                )

    def build(self, schema: Schema, dim: int, names: Sequence[str] | None = None) -> Embeddings:
        """Return embeddings of categorical features, whose tables have no memory yet.

        `names` of features are in the order in which vectors come out; None for all.

        Raises:
            ConfigError: The compression cannot apply to a table, which is named.

        """
        return self._build(schema, Layout.of(schema, names), dim, first_order=dim == 1)

    def build_first_order(self, schema: Schema, names: Sequence[str] | None = None) -> Embeddings:
        """Return the first-order weights of categorical features: one of each id and label.

        They are compressed as far as such numbers can be: mixed_dim leaves them as they are, concat
        multiplies, hashed ones have no weights, and none has to be large.

        The K labels are the dimension.

        Raises:
            ConfigError: As for `build`.

        """
        return self._build(schema, Layout.of(schema, names), schema.num_labels, first_order=True)

    def _build(self, schema: Schema, layout: Layout, dim: int, *, first_order: bool) -> Embeddings:
        large = {table.name for table in layout.tables if table.num_embeddings > self.threshold}
        if self.compression == "none" or (
            first_order and (self.compression == "mixed_dim" or not large)
        ):
            return self._plain(layout, dim)
        if not large:
            largest = max(layout.tables, key=lambda table: table.num_embeddings)
            raise ConfigError(
                f"tables.compression {self.compression} applies to no table: the largest, "
                f"{largest.name}, has {largest.num_embeddings} rows, and tables.threshold is "
                f"{self.threshold}"
            )
        if self.compression == "mixed_dim":
            return self._mixed_dim(schema, layout, dim, large)
        of_large, of_small = (
            [feature.name for feature in layout.features if (feature.table in large) == is_large]
            for is_large in (True, False)
        )
        part = self._compressed(Layout.of(schema, of_large), dim, first_order=first_order)
        if not of_small:
            return part
        plain = self._plain(Layout.of(schema, of_small), dim)
        return ConcatEmbeddings(layout, [plain, part])

    def _plain(self, layout: Layout, dim: int) -> Embeddings:
        initializer = fresh_rows(layout, self.init_std or None)
        stored_bytes = dim * (4 if self.storage == "fp32" else 2)
        if self.qat != "none" and row_bytes(dim, BITS[self.qat]) < stored_bytes:
            return QATEmbeddings(
                layout, dim, codes=self.qat, storage=self.storage, initializer=initializer
            )
        return EmbeddingCollection(layout, dim, storage=self.storage, initializer=initializer)

    def _compressed(self, layout: Layout, dim: int, *, first_order: bool) -> Embeddings:
        std = self.init_std or None
        if self.compression == "qr":
            for table in layout.tables:
                n = table.num_embeddings
                quotients = -(-n // self.collisions)
                if quotients + self.collisions >= n:
                    raise ConfigError(
                        f"{table.name}: a table of {n} rows becomes {quotients} quotients and "
                        f"{self.collisions} remainders with tables.collisions {self.collisions}, "
                        "which saves nothing: lower the collisions, or raise tables.threshold to "
                        "keep the table as it is"
                    )
            return QREmbeddings(
                layout,
                dim,
                operation="mult" if first_order else self.operation,
                collisions=self.collisions,
                storage=self.storage,
                init_std=std,
            )
        return HashedEmbeddings(
            layout,
            dim,
            collisions=self.collisions,
            hashes=self.hashes,
            weighted=self.weighted and not first_order,
            storage=self.storage,
            init_std=std,
        )

    def _mixed_dim(self, schema: Schema, layout: Layout, dim: int, large: set[str]) -> Embeddings:
        chosen = dimensions(
            layout.sizes, dim, temperature=self.temperature, powers_of_two=self.powers_of_two
        )
        dims = {
            table.name: d if table.name in large else dim
            for table, d in zip(layout.tables, chosen, strict=True)
        }
        if min(dims.values()) == dim:
            first = next(table.name for table in layout.tables if table.name in large)
            raise ConfigError(
                f"{first}: mixed_dim leaves its rows at {dim} numbers, and those of all "
                "other tables: raise tables.temperature, or choose another tables.compression"
            )
        names = [feature.name for feature in layout.features]
        return mixed(schema, names, dim, dims, storage=self.storage, init_std=self.init_std or None)


def tables_of(model: object) -> TablesConfig:
    """Return how the tables of a model's config are stored; one of the user's may not say it."""
    return getattr(model, "tables", TablesConfig())
