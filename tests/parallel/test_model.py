"""Whole models on several processes learn what one learns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.models import MODELS, ModelConfig
from dlrm.nn.embedding import bags_of, materialize, parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import ParallelModel, parallelize
from dlrm.parallel.world import World
from dlrm.planning.placement import Sharding, plan
from dlrm.planning.tables import contents
from dlrm.schema import DenseFeature, Feature, Schema, Table
from dlrm.training.loss import LossConfig, loss_function
from dlrm.training.step import TrainStep

from .ranks import Ranks

SIZES = (7, 300, 1, 40, 12)
B = 24

MIXED = (
    Feature(name="C0", table="T0"),
    Feature(name="C1", table="T1"),
    Feature(name="C2", table="T2"),
    Feature(name="C3", table="T3", kind="bag"),
    Feature(name="C4", table="T4", kind="sequence"),
    # An item and the history of items, and tables that bags share.
    Feature(name="history", table="T1", kind="sequence"),
    Feature(name="C5", table="T3"),
    Feature(name="C6", table="T3", kind="bag"),
)
ONE_HOT = tuple(Feature(name=f"C{t}", table=f"T{t}") for t in range(len(SIZES)))
LISTS = tuple(replace(feature, kind="bag") for feature in ONE_HOT)


class History(nn.Module):
    """`u . (mean of e[i] * e[h] over the history h)`: pooled vectors, and those of a sequence."""

    def __init__(self, schema: Schema):
        super().__init__()
        self.embeddings = TablesConfig(init_std=0.3).build(schema, 4)
        self.weight = nn.Parameter(torch.ones(schema.num_labels, 4))

    def forward(self, batch: Batch) -> Tensor:
        vectors = self.embeddings(batch)
        history = self.embeddings.sequence(batch, "history")
        item = vectors[:, self.embeddings.names.index("C1")]
        sample = bags_of(history.offsets, len(history.values))
        met = item[sample] * history.values
        pooled = torch.zeros_like(item).index_add(0, sample, met)
        return (pooled / history.lengths.clamp(min=1)[:, None] + vectors.sum(1)) @ self.weight.t()


@dataclass(frozen=True)
class Case:
    model: str = "dlrm"
    options: dict[str, Any] = field(default_factory=dict)
    optim: str = "sgd"
    sharding: Sharding = "auto"
    features: tuple[Feature, ...] = ONE_HOT
    labels: tuple[str, ...] = ("label",)
    weights: bool = False
    steps: int = 20
    dtype: torch.dtype = torch.float32
    clip: float = 0.0

    def build(self) -> nn.Module:
        """Return the model, whose tables have no memory yet."""
        return (
            History(self.schema())
            if self.model == "history"
            else self.config().build(self.schema())
        )

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

    def schema(self) -> Schema:
        used = {feature.table for feature in self.features}
        return Schema(
            dense=tuple(DenseFeature(name=f"I{i}") for i in range(3)),
            tables=tuple(
                Table(name=f"T{t}", num_embeddings=n)
                for t, n in enumerate(SIZES)
                if f"T{t}" in used
            ),
            features=self.features,
            labels=self.labels,
        )


def batch_of(case: Case, step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    # The last batch of an epoch, of one sample: fewer than there are processes.
    count = 1 if step == case.steps - 1 else B
    schema = case.schema()
    size = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))

    def ids(sizes: Tensor) -> Tensor:
        return (torch.rand(sizes.shape, generator=generator) * sizes).long()

    single = torch.tensor([size[f.name] for f in schema.one_hot_features], dtype=torch.int64)
    lists = None
    if schema.list_features:
        several = torch.tensor([size[f.name] for f in schema.list_features])
        lengths = torch.randint(0, 3, (count * len(several),), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        lists = Jagged(ids(several.repeat(count).repeat_interleave(lengths)), offsets)
    return Batch(
        dense=torch.rand(count, 3, generator=generator),
        ids=ids(single.expand(count, -1)),
        labels=(torch.rand(count, len(case.labels), generator=generator) < 0.3).float(),
        lists=lists,
        weights=torch.rand(count, generator=generator) if case.weights else None,
    )


def model_on(world: World, case: Case, model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return what this process keeps of a model, and what computes logits with it."""
    if world.size == 1:
        return materialize(model), model
    tables = contents(model, case.optim).tables
    placed = plan(tables, world.size, sharding=case.sharding, replicate_bytes=200)
    exchange = Exchange(world.rank, world.size, world.exchange, dtype=case.dtype)
    model = materialize(parallelize(model, placed, exchange))
    return model, ParallelModel(model, exchange, world.group)


