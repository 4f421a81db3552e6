"""The embeddings that the original's flags ask for."""

from collections.abc import Sequence

from dlrm.compat.flags import Flags
from dlrm.errors import ConfigError
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import Embeddings, collection
from dlrm.nn.mixed_dim import dimensions, mixed
from dlrm.nn.qr import Operation, QREmbeddings
from dlrm.nn.weighted import WeightedPooling

OPERATIONS: dict[str, Operation] = {"mult": "mult", "add": "add", "concat": "concat"}


def table_dimensions(flags: Flags, rows: Sequence[int]) -> int | list[int]:
    """Return `--arch-sparse-feature-size`, or with `--md-flag` the dimension of each table."""
    dim = flags.arch_sparse_feature_size
    if not flags.md_flag:
        return dim
    temperature, powers_of_two = flags.md_temperature, flags.md_round_dims
    return dimensions(rows, dim, temperature=temperature, powers_of_two=powers_of_two)


def new_embeddings(flags: Flags, rows: Sequence[int], names: Sequence[str]) -> Embeddings:
    """Return embeddings of the tables that the flags describe.

    Raises:
        ConfigError: A compression cannot apply to a table, which is named.

    """
    dim = flags.arch_sparse_feature_size
    if flags.qr_flag:
        return _quotient_remainder(flags, rows, names)
    dims = table_dimensions(flags, rows)
    if not isinstance(dims, int):
        # The original fails where a table stays as it is beside others.
        dims = [d if n > flags.md_threshold else dim for n, d in zip(rows, dims, strict=True)]
        return mixed(rows, dim, dims, names)
    if flags.weighted_pooling == "learned":
        return WeightedPooling(rows, dim, names)
    # With `fixed` weights each row counts once, as without.
    return collection(rows, dim, names)


def _quotient_remainder(flags: Flags, rows: Sequence[int], names: Sequence[str]) -> Embeddings:
    concat = flags.qr_operation == "concat"
    dim = flags.arch_sparse_feature_size * (1 + concat)
    small = [t for t, n in enumerate(rows) if n <= flags.qr_threshold]
    large = [t for t, n in enumerate(rows) if n > flags.qr_threshold]
    if small and concat:
        raise ConfigError(
            f"{names[small[0]]}: with {rows[small[0]]} rows its table is not above --qr-threshold="
            f"{flags.qr_threshold}, and --qr-operation=concat makes the others twice as wide: "
            "lower the threshold, or choose mult or add"
        )
    if not large:
        return collection(rows, dim, names)
    compressed = QREmbeddings(
        [rows[t] for t in large],
        dim,
        [names[t] for t in large],
        operation=OPERATIONS[flags.qr_operation],
        collisions=flags.qr_collisions,
        product="bag",
    )
    if not small:
        return compressed
    plain = collection([rows[t] for t in small], dim, [names[t] for t in small])
    return ConcatEmbeddings([(small, plain), (large, compressed)])
