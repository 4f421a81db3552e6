"""A model on several processes: tables spread, everything else copied, gradients summed."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from dlrm.batch import Batch
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.norm import over_whole_batches


class ParallelModel(nn.Module):
    """`forward(batch) -> logits (b,)` of the samples of this process.

    Tables that take the ids of a batch as they are send them before the model begins, so that the
    bottom MLP is computed while vectors are on their way.

    Args:
        model: Made with `ShardedCollection`s; equal on all processes but for their rows.
        wire: That of its collections.
        group: Of `torch.distributed`, for the gradients of everything else.

    """

    def __init__(self, model: nn.Module, wire: Wire, group: Any = None):
        super().__init__()
        self.wire = wire
        over_whole_batches(model, wire)
        self._collections = [m for m in model.modules() if isinstance(m, ShardedCollection)]
        self._early: list[ShardedCollection] | None = None
        self.model = model
        kept = [
            f"{name}.{inner}"
            for name, module in model.named_modules()
            if isinstance(module, ShardedCollection)
            for inner, _ in module.named_parameters()
        ]
        # Buffers are equal by themselves, or say where this process' rows are.
        ignored = [*kept, *(name for name, _ in model.named_buffers())]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
        self._parallel: nn.Module = model
        if len(list(model.parameters())) > len(kept):
            self._parallel = DistributedDataParallel(
                model, process_group=group, gradient_as_bucket_view=True
            )
            self._parallel.register_comm_hook(group, _sum)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (b,)."""
        self.wire.samples = batch.parts or self._ask(len(batch))
        if self._early is None:
            self._early = self._learn(batch)
        for collection in self._early:
            collection.begin(batch.ids, batch.offsets)
        if self.training and torch.is_grad_enabled():
            return self._parallel(batch)
        return self.model(batch)

    def _learn(self, batch: Batch) -> list[ShardedCollection]:
        """Return the collections that look up the ids of a batch as they are."""
        early: list[ShardedCollection] = []

        def watch(collection: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments[0] is batch.ids and collection not in early:
                assert isinstance(collection, ShardedCollection)
                early.append(collection)

        hooks = [each.register_forward_pre_hook(watch) for each in self._collections]
        was_training = self.training
        self.model.eval()
        try:
            with torch.no_grad():
                self.model(batch)
        finally:
            for hook in hooks:
                hook.remove()
            self.model.train(was_training)
        return early

    def _ask(self, own: int) -> tuple[int, ...]:
        counts = torch.zeros(self.wire.size, dtype=torch.int64)
        counts[self.wire.rank] = own
        dist.all_reduce(counts, group=self.wire.group)
        return tuple(counts.tolist())


def _sum(group: Any, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sum the gradients: each process' loss is its share of that of the whole batch."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
