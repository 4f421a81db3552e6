"""Whole models on several processes learn what one learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.models import MODELS, ModelConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.parallel.build import described, spread
from dlrm.parallel.exchange import Wire
from dlrm.parallel.model import ParallelModel
from dlrm.parallel.plan import Sharding, plan
from dlrm.parallel.tables import contents
from dlrm.parallel.world import World
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

from .ranks import Ranks

ROWS = (7, 300, 1, 40, 12)
B = 24


@dataclass(frozen=True)
class Case:
    model: str = "dlrm"
    options: dict[str, Any] = field(default_factory=dict)
    optim: str = "sgd"
    sharding: Sharding = "auto"
    bags: bool = False
    steps: int = 50
    wire: torch.dtype = torch.float32

    def config(self) -> ModelConfig:
        options: dict[str, Any] = {"tables": TablesConfig(init_std=0.1), **self.options}
        if self.model == "mf":
            options |= {"user": "C1", "item": "C2"}
        if self.model in ("dlrm",):
            options |= {"bottom": (8,), "top": (8,)}
        if self.model in ("wide_deep", "deepfm", "dcn", "dcnv2", "xdeepfm"):
            options |= {"deep": (8,)}
        if self.model == "finalmlp":
            options |= {"first": (8,), "second": (8,), "heads": 2}
        if self.model != "lr":
            options |= {"dim": 4}
        return MODELS[self.model](**options)


def schema() -> Schema:
    return Schema(
        dense=tuple(DenseFeature(name=f"I{i}") for i in range(3)),
        categorical=tuple(
            CategoricalFeature(name=f"C{t}", rows=rows) for t, rows in enumerate(ROWS)
        ),
    )


def batch_of(case: Case, step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    # The last batch of an epoch, of one sample: fewer than there are processes.
    count = 1 if step == case.steps - 1 else B
    bags = torch.randint(0, 3, (count * len(ROWS),), generator=generator)
    lengths = bags if case.bags else torch.ones_like(bags)
    sizes = torch.tensor(ROWS).repeat(count).repeat_interleave(lengths)
    ids = (torch.rand(len(sizes), generator=generator) * sizes).long()
    dense = torch.rand(count, 3, generator=generator)
    labels = (torch.rand(count, generator=generator) < 0.3).float()
    if case.bags:
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return Batch(dense, ids, labels, offsets)
    return Batch(dense, ids.view(count, -1), labels)


def losses(world: World, case: Case) -> list[float]:
    """Return the loss of the whole batch at each step, on as many ranks as there are."""

    def build() -> torch.nn.Module:
        return case.config().build(schema())

    optim = OptimConfig(name=case.optim, lr=0.1 if case.optim != "adam" else 0.01)  # pyright: ignore
    torch.manual_seed(0)
    if world.size == 1:
        model = net = build()
    else:
        tables = contents(described(build)[0], case.optim).tables
        wire = Wire(world.rank, world.size, world.exchange, dtype=case.wire)
        made = plan(tables, world.size, sharding=case.sharding, replicate_bytes=200)
        model = spread(build, made, wire)
        net = ParallelModel(model, wire, world.group)
    optimizer = optim.build(model.parameters())
    found = []
    for step in range(case.steps):
        batch = batch_of(case, step)
        count = len(batch)
        ends = [count * r // world.size for r in range(world.size + 1)]
        batch = batch.slice(ends[world.rank], ends[world.rank + 1])
        logits = net(batch)
        each: Tensor = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, batch.labels, reduction="sum"
        )
        loss = each / count
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(world.sum(loss.detach().double()).item())
    return found


def check(ranks: Ranks, case: Case, worlds: tuple[int, ...], tolerance: float = 1e-6) -> None:
    (expected,) = ranks.run(losses, case, world=1)
    assert max(expected) - min(expected) > 0.01
    for world in worlds:
        for found in ranks.run(losses, case, world=world):
            apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
            assert apart <= tolerance, (world, apart)


@pytest.mark.parametrize("bags", [False, True], ids=["one-hot", "multi-hot"])
@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("sharding", ["auto", "table", "row", "column", "replicate"])
def test_however_tables_are_spread_the_losses_are_the_same(ranks: Ranks, sharding, optim, bags):
    check(ranks, Case(optim=optim, sharding=sharding, bags=bags), (3,) if bags else (2, 4))


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_learns_the_same(ranks: Ranks, model):
    check(ranks, Case(model=model, optim="adagrad", bags=model != "mf"), (3,))


COMPRESSIONS = {
    "qr": {"compression": "qr", "threshold": 20},
    "mixed_dim": {"compression": "mixed_dim", "threshold": 20, "temperature": 0.6},
    "hash": {"compression": "hash", "threshold": 20, "collisions": 4},
    "hash with weights": {
        "compression": "hash", "threshold": 20, "collisions": 8, "weighted": True, "hashes": 1,
    },
    "split": {"storage": "split"},
}  # fmt: skip


@pytest.mark.parametrize("bags", [False, True], ids=["one-hot", "multi-hot"])
@pytest.mark.parametrize("sharding", ["auto", "row", "column"])
@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
def test_compressed_tables_learn_the_same(ranks: Ranks, compression, sharding, bags):
    options = {"tables": TablesConfig(init_std=0.1, **COMPRESSIONS[compression])}
    check(ranks, Case(options=options, sharding=sharding, bags=bags, optim="adagrad"), (3,), 2e-6)


def test_tables_that_are_trained_for_codes_learn_the_same(ranks: Ranks):
    # Rounding in the last bit may turn a code, which is 1/255 of what a row spans.
    tables = TablesConfig(init_std=0.1, qat="int8")
    check(ranks, Case(options={"tables": tables}, sharding="column", bags=True), (3,), 1e-4)


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"interaction": "cat"}])
def test_options_of_the_model_learn_the_same(ranks: Ranks, options):
    check(ranks, Case(options=options), (2, 3), 2e-6)


def test_adam_learns_the_same(ranks: Ranks):
    check(ranks, Case(optim="adam", steps=20), (3,), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_the_wire_stays_near(ranks: Ranks, dtype):
    check(ranks, Case(sharding="table", wire=dtype), (2,), 5e-3)
