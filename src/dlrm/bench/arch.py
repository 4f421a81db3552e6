"""Model sizes that are measured: those of the paper, of MLPerf and of the original's benchmarks."""

from dataclasses import dataclass, field, replace

from dlrm.data.split import kaggle_sizes
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import Storage
from dlrm.schema import Schema

NUM_DENSE = 13


@dataclass(frozen=True, slots=True)
class Arch:
    """A model and the tables it stands on."""

    name: str
    num_embeddings: tuple[int, ...]
    """Rows of each of the T tables."""
    model: DLRMConfig
    num_dense: int = NUM_DENSE
    """N."""
    pooling: int = 1
    """Ids of a sample in each table."""
    varied: bool = False
    """Whether a sample has any number of ids from 1 to `pooling`."""
    batches: str = "128,2048,16384"
    """Sizes of batches that it is measured with, where nothing else is said."""
    samples: int = 0
    """Samples of the published run; 0 for none."""
    published_s: dict[str, float] = field(default_factory=dict)
    """Machine -> seconds that they took there, as published."""

    @property
    def schema(self) -> Schema:
        """Dense features and one categorical feature a table, of bags where ids are pooled."""
        kind = "one_hot" if self.pooling == 1 else "bag"
        return Schema.one_hot(self.num_dense, self.num_embeddings, kind=kind)

    @property
    def bottom(self) -> tuple[int, ...]:
        """Sizes of the bottom MLP, inputs and outputs included."""
        return (self.num_dense, *self.model.bottom, self.model.dim)

    @property
    def top(self) -> tuple[int, ...]:
        """Sizes of the top MLP over dot products of pairs, inputs and the logit included."""
        vectors = len(self.num_embeddings) + 1
        return (self.model.dim + vectors * (vectors - 1) // 2, *self.model.top, 1)

    @property
    def rows_total(self) -> int:
        """Rows of all tables."""
        return sum(self.num_embeddings)

    def scaled(self, share: float) -> "Arch":
        """Return the same model over tables of a share of the rows, one row at least.

        Raises:
            ConfigError: The share is not above 0 and at most 1.

        """
        if not 0 < share <= 1:
            raise ConfigError(f"rows-scale is {share}, expected above 0 and at most 1")
        sizes = tuple(max(1, round(n * share)) for n in self.num_embeddings)
        return replace(self, num_embeddings=sizes)

    def stored(self, storage: Storage) -> "Arch":
        """Return the same model with its tables stored in another way."""
        tables = replace(self.model.tables, storage=storage)
        return replace(self, model=replace(self.model, tables=tables))


# Distinct values of C1 ... C26 in the data sets, as the original counts them.
_KAGGLE = """1460 583 10131227 2202608 305 24 12517 633 3 93145 5683 8351593 3194 27 14992 5461306
10 5652 2173 4 7046547 18 15 286181 105 142572"""
# At most 40M rows a table, as MLPerf has it.
_TERABYTE = """39884406 39043 17289 7420 20263 3 7120 1543 63 38532951 2953546 403346 10 2208 11938
155 4 976 14 39979771 25641295 39664984 585935 12972 108 36"""

_SAMPLE = DLRMConfig(dim=64, bottom=(512,), top=(1024, 1024, 1024))

ARCHS = {
    "criteo-kaggle": Arch(
        "criteo-kaggle",
        tuple(map(int, _KAGGLE.split())),
        DLRMConfig(dim=16, bottom=(512, 256, 64), top=(512, 256)),
    ),
    "criteo-terabyte": Arch(
        "criteo-terabyte",
        tuple(map(int, _TERABYTE.split())),
        DLRMConfig(dim=128, bottom=(512, 256), top=(1024, 1024, 512, 256)),
    ),
    "original-random": Arch(
        "original-random",
        (1_000_000,) * 8,
        _SAMPLE,
        num_dense=512,
        pooling=100,
        varied=True,
        batches="2048",
    ),
    "figure6": Arch(
        "figure6",
        (1_000_000,) * 8,
        _SAMPLE,
        num_dense=512,
        batches="1024",
        samples=2_048_000,
        published_s={"dual-socket Xeon, PyTorch": 256.0, "V100": 62.0},
    ),
}
"""Name -> model and tables. Those of criteo-terabyte take 96 GB: use a share of their rows.

original-random is the random model of the original's benchmark script, with up to 100 ids a sample
in each table; figure6 the model that Figure 6 of the paper profiles, in which each of eight
categorical features has one.
"""

SAMPLES: dict[str, tuple[int, int, int]] = {
    "criteo-kaggle": kaggle_sizes(45_840_617),
    "criteo-terabyte": (4_195_197_692, 89_137_318, 89_137_319),
}
"""Public data set -> rows of train, validation and test."""
