"""Embedding tables alone: lookup, backward and update, beside those of torch and of FBGEMM.

FBGEMM's package fbgemm-gpu-cpu comes with the extra `torchrec`: version 1.8.0 is the one that works
with torch 2.13.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.timer import beside, figures, in_turn, interleave, round_steps
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
from dlrm.parallel.torchrec.probe import quiet
from dlrm.planning.work import Ids
from dlrm.terminal import progress

Inputs = tuple[Batch, Tensor]
"""A batch, and the gradient (B, T, D) of its vectors."""


class Tables:
    """The collection of this project with its optimizer."""

    def __init__(self, arch: Arch, optimizer: str):
        layout, storage = Layout.of(arch.schema), arch.model.tables.storage
        self.collection = materialize(EmbeddingCollection(layout, arch.model.dim, storage=storage))
        groups = self.collection.parameter_groups()
        self.optimizer = optim.build(optimizer, groups, LEARNING_RATE)

    def laid_out(self, inputs: Inputs) -> Inputs:
        """Return inputs as they are."""
        return inputs

    def step(self, inputs: Inputs) -> None:
        """Look up, propagate the gradient and update."""
        batch, grad = inputs
        self.collection(batch).backward(grad)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Bags:
    """One nn.EmbeddingBag a table, with sparse gradients and torch's optimizer."""

    def __init__(self, arch: Arch, optimizer: str):
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(n, arch.model.dim, mode="sum", sparse=True) for n in arch.num_embeddings
        )
        # As it is by default; said aloud, torch does not warn of it.
        torch.sparse.check_sparse_tensor_invariants.disable()
        kind: Any = torch_optimizer(optimizer)
        self.optimizer = kind(list(self.bags.parameters()), lr=LEARNING_RATE)

    def laid_out(self, inputs: Inputs) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Return ids (T, B), offsets (B,) and a gradient (B, D) a table."""
        batch, grad = inputs
        return batch.ids.long().t().contiguous(), torch.arange(len(batch)), grad.unbind(1)

    def step(self, batch: tuple[Tensor, Tensor, Sequence[Tensor]]) -> None:
        """Look up, propagate the gradients and update."""
        ids, offsets, grads = batch
        pooled = [bag(ids[t], offsets) for t, bag in enumerate(self.bags)]
        self.optimizer.zero_grad()
        torch.autograd.backward(pooled, grads)
        self.optimizer.step()


class Fbgemm:
    """All tables as one operator, which updates the rows in its backward pass."""

    def __init__(self, arch: Arch, optimizer: str):
        name = optim.find(optimizer).declaration.fbgemm
        assert name is not None
        tables = _fbgemm()
        import fbgemm_gpu.split_embedding_configs as configs  # pyright: ignore[reportMissingImports]

        place, device = tables.EmbeddingLocation.HOST, tables.ComputeDevice.CPU
        self.tables = tables.SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(n, arch.model.dim, place, device) for n in arch.num_embeddings],
            optimizer=getattr(configs.EmbOptimType, name),
            learning_rate=LEARNING_RATE,
            pooling_mode=tables.PoolingMode.SUM,
            device=torch.device("cpu"),
        )

    def laid_out(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids (T * B,), table after table; offsets (T * B + 1,); the gradient (B, T * D)."""
        batch, grad = inputs
        return batch.ids.long().t().flatten(), torch.arange(batch.ids.numel() + 1), grad.flatten(1)

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Look up, propagate the gradient and update."""
        ids, offsets, grad = batch
        self.tables(ids, offsets).backward(grad)


PEERS: dict[str, Callable[[Arch, str], Any]] = {"bags": Bags, "fbgemm": Fbgemm}


def torch_optimizer(optimizer: str) -> type[torch.optim.Optimizer] | None:
    """Return torch's optimizer that does the same to sparse gradients; None if it has none."""
    name = optim.find(optimizer).declaration.torch
    return None if name is None else getattr(torch.optim, name)


def unavailable(optimizer: str = "sgd") -> str | None:
    """Return why FBGEMM cannot be measured with an optimizer; None when it can."""
    if optim.find(optimizer).declaration.fbgemm is None:
        return f"on the CPU it has no {optimizer}"
    try:
        _fbgemm()
    except (ImportError, OSError, AttributeError) as error:
        return f"fbgemm-gpu-cpu cannot be imported ({error})"
    return None


def _fbgemm() -> Any:
    with quiet():
        import fbgemm_gpu.split_table_batched_embeddings_ops_training as tables  # pyright: ignore[reportMissingImports]

    return tables


def measure(
    arch: Arch, batch_sizes: Sequence[int], *, ids: Ids, optimizer: str, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time the tables of an architecture beside the peers that are there, at each batch size.

    Returns:
        The figures of a step at each batch size with flat keys, of the peers that were measured;
        and for each peer left out, why.

    """
    left_out: dict[str, str] = {}
    if torch_optimizer(optimizer) is None:
        left_out["bags"] = f"torch has no {optimizer}"
    if (reason := unavailable(optimizer)) is not None:
        left_out["fbgemm"] = reason
    torch.manual_seed(0)
    kinds = {"ours": Tables, **{n: kind for n, kind in PEERS.items() if n not in left_out}}
    tables = {name: kind(arch, optimizer) for name, kind in kinds.items()}
    measured = []
    with progress() as bar:
        for batch_size in batch_sizes:
            batches = rotation(arch.schema, batch_size, ids)
            steps = round_steps(batch_size)
            # As large as a mean over the batch makes them.
            grads = [
                torch.randn(batch_size, len(arch.num_embeddings), arch.model.dim) / batch_size
                for _ in range(min(len(batches), 64))
            ]
            inputs = [(batch, grads[i % len(grads)]) for i, batch in enumerate(batches)]
            task = bar.add_task(f"batch {batch_size}", total=rounds)
            timed = interleave(
                {
                    name: in_turn(candidate.step, list(map(candidate.laid_out, inputs)), steps)
                    for name, candidate in tables.items()
                },
                rounds=rounds,
                after_round=lambda task=task: bar.advance(task),
            )
            row = {"batch_size": batch_size, "steps": steps, "rounds": rounds}
            ours = timed.pop("ours").per(steps)
            row |= figures(ours)
            for name, timing in timed.items():
                row |= figures(timing.per(steps)) | beside(ours, timing.per(steps), f"{name}_")
            measured.append(row)
    return measured, left_out
