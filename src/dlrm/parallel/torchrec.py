"""TorchRec as the engine: its tables, planner, exchange and fused optimizers, at the seam.

Everything else of a model is what it is with our own engine. TorchRec updates rows within the
backward pass: gradients of tables can neither be accumulated nor clipped, and the learning rate has
to be set before that pass. They are summed over ranks, as by our own engine.

Importing this file needs the extra: see `dlrm.parallel.probe`.

Sources: Ivchenko et al., "TorchRec: a PyTorch Domain Library for Recommendation Systems", RecSys
2022; Mudigere et al., arXiv 2104.05158 (kinds of sharding, row-wise Adagrad).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import sqrt
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from dlrm.errors import ConfigError
from dlrm.nn.embedding import Initializer, Storage, constant, pieces, uniform
from dlrm.ops import backend
from dlrm.parallel.exchange import Wire
from dlrm.parallel.fused import Fused
from dlrm.parallel.probe import probe, quiet
from dlrm.parallel.shards import Kind, Shard
from dlrm.parallel.torchrec_parts import FusedCollection, Part, Values, find, narrowed

probe()
with quiet():
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embeddingbag import (
        EmbeddingBagCollectionSharder,
        ShardedEmbeddingBagCollection,
    )
    from torchrec.distributed.types import ShardingEnv, ShardingType
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dlrm.parallel.torchrec_plan import Auto, as_placed, as_planned, widened

# Else gradients were averaged over ranks, in the whole process.
set_gradient_division(False)


class TorchRecCollection(FusedCollection):
    """T tables of dimension D, which TorchRec keeps on the ranks of a group.

    All ranks make it with equal arguments, and call `forward`, backward and `table` in the same
    order. Before each backward pass comes `set_lr`, after it `step`. None of the weights is a
    parameter of the model: DistributedDataParallel and the optimizer of the rest do not see them,
    and no `state_dict` has them; `parts` and `load` are for checkpoints.

    Args:
        rows: Ids that each of the T features may take.
        dim: D.
        names: Name of the feature behind each table, for errors.
        storage: Only fp32.
        draw: As for `EmbeddingCollection`; every rank draws all rows, and keeps its own.
        kinds: How each table is spread; None lets TorchRec's planner choose.
        shards: Of all tables and ranks; their tables are numbers of features.
        auto: What that planner is told.
        wire: To the other ranks.
        optimizer: Of the rows.
        device: Of the tables.

    Raises:
        ConfigError: TorchRec cannot do it, or not as this project does.

    """

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
        kinds: Sequence[Kind] | None = None,
        shards: Sequence[Shard] = (),
        auto: Auto | None = None,
        wire: Wire,
        optimizer: Fused,
        device: torch.device | None = None,
    ):
        super().__init__(rows, dim, names)
        if storage != "fp32":
            raise ConfigError(
                f"tables.storage is {storage}: with the engine torchrec it must be fp32"
            )
        self.optimizer, self.wire = optimizer, wire
        self._device = device or torch.device("cpu")
        self._group = wire.group
        if wire.size == 1:
            self._group = _alone(self._device.type)
        self._width = widened(dim)
        self._keys = [f"t{t}" for t in range(len(self.rows))]
        self._lr = 0.0
        # In a tuple, where nn.Module does not look for parameters.
        self._held = (self._sharded(kinds, shards, auto or Auto()),)
        weights: dict[str, Any] = self._tables.state_dict()
        states = self._tables.fused_optimizer.state_dict()["state"]
        # With the columns that fill them up.
        self._wide = tuple(find(weights, cast(Any, states), self._keys, optimizer))
        self.fill(draw or uniform([sqrt(1 / n) for n in self.rows]))

    def _sharded(
        self, kinds: Sequence[Kind] | None, shards: Sequence[Shard], auto: Auto
    ) -> ShardedEmbeddingBagCollection:
        for name, kind in zip(self.names, kinds or (), strict=False):
            if kind == "column" and self._rowwise:
                raise ConfigError(
                    f"{name}: its columns are sharded, and TorchRec's rowwise_adagrad then keeps a "
                    "number for each part of a row, instead of one a row: choose sharding table "
                    "or row, or optim.name adagrad"
                )
        tables = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=key, embedding_dim=self._width, num_embeddings=n, feature_names=[key]
                )
                for key, n in zip(self._keys, self.rows, strict=True)
            ],
        )
        options = {
            "optimizer": EmbOptimType[f"EXACT_{self.optimizer.name.upper()}"],
            "eps": self.optimizer.eps * self._shrink,
            # Ids are checked here, by an error that names the feature.
            "bounds_check_mode": BoundsCheckMode.NONE,
        }
        sharder = EmbeddingBagCollectionSharder(fused_params=options)
        devices = [] if self._device.type == "cpu" else [self._device]
        # TorchRec draws numbers of its own, which are not used.
        with quiet(), torch.random.fork_rng(devices):
            if kinds is None:
                plan = as_planned(
                    tables, sharder, auto, self.wire.size, self._device, columns=not self._rowwise
                )
            else:
                places = as_placed(kinds, shards, self.rows, self.dim, self.wire.size, self._device)
                plan = dict(zip(self._keys, places, strict=True))
            row_wise = ShardingType.ROW_WISE.value
            self._by_rows = any(each.sharding_type == row_wise for each in plan.values())
            env = ShardingEnv.from_local(self.wire.size, self.wire.rank)
            # With the group from the start it would make another one, by a call of all processes.
            env.process_group = self._group or dist.group.WORLD
            return sharder.shard(tables, cast(Any, plan), env, self._device)

    @property
    def _tables(self) -> ShardedEmbeddingBagCollection:
        return self._held[0]

    @property
    def _rowwise(self) -> bool:
        return self.optimizer.name == "rowwise_adagrad"

    @property
    def _shrink(self) -> float:
        """What the root of a row's sum is smaller by in TorchRec, whose rows may be wider.

        Row-wise Adagrad takes the mean over D columns, TorchRec over those that fill them up too,
        of gradient 0. Learning rate and eps times this make the same step of it.
        """
        return sqrt(self.dim / self._width) if self._rowwise else 1.0

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Look up the rows of each bag; see `Collection.forward`.

        Raises:
            ConfigError: There are per_sample_weights, to which TorchRec sends no gradient back.
            IdError: As there.

        """
        if per_sample_weights is not None:
            raise ConfigError(
                f"{self.names[0]}: with the engine torchrec learned weights of ids get no "
                "gradient: choose tables.weighted False, or the engine of this project"
            )
        if torch.is_inference_mode_enabled():
            # For which FBGEMM's kernels have nothing.
            with torch.inference_mode(False), torch.no_grad():
                return self._pooled(ids, offsets)
        return self._pooled(ids, offsets)

    def _pooled(self, ids: Tensor, offsets: Tensor | None) -> Tensor:
        T, W = len(self.rows), self._width
        values, lengths = _by_table(self.rows_of(ids, offsets), offsets, T)
        B = lengths.shape[1]
        if self._by_rows and self.wire.size > 1:
            # gloo cannot gather the gradients of row-wise tables from batches of different sizes.
            lengths = pad(lengths, (0, max(self.wire.split(B)) - B))
        bags = KeyedJaggedTensor(self._keys, values, lengths=lengths.flatten())
        found = self._tables(bags).wait()
        pooled = found.values().view(-1, T, W)
        if (keys := found.keys()) != self._keys:
            order = torch.tensor([keys.index(key) for key in self._keys], device=pooled.device)
            pooled = pooled.index_select(1, order)
        return pooled[:B, :, : self.dim]

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the row of each id; see `Collection.each`.

        Raises:
            ConfigError: There are bags: TorchRec adds them up.

        """
        if offsets is not None:
            raise ConfigError(
                f"{self.names[0]}: the rows of a bag are needed one by one, and the engine "
                "torchrec gives their sums alone: choose another tables.compression, or "
                "tables.operation add, or the engine of this project"
            )
        return self.forward(ids)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next backward pass."""
        self._lr = lr * self._shrink
        optimizer = self._tables.fused_optimizer
        for group in cast(list[dict[str, Any]], optimizer.param_groups):
            group["lr"] = self._lr
        # Steps of fused optimizers only pass the learning rate on.
        optimizer.step()

    @torch.no_grad()
    def step(self) -> None:
        """Update replicated tables, which the backward pass has left a gradient."""
        weights = dict(self._tables.named_parameters())
        for part in self._wide:
            if not part.replicated:
                continue
            weight = weights[f"embedding_bags.t{part.table}.weight"]
            if weight.grad is None:
                continue
            rows = torch.arange(weight.shape[0], device=self._device)
            # DistributedDataParallel, which TorchRec has for these, has made a mean of it.
            grad = weight.grad * self.wire.size
            kernels, lr, eps = backend(part.weight), self._lr, self.optimizer.eps * self._shrink
            match self.optimizer.name:
                case "sgd":
                    kernels.sgd_update(part.weight, rows, grad, lr)
                case "adagrad":
                    total = part.state["sum"]
                    kernels.adagrad_update(part.weight, total, rows, grad, lr, eps)
                case "rowwise_adagrad":
                    total = part.state["sum"]
                    kernels.rowwise_adagrad_update(part.weight, total, rows, grad, lr, eps)
        self._tables.zero_grad()

    def parts(self) -> Iterator[Part]:
        """Yield what this rank holds; state is a copy where TorchRec measures it otherwise."""
        for part in self._wide:
            yield narrowed(part, self.dim, self._shrink)

    @torch.no_grad()
    def load(self, weights: Values, sums: Values | None = None) -> None:
        """Overwrite what this rank holds.

        Args:
            weights: Of the tables.
            sums: State of Adagrad; None leaves it as it is.

        """
        for wide, part in zip(self._wide, self.parts(), strict=True):
            part.weight.copy_(weights(*part.range))
            if sums is not None and part.state:
                new, old = sums(*part.range), wide.state["sum"]
                if new.dim() == 1:
                    old.copy_(new * self._shrink**2)
                else:
                    part.state["sum"].copy_(new)

    @torch.no_grad()
    def fill(self, draw: Initializer) -> None:
        """Overwrite all tables; every rank draws all rows, so that generators stay in step."""
        parts = list(self.parts())
        for t, n in enumerate(self.rows):
            ours = [part for part in parts if part.table == t]
            for first, last in pieces(n, self.dim):
                values = torch.empty(last - first, self.dim)
                draw(values, t, first)
                for part in ours:
                    _, first_row, last_row, left, right = part.range
                    begin, end = max(first, first_row), min(last, last_row)
                    if begin < end:
                        part.weight[begin - first_row : end - first_row] = values[
                            begin - first : end - first, left:right
                        ]

    def start_at_zero(self) -> None:
        """Make every vector 0."""
        self.fill(constant(0.0))

    @torch.no_grad()
    def table(self, t: int) -> Tensor:
        """Return the (rows, D) numbers of table t, a copy, to every rank."""
        whole = torch.zeros(self.rows[t], self.dim, device=self._device)
        replicated = False
        for part in self.parts():
            if part.table == t:
                _, first_row, last_row, left, right = part.range
                whole[first_row:last_row, left:right] = part.weight
                replicated = part.replicated
        if not replicated:
            dist.all_reduce(whole, group=self._group)
        return whole

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables, on all ranks together."""
        return sum(self.rows) * self.dim * 4


def _by_table(rows: Tensor, offsets: Tensor | None, T: int) -> tuple[Tensor, Tensor]:
    """Order ids by table, then by sample, as TorchRec wants them.

    Args:
        rows: (B, T) when one-hot, else (L,).
        offsets: (B*T + 1,) or None.
        T: Tables.

    Returns:
        The ids (L,), and the length of each bag (T, B) int32.

    """
    if offsets is None:
        ones = torch.ones(T, rows.shape[0], dtype=torch.int32, device=rows.device)
        return rows.t().reshape(-1), ones
    lengths = offsets.diff().to(torch.int32)
    bags = torch.arange(lengths.shape[0], dtype=torch.int32, device=rows.device)
    order = bags.view(-1, T).t().reshape(-1)
    lengths, values, _ = torch.ops.fbgemm.permute_1D_sparse_data(
        order, lengths, rows, None, rows.shape[0]
    )
    return values, lengths.view(T, -1)


@cache
def _alone(device: str) -> dist.ProcessGroup:
    """Return a group of this process, which TorchRec needs even where there is no other."""
    if dist.is_initialized():
        alone = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    else:
        kind = "gloo" if device == "cpu" else "nccl"
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(kind, store=store, rank=0, world_size=1)
        alone = dist.group.WORLD
    assert isinstance(alone, dist.ProcessGroup)
    return alone
