"""What `dlrm plan` found."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm.commands.plan_grids import (
    alternatives_grid,
    device_grid,
    table_grid,
    takes_grid,
    verdict,
)
from dlrm.commands.plan_simulate import simulated_grid
from dlrm.planning.device import sample_bytes
from dlrm.planning.placement import Plan
from dlrm.planning.planned import Alternative, Planned
from dlrm.planning.simulated import Simulated
from dlrm.planning.times import Times


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanResult:
    """What a run would take."""

    name: str
    """Of the data."""
    planned: Planned
    times: Times | None
    """None where nothing was measured or described."""
    alternatives: list[Alternative]
    """What to change, where it does not fit."""
    page: Path | None
    simulated: list[Simulated] = field(default_factory=list)
    """The same run on more and more devices."""
    simulated_basis: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        run, footprint, times = self.planned, self.planned.footprint, self.times
        plan, config = run.plan, run.config
        return {
            "data": self.name,
            "model": config.model.name,
            "optim": config.optim.name,
            "storage": config.model.tables.storage,
            "batch_size": config.loader.batch_size,
            "world": run.world.size,
            "device_memory_bytes": run.world.memory_bytes,
            "sharding": run.world.sharding,
            "fits": run.fits,
            "reason": run.reason,
            "parameters": run.kept.parameters,
            "tables": len(run.kept.tables),
            "tables_bytes": run.kept.tables_bytes,
            "dense_bytes": footprint.dense_bytes,
            "process_bytes": footprint.process_bytes,
            "process_tables_bytes": footprint.tables_bytes,
            "process_activations_bytes": footprint.activations_bytes,
            "process_loader_bytes": footprint.loader_bytes,
            "process_libraries_bytes": footprint.libraries_bytes,
            "mapped_bytes": footprint.mapped_bytes,
            "resident_bytes": footprint.resident_bytes,
            "checkpoint_bytes": footprint.checkpoint_bytes,
            "checkpoints_bytes": footprint.checkpoints_bytes,
            "dataset_bytes": footprint.dataset_bytes,
            "disk_bytes": footprint.disk_bytes,
            "flops_per_sample": run.cost.flops,
            "memory_bytes_per_sample": self._memory_bytes_per_sample,
            "exchange_bytes_per_sample": run.traffic.sample_bytes if run.traffic else None,
            "exchange_bytes_per_step": run.traffic.step_bytes if run.traffic else None,
            "memory_imbalance": plan.memory_imbalance if plan else None,
            "work_imbalance": plan.work_imbalance if plan else None,
            "basis": times.basis if times else None,
            "step_s": times.step_s if times else None,
            "exchange_s": times.exchange_s if times else None,
            "samples_per_s": times.samples_per_s if times else None,
            "train_s": times.train_s if times else None,
            "evaluation_s": times.evaluation_s if times else None,
            "saving_s": times.saving_s if times else None,
            "epoch_s": times.epoch_s if times else None,
            "devices": self._devices() if plan else [],
            "placement": _placement(plan) if plan else [],
            "alternatives": [asdict(result) for result in self.alternatives],
            "simulated": [result.to_dict() for result in self.simulated],
            "page": str(self.page) if self.page else None,
        }

    @property
    def _memory_bytes_per_sample(self) -> float | None:
        run = self.planned
        if run.plan is None:
            return None
        config = run.config
        return sample_bytes(run.plan, run.cost, config.model.tables.storage, config.optim.name)

    def _devices(self) -> list[dict[str, Any]]:
        """Return what each device has and does."""
        plan, sent = self.planned.plan, self.planned.traffic
        assert plan is not None
        assert sent is not None
        shards = [plan.on(rank) for rank in range(plan.world)]
        rest = self.planned.footprint.rest_bytes
        rows = zip(plan.memory_bytes, plan.work, sent.sent, shards, strict=True)
        return [
            {
                "rank": rank,
                "process_bytes": memory + rest,
                "tables_bytes": memory,
                "shards": len(held),
                "lookups": sum(map(plan.shard_lookups, held)),
                "work": work,
                "sent_bytes_per_sample": leaves,
            }
            for rank, (memory, work, leaves, held) in enumerate(rows)
        ]

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.planned.plan is not None:
            parts += [device_grid(self.name, self.planned, self._devices()), ""]
            parts += [table_grid(self.planned.plan), ""]
        parts += [takes_grid(self.planned, self.times, self._memory_bytes_per_sample), ""]
        if self.simulated:
            parts += [simulated_grid(self.simulated, self.simulated_basis), ""]
        parts.append(verdict(self.planned))
        if self.alternatives:
            parts += ["", alternatives_grid(self.alternatives)]
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)


def _placement(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": table.name,
            "rows": table.num_embeddings,
            "dim": table.dim,
            "bytes": table.size_bytes,
            "kind": kind,
            "ranks": [shard.rank for shard in plan.of(t)],
        }
        for t, (table, kind) in enumerate(zip(plan.tables, plan.kinds, strict=True))
    ]
