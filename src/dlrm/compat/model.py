"""The DLRM that the original's flags ask for, its tables spread over the processes of the run."""

from collections.abc import Sequence

from torch import Tensor, nn

from dlrm.compat.flags import Flags
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import (
    Block,
    Collection,
    EmbeddingCollection,
    Embeddings,
    Layout,
    Storage,
    materialize,
)
from dlrm.nn.initializer import constant
from dlrm.nn.mixed_dim import dimensions, mixed
from dlrm.nn.qr import QREmbeddings
from dlrm.nn.quantized import QuantizedCollection
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import parallelize
from dlrm.parallel.world import World
from dlrm.planning.placement import plan
from dlrm.planning.tables import contents
from dlrm.schema import Schema

OPTIMIZERS = {"sgd": "sgd", "adagrad": "adagrad", "rwsadagrad": "rowwise_adagrad"}
"""The original's name of an optimizer -> this project's."""


def new_model(flags: Flags, schema: Schema, world: World) -> DLRM:
    """Return a DLRM of the sizes that the flags name, each table whole on one process."""
    dim = flags.arch_sparse_feature_size
    concat = flags.qr_flag and flags.qr_operation == "concat"
    if flags.arch_mlp_bot[-1] != dim * (1 + concat):
        raise ConfigError(
            f"--arch-sparse-feature-size={dim} does not match the last "
            f"dimension of --arch-mlp-bot, {flags.arch_mlp_bot[-1]}"
            + (", which must be twice as large with --qr-operation=concat" if concat else "")
        )
    if flags.arch_mlp_top[-1] != 1:
        last = flags.arch_mlp_top[-1]
        raise ConfigError(f"--arch-mlp-top ends in {last}, expected 1: one probability a sample")

    embeddings = new_embeddings(flags, schema)
    config = DLRMConfig(
        dim=embeddings.dim,
        bottom=flags.arch_mlp_bot[1:-1],
        top=flags.arch_mlp_top[:-1],
        interaction=flags.arch_interaction_op,
        self_interaction=flags.arch_interaction_itself,
    )
    model = DLRM(schema, config, embeddings=embeddings)
    if world.size > 1:
        placed = plan(
            contents(model, OPTIMIZERS[flags.optimizer]).tables, world.size, sharding="table"
        )
        parallelize(model, placed, Exchange(world.rank, world.size, world.exchange))
    return materialize(model)


def table_dimensions(flags: Flags, sizes: Sequence[int]) -> int | list[int]:
    """Return `--arch-sparse-feature-size`, or with `--md-flag` the dimension of each table."""
    dim = flags.arch_sparse_feature_size
    if not flags.md_flag:
        return dim
    temperature, powers_of_two = flags.md_temperature, flags.md_round_dims
    return dimensions(sizes, dim, temperature=temperature, powers_of_two=powers_of_two)


def new_embeddings(flags: Flags, schema: Schema) -> Embeddings:
    """Return embeddings of the tables that the flags describe, which have no memory yet.

    Raises:
        ConfigError: A compression cannot apply to a table, which is named.

    """
    dim = flags.arch_sparse_feature_size
    if flags.qr_flag:
        return _quotient_remainder(flags, schema)
    dims = table_dimensions(flags, schema.num_embeddings)
    if not isinstance(dims, int):
        # The original fails where a table stays as it is beside others.
        table_dims = {
            table.name: d if table.num_embeddings > flags.md_threshold else dim
            for table, d in zip(schema.tables, dims, strict=True)
        }
        return mixed(schema, schema.feature_names, dim, table_dims)
    if flags.weighted_pooling == "learned":
        return WeightedPooling(Layout.of(schema), dim)
    # With `fixed` weights each row counts once, as without.
    return EmbeddingCollection(Layout.of(schema), dim)


def _quotient_remainder(flags: Flags, schema: Schema) -> Embeddings:
    concat = flags.qr_operation == "concat"
    dim = flags.arch_sparse_feature_size * (1 + concat)
    sizes = {table.name: table.num_embeddings for table in schema.tables}
    small = [name for name, n in sizes.items() if n <= flags.qr_threshold]
    large = [name for name, n in sizes.items() if n > flags.qr_threshold]
    if small and concat:
        raise ConfigError(
            f"{small[0]}: with {sizes[small[0]]} rows its table is not above --qr-threshold="
            f"{flags.qr_threshold}, and --qr-operation=concat makes the others twice as wide: "
            "lower the threshold, or choose mult or add"
        )
    if not large:
        return EmbeddingCollection(Layout.of(schema), dim)
    compressed = QREmbeddings(
        Layout.of(schema, large),
        dim,
        operation=flags.qr_operation,
        collisions=flags.qr_collisions,
        product="bag",
    )
    if not small:
        return compressed
    plain = EmbeddingCollection(Layout.of(schema, small), dim)
    return ConcatEmbeddings(Layout.of(schema), [plain, compressed])


class WeightedPooling(Embeddings):
    """`e[bag] = sum of f[i] v[i]` over the ids i of a bag; all factors f start at 1."""

    tables: Collection | QuantizedCollection
    """The tables, quantised or not"""
    factors: Collection
    """(1,) a row"""

    def __init__(self, layout: Layout, dim: int, *, storage: Storage = "fp32"):
        super().__init__(layout, dim)
        self.tables = EmbeddingCollection(layout, dim, storage=storage)
        self.factors = EmbeddingCollection(layout, 1, initializer=constant(1.0))

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up rows and their factors; see `Embeddings.pooled`."""
        assert per_sample_weights is None
        return self.tables.pooled(block, self.factors.vectors(block).squeeze(-1))

    def vectors(self, block: Block) -> Tensor:
        """Look up rows times their factors, one by one; see `Embeddings.vectors`."""
        return self.tables.vectors(block) * self.factors.vectors(block)

    def start_at_zero(self) -> None:
        """Make every vector 0; factors stay 1, or the gradient were 0 for ever."""
        self.tables.start_at_zero()


def spread_collections(model: nn.Module) -> list[ShardedCollection]:
    """Return all collections that are spread."""
    return [module for module in model.modules() if isinstance(module, ShardedCollection)]
