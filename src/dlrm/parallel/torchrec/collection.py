"""TorchRec as the engine: its tables, exchange and fused optimizers, at the seam.

Everything else of a model is what it is with our own engine. TorchRec updates rows within the
backward pass: gradients of tables can neither be accumulated nor clipped, and the learning rate has
to be set before that pass. They are summed over ranks, as by our own engine.

Importing this file needs the extra: see `dlrm.parallel.torchrec.probe`.

Sources: Ivchenko et al., "TorchRec: a PyTorch Domain Library for Recommendation Systems", RecSys
2022; Mudigere et al., arXiv 2104.05158 (kinds of sharding, row-wise Adagrad).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Block, Layout, Storage
from dlrm.nn.initializer import Initializer
from dlrm.nn.layout import LISTS, ONE_HOT
from dlrm.ops import backend
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.torchrec.fused import Fused, FusedCollection
from dlrm.parallel.torchrec.probe import probe, quiet
from dlrm.parallel.unit import LocalShard
from dlrm.planning.shards import Kind, Shard

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

    from dlrm.parallel.torchrec.placement import as_placed, widened

# Else gradients were averaged over ranks, in the whole process.
set_gradient_division(False)


class TorchRecCollection(FusedCollection):
    """Tables of dimension D, which TorchRec keeps on the ranks of a group.

    All ranks make it with equal arguments, and call `forward`, backward and `table` in the same
    order. Before each backward pass comes `set_lr`, after it `step`. None of the weights is a
    parameter of the model: its optimizer does not see them, and no `state_dict` has them;
    checkpoints take `local_shards` and `load_state`.

    Arguments are those of `ShardedCollection`, and the optimizer of the rows; storage must be fp32.
    `chosen` says that a plan has chosen the kinds, which then change where TorchRec cannot follow.

    Raises:
        ConfigError: TorchRec cannot do it, or not as this project does.

    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        storage: Storage = "fp32",
        initializer: Initializer | None = None,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        exchange: Exchange,
        optimizer: Fused,
        chosen: bool = False,
    ):
        super().__init__(layout, dim, storage=storage, initializer=initializer)
        if storage != "fp32":
            raise ConfigError(
                f"tables.storage is {storage}: with the engine torchrec it must be fp32"
            )
        if "column" in kinds and optimizer.has_row_sum:
            if not chosen:
                raise ConfigError(
                    f"{layout.tables[kinds.index('column')].name}: its columns are sharded, and "
                    f"TorchRec's {optimizer.name} then keeps a number for each part of a row, "
                    "instead of one a row: choose sharding table or row, or optim.name adagrad"
                )
            kinds = ["table" if kind == "column" else kind for kind in kinds]
        self.optimizer, self.exchange = optimizer, exchange
        self._kinds, self._shards = kinds, shards
        self._width = widened(dim)
        self._table_keys = [f"t{t}" for t in range(len(layout.tables))]
        self._features = layout.groups[ONE_HOT] + layout.groups[LISTS]
        self._keys = [f"f{f}" for f in self._features]
        single, several = (set(layout.table_indices(group)) for group in (ONE_HOT, LISTS))
        self._in_both = sorted(single & several)
        """Tables that one-hot features and lists look up."""
        self._lr = 0.0
        # In a tuple, where nn.Module does not look for parameters.
        self._held: tuple[ShardedEmbeddingBagCollection, ...] = ()
        self._wide: list[LocalShard] = []
        """What this rank has, with the columns that fill it up."""

    @property
    def materialized(self) -> bool:
        """Whether the tables have memory."""
        return bool(self._held)

    def materialize(self, device: torch.device) -> None:
        """Let TorchRec make the tables, and draw their first numbers; see `Collection`."""
        self._held = (self._sharded(device),)
        self._wide = list(self._find_parts())
        self.fill(self.initializer)

    def _find_parts(self) -> Iterator[LocalShard]:
        """Yield the parts of tables that this rank has in TorchRec, every number of them 0."""
        weights: dict[str, Any] = self._tables.state_dict()
        states = cast(Any, self._tables.fused_optimizer.state_dict()["state"])
        for t, key in enumerate(self._table_keys):
            whole = weights[path := f"embedding_bags.{key}.weight"]
            copied = not hasattr(whole, "local_shards")
            sums = states.get(path, {}).get(f"{key}.momentum1")
            for number, local in enumerate([None] if copied else whole.local_shards()):
                weight = (whole if local is None else local.tensor).detach().zero_()
                row, column = (0, 0) if local is None else local.metadata.shard_offsets
                rows, columns = weight.shape
                state = {}
                if copied and self.optimizer.has_sum:
                    # TorchRec updates no copies: `step` does.
                    shape = weight.shape[:1] if self.optimizer.has_row_sum else weight.shape
                    state = {"sum": weight.new_zeros(shape)}
                elif sums is not None:
                    state = {"sum": sums.local_shards()[number].tensor}
                shard = Shard(t, self.exchange.rank, row, row + rows, column, column + columns)
                yield LocalShard(f"parts.{t}.{number}", weight, shard, 0, copied, state)

    def _sharded(self, device: torch.device) -> ShardedEmbeddingBagCollection:
        layout, world = self.layout, self.exchange.size
        tables = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=key,
                    embedding_dim=self._width,
                    num_embeddings=n,
                    feature_names=[
                        f"f{f}" for f, table in enumerate(layout.table_of) if table == t
                    ],
                )
                for t, (key, n) in enumerate(zip(self._table_keys, layout.sizes, strict=True))
            ],
        )
        options = {
            "optimizer": EmbOptimType[self.optimizer.fbgemm],
            "eps": self.optimizer.eps * self._shrink,
            # Ids are checked here, by an error that names the feature.
            "bounds_check_mode": BoundsCheckMode.NONE,
        }
        sharder = EmbeddingBagCollectionSharder(fused_params=options)
        devices = [] if device.type == "cpu" else [device]
        # TorchRec draws numbers of its own, which are not used.
        with quiet(), torch.random.fork_rng(devices):
            places = as_placed(self._kinds, self._shards, layout.sizes, self.dim, world, device)
            plan = dict(zip(self._table_keys, places, strict=True))
            row_wise = ShardingType.ROW_WISE.value
            self._by_rows = any(sharding.sharding_type == row_wise for sharding in plan.values())
            env = ShardingEnv.from_local(world, self.exchange.rank)
            group = self.exchange.group if world > 1 else _alone(device.type)
            # With the group from the start it would make another one, by a call of all processes.
            env.process_group = group or dist.group.WORLD
            return sharder.shard(tables, cast(Any, plan), env, device)

    @property
    def _tables(self) -> ShardedEmbeddingBagCollection:
        return self._held[0]

    @property
    def _shrink(self) -> float:
        """What the root of a row's sum is smaller by in TorchRec, whose rows may be wider.

        Row-wise Adagrad takes the mean over D columns, TorchRec over those that fill them up too,
        of gradient 0. Learning rate and eps times this make the same step of it.
        """
        return sqrt(self.dim / self._width) if self.optimizer.has_row_sum else 1.0

    def forward(self, batch: Batch) -> Tensor:
        """Look up one-hot features and lists together; see `Embeddings.forward`."""
        blocks = self.layout.blocks(batch)
        if not blocks:
            return self._joined(batch, [])
        return self._joined(batch, [self._looked_up(blocks)])

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up the rows of a block; see `Embeddings.pooled`.

        Raises:
            ConfigError: There are per_sample_weights, to which TorchRec sends no gradient back; or
                the optimizer would update rows once for each block, instead of once a step.

        """
        if per_sample_weights is not None:
            raise ConfigError(
                f"{self.names[0]}: with the engine torchrec learned weights of ids get no "
                "gradient: choose tables.weighted False, or the engine of this project"
            )
        if self._in_both and self.optimizer.has_sum and torch.is_grad_enabled():
            table = self.layout.tables[self._in_both[0]].name
            raise ConfigError(
                f"{table}: single ids and lists of ids look it up, and with the engine torchrec "
                f"{self.optimizer.name} would update its rows for each of the two: choose "
                "tables.compression none, optim.name sgd, or the engine of this project"
            )
        return self._looked_up([block])

    def vectors(self, block: Block) -> Tensor:
        """Look up the row of each id; see `Embeddings.vectors`.

        Raises:
            ConfigError: There are lists: TorchRec adds them up.

        """
        if block.offsets is not None:
            raise ConfigError(
                f"{self.names[0]}: the rows of a list are needed one by one, and the engine "
                "torchrec gives their sums alone: choose another tables.compression, or "
                "tables.operation add, or the engine of this project"
            )
        return self.pooled(block)

    def _looked_up(self, blocks: Sequence[Block]) -> Tensor:
        """Return the pooled vectors (B, F, D) of the features of some blocks, block by block."""
        if torch.is_inference_mode_enabled():
            # For which FBGEMM's kernels have nothing.
            with torch.inference_mode(False), torch.no_grad():
                return self._fetched(blocks)
        return self._fetched(blocks)

    def _fetched(self, blocks: Sequence[Block]) -> Tensor:
        groups = self.layout.groups
        parts = [_by_feature(b._replace(ids=self.checked_ids(b)), groups) for b in blocks]
        size, device = parts[0][1].shape[1], blocks[0].ids.device
        lengths = torch.zeros(len(self._keys), size, dtype=torch.int32, device=device)
        columns: list[int] = []
        for block, (_, block_lengths) in zip(blocks, parts, strict=True):
            places = [self._features.index(f) for f in groups[block.group]]
            columns += places
            lengths[places[0] : places[-1] + 1] = block_lengths
        if self._by_rows and self.exchange.size > 1:
            # gloo cannot gather the gradients of row-wise tables from batches of different sizes.
            lengths = pad(lengths, (0, max(self.exchange.split(size)) - size))
        values = torch.cat([values for values, _ in parts])
        bags = KeyedJaggedTensor(self._keys, values, lengths=lengths.flatten())
        result = self._tables(bags).wait()
        pooled = result.values().view(-1, len(self._keys), self._width)
        keys = result.keys()
        order = [keys.index(self._keys[place]) for place in columns]
        if order != list(range(len(keys))):
            pooled = pooled.index_select(1, torch.tensor(order, device=device))
        return pooled[:size, :, : self.dim]

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
            if not part.copied:
                continue
            weight = weights[f"embedding_bags.{self._table_keys[part.shard.table]}.weight"]
            if weight.grad is None:
                continue
            rows = torch.arange(weight.shape[0], device=weight.device)
            # DistributedDataParallel, which TorchRec has for these, has made a mean of it.
            grad = weight.grad * self.exchange.size
            kernels, lr, eps = backend(part.weight), self._lr, self.optimizer.eps * self._shrink
            if not self.optimizer.has_sum:
                kernels.sgd_update(part.weight, rows, grad, lr)
            elif self.optimizer.has_row_sum:
                sums = part.state["sum"]
                kernels.rowwise_adagrad_update(part.weight, sums, rows, grad, lr, eps)
            else:
                kernels.adagrad_update(part.weight, part.state["sum"], rows, grad, lr, eps)
        self._tables.zero_grad()

    @property
    def local_shards(self) -> list[LocalShard]:
        """What this rank holds, without the columns that fill it up; see `DistributedCollection`.

        State is a copy where TorchRec measures it otherwise.
        """
        return [self._narrowed(part) for part in self._wide]

    def _narrowed(self, part: LocalShard) -> LocalShard:
        first = part.shard.first_column
        columns = min(part.weight.shape[1], self.dim - first)
        return part._replace(
            weight=part.weight[:, :columns],
            shard=replace(part.shard, last_column=first + columns),
            state={
                key: state[:, :columns]
                if state.dim() == 2
                else state
                if self._shrink == 1
                else state / self._shrink**2
                for key, state in part.state.items()
            },
        )

    @torch.no_grad()
    def load_state(self, number: int, key: str, values: Tensor) -> None:
        """Overwrite state of a part; see `FusedCollection.load_state`."""
        state = self._wide[number].state[key]
        if state.dim() == 1:
            state.copy_(values * self._shrink**2)
        else:
            state[:, : values.shape[1]] = values

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables, on all ranks together."""
        return sum(self.layout.sizes) * self.dim * 4


def _by_feature(block: Block, groups: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Order the ids of F features by feature, then by sample, as TorchRec wants them.

    Returns the ids (L,), and the length of each list (F, B) int32.
    """
    ids, offsets, count = block.ids, block.offsets, len(groups[block.group])
    if offsets is None:
        ones = torch.ones(count, ids.shape[0], dtype=torch.int32, device=ids.device)
        return ids.t().reshape(-1), ones
    lengths = offsets.diff().to(torch.int32)
    lists = torch.arange(lengths.shape[0], dtype=torch.int32, device=ids.device)
    order = lists.view(-1, count).t().reshape(-1)
    lengths, values, _ = torch.ops.fbgemm.permute_1D_sparse_data(
        order, lengths, ids, None, ids.shape[0]
    )
    return values, lengths.view(count, -1)


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
