"""What `dlrm parity` compares: the losses of trainings, as `dlrm train` does them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dlrm.data.store import Dataset
from dlrm.models.dlrm import DLRMConfig
from dlrm.optim.config import OptimConfig
from dlrm.parallel.config import ParallelConfig
from dlrm.parallel.world import World
from dlrm.training.config import TrainConfig
from dlrm.training.parity import Parity
from dlrm.training.variant import Outcome, Variant, outcome_of

from .ranks import Ranks

STEPS = 8
CONFIG = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)), optim=OptimConfig(lr=0.02), precision="fp32"
)


def trained(
    world: World, config: TrainConfig, data: str, folder: str, ways: list[Variant]
) -> list[dict[str, Any]]:
    dataset = Dataset.open(Path(data))
    outcomes = (outcome_of(config, w, STEPS, dataset, Path(folder), world) for w in ways)
    return [asdict(outcome) for outcome in outcomes]


def compared(ranks: Ranks, config: TrainConfig, clicks: Dataset, folder: Path) -> Parity:
    def losses(ways: list[Variant], world: int) -> list[Outcome]:
        rows = ranks.run(trained, config, str(clicks.path), str(folder), ways, world=world)[0]
        return [
            Outcome(w, tuple(r["losses"]), r["refused"]) for w, r in zip(ways, rows, strict=True)
        ]

    ways = [Variant("adagrad", "dlrm", sharding, 2) for sharding in ("table", "row")]
    (one,) = losses([Variant("adagrad")], 1)
    outcomes = losses(ways, 2)
    assert list(folder.iterdir()) == []
    return Parity(
        recipe="test", config=config, steps=STEPS, tolerance=1e-6, reordered={},
        alone={"adagrad": one.losses}, outcomes=tuple(outcomes),
    )  # fmt: skip


def test_two_ranks_have_the_losses_of_one(ranks, clicks, tmp_path):
    found = compared(ranks, CONFIG, clicks, tmp_path)
    assert len(set(found.alone["adagrad"])) == STEPS
    assert len(found.with_verdict("equal")) == 2


def test_half_precision_on_the_way_is_no_rounding_of_sums(ranks, clicks, tmp_path):
    config = replace(CONFIG, parallel=ParallelConfig(exchange_dtype="bf16"))
    found = compared(ranks, config, clicks, tmp_path)
    assert len(found.with_verdict("different")) == 2
    assert not found.holds