def losses(world: World, case: Case) -> list[float]:
    """Return the loss of the whole batch at each step, on as many ranks as there are."""
    torch.manual_seed(0)
    model, net = model_on(world, case, case.build())
    optim = OptimConfig(name=case.optim, lr=0.1 if case.optim != "adam" else 0.01)
    optimizer = optim.build(parameter_groups(model))
    step = TrainStep(net, optimizer, loss_function(LossConfig()), clip=case.clip, world=world)
    found = []
    for number in range(case.steps):
        batch = batch_of(case, number)
        ends = [len(batch) * r // world.size for r in range(world.size + 1)]
        parts = tuple(last - first for first, last in pairwise(ends))
        part = replace(batch.slice(ends[world.rank], ends[world.rank + 1]), parts=parts)
        found.append(world.sum(step(part).double()).item())
    return found


ALONE: dict[str, list[float]] = {}


def alone(ranks: Ranks, case: Case) -> list[float]:
    """Return the losses on one rank, which has nothing to shard: each case is trained once."""
    case = replace(case, sharding="auto", dtype=torch.float32)
    if repr(case) not in ALONE:
        (ALONE[repr(case)],) = ranks.run(losses, case, world=1)
    return ALONE[repr(case)]


def check(ranks: Ranks, case: Case, worlds: tuple[int, ...], tolerance: float = 1e-6) -> None:
    expected = alone(ranks, case)
    assert max(expected) - min(expected) > 0.01
    for world in worlds:
        for found in ranks.run(losses, case, world=world):
            apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
            assert apart <= tolerance, (world, apart)


FEATURES = {"one-hot": ONE_HOT, "lists": LISTS, "mixed": MIXED}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("sharding", ["auto", "table", "row", "column", "replicate"])
def test_however_tables_are_sharded_the_losses_are_the_same(
    ranks: Ranks, sharding, optim, features
):
    worlds = {"one-hot": (2, 4), "lists": (3,), "mixed": (2, 3)}[features]
    check(ranks, Case(optim=optim, sharding=sharding, features=FEATURES[features]), worlds)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_learns_the_same(ranks: Ranks, model):
    features = ONE_HOT if model == "mf" else MIXED
    # Adagrad's first steps are as long however small a gradient is: rounding shows.
    check(ranks, Case(model=model, optim="adagrad", features=features), (3,), 5e-6)


@pytest.mark.parametrize("model", ["dlrm", "wide_deep"])
@pytest.mark.parametrize("weights", [False, True])
def test_several_labels_and_weights_are_learnt_the_same(ranks: Ranks, model, weights):
    case = Case(model=model, features=MIXED, labels=("click", "purchase"), weights=weights)
    check(ranks, case, (2, 3))


@pytest.mark.parametrize("sharding", ["auto", "table", "row", "column", "replicate"])
def test_a_sequence_beside_pooled_vectors_is_learnt_the_same(ranks: Ranks, sharding):
    case = Case(model="history", sharding=sharding, features=MIXED, optim="rowwise_adagrad")
    check(ranks, case, (2, 3), 2e-6)


@pytest.mark.parametrize("sharding", ["auto", "table", "row", "column", "replicate"])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(ranks: Ranks, sharding):
    case = Case(sharding=sharding, features=MIXED, clip=0.02)
    check(ranks, case, (3,))
    assert alone(ranks, case) != alone(ranks, replace(case, clip=0.0))


COMPRESSIONS = {
    "qr": {"compression": "qr", "threshold": 20},
    "mixed_dim": {"compression": "mixed_dim", "threshold": 20, "temperature": 0.6},
    "hash": {"compression": "hash", "threshold": 20, "collisions": 4},
    "hash with weights": {
        "compression": "hash", "threshold": 20, "collisions": 8, "weighted": True, "hashes": 1,
    },
    "split": {"storage": "split"},
}  # fmt: skip


@pytest.mark.parametrize("features", ["one-hot", "mixed"])
@pytest.mark.parametrize("sharding", ["auto", "row", "column"])
@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
def test_compressed_tables_learn_the_same(ranks: Ranks, compression, sharding, features):
    options = {"tables": TablesConfig(init_std=0.1, **COMPRESSIONS[compression])}
    case = Case(options=options, sharding=sharding, features=FEATURES[features], optim="adagrad")
    check(ranks, case, (3,), 2e-6)


def test_tables_that_are_trained_for_codes_learn_the_same(ranks: Ranks):
    # Rounding in the last bit may turn a code, which is 1/255 of what a row spans.
    tables = TablesConfig(init_std=0.1, qat="int8")
    case = Case(options={"tables": tables}, sharding="column", features=MIXED)
    check(ranks, case, (3,), 1e-4)


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"interaction": "cat"}])
def test_options_of_the_model_learn_the_same(ranks: Ranks, options):
    check(ranks, Case(options=options), (2, 3), 2e-6)


def test_adam_learns_the_same(ranks: Ranks):
    check(ranks, Case(optim="adam", features=MIXED), (3,), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_the_way_stays_near(ranks: Ranks, dtype):
    check(ranks, Case(sharding="table", dtype=dtype), (2,), 5e-3)
