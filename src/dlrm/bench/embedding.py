"""Embedding tables alone: lookup, backward and update, beside those of torch and of FBGEMM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.batches import Ids, rotation
from dlrm.bench.fbgemm import Fbgemm, unavailable
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.timer import Timing, figures, in_turn, interleave, ratio, verdict
from dlrm.bench.training import round_steps
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
from dlrm.terminal import progress

PEERS = ("bags", "fbgemm")


@dataclass(frozen=True, slots=True)
class EmbeddingMeasured:
    """The tables at one batch size; timings are of a step."""

    batch_size: int
    steps: int
    ours: Timing
    peers: dict[str, Timing]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with flat keys; only those of the peers that were measured."""
        values: dict[str, Any] = {
            "batch_size": self.batch_size,
            "steps": self.steps,
            "rounds": len(self.ours.seconds),
            **figures(self.ours),
        }
        for name, timing in self.peers.items():
            middle, low, high = ratio(timing, self.ours)
            values |= figures(timing)
            values |= {
                f"{name}_speedup": middle,
                f"{name}_speedup_interval": [low, high],
                f"{name}_verdict": verdict(self.ours, timing),
            }
        return values


class Tables:
    """The collection of this project with its optimizer."""

    def __init__(self, arch: Arch, optimizer: str):
        layout, storage = Layout.of(arch.schema), arch.model.tables.storage
        self.collection = materialize(EmbeddingCollection(layout, arch.model.dim, storage=storage))
        groups = self.collection.parameter_groups()
        self.optimizer = optim.build(optimizer, groups, LEARNING_RATE)

    def step(self, inputs: tuple[Batch, Tensor]) -> None:
        """Take a batch and a gradient (B, T, D)."""
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

    def step(self, batch: tuple[Tensor, Tensor, Sequence[Tensor]]) -> None:
        """Take ids (T, B), offsets (B,) and a gradient (B, D) a table."""
        ids, offsets, grads = batch
        pooled = [bag(ids[t], offsets) for t, bag in enumerate(self.bags)]
        self.optimizer.zero_grad()
        torch.autograd.backward(pooled, grads)
        self.optimizer.step()


def torch_optimizer(optimizer: str) -> type[torch.optim.Optimizer] | None:
    """Return torch's optimizer that does the same to sparse gradients; None if it has none."""
    name = optim.find(optimizer).declaration.torch
    return None if name is None else getattr(torch.optim, name)


def measure(
    arch: Arch, batch_sizes: Sequence[int], *, ids: Ids, optimizer: str, rounds: int
) -> tuple[list[EmbeddingMeasured], dict[str, str]]:
    """Time the tables of an architecture beside the peers that are there.

    Args:
        arch: Its tables are used, its model is not.
        batch_sizes: Sizes to measure one after the other.
        ids: How ids are distributed.
        optimizer: As for `dlrm.optim.find`.
        rounds: Rounds of each candidate.

    Returns:
        The figures of each batch size; and for each peer left out, why.

    """
    left_out: dict[str, str] = {}
    if torch_optimizer(optimizer) is None:
        left_out["bags"] = f"torch has no {optimizer}"
    if (reason := unavailable(optimizer)) is not None:
        left_out["fbgemm"] = reason
    torch.manual_seed(0)
    tables = Tables(arch, optimizer)
    bags = None if "bags" in left_out else Bags(arch, optimizer)
    fbgemm = (
        None if "fbgemm" in left_out else Fbgemm(arch.num_embeddings, arch.model.dim, optimizer)
    )
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
            pairs = [(batch, grads[i % len(grads)]) for i, batch in enumerate(batches)]
            candidates = {"ours": in_turn(tables.step, pairs, steps)}
            if bags is not None:
                by_table = [
                    (batch.ids.long().t().contiguous(), torch.arange(batch_size), grad.unbind(1))
                    for batch, grad in pairs
                ]
                candidates["bags"] = in_turn(bags.step, by_table, steps)
            if fbgemm is not None:
                offsets = torch.arange(batch_size * len(arch.num_embeddings) + 1)
                flat = [
                    (batch.ids.long().t().flatten(), offsets, grad.flatten(1))
                    for batch, grad in pairs
                ]
                candidates["fbgemm"] = in_turn(fbgemm.step, flat, steps)
            task = bar.add_task(f"batch {batch_size}", total=rounds)
            timed = interleave(
                candidates, rounds=rounds, after_round=lambda task=task: bar.advance(task)
            )
            peers = {name: timed[name].per(steps) for name in PEERS if name in timed}
            measured.append(EmbeddingMeasured(batch_size, steps, timed["ours"].per(steps), peers))
    return measured, left_out
