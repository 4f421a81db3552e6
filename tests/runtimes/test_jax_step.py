"""Training in JAX beside PyTorch: the same losses, parameters and states, step by step."""

from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from small import SMALL
from torch import nn

from batches import draw, history_schema
from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS, build
from dlrm.models.standardized import Standardized
from dlrm.nn.embedding import parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.schema import Schema
from dlrm.training.loss import LossConfig, loss_function
from dlrm.training.step import TrainStep

pytest.importorskip("jax")

from dlrm.runtimes.jax import losses
from dlrm.runtimes.jax.step import JaxStep

HISTORY = history_schema(labels=("click", "buy"))
IDS = Schema.one_hot(3, [300, 7, 120, 2], ["user", "C1", "item", "C2"])
ROWS_ALL: dict[str, Any] = {"embedding_rows": "all", "embedding_l2": 1e-3, "weight_decay": 1e-3}


def make(name: str, schema: Schema, **options) -> nn.Module:
    """A fresh model: of some, all logits are exactly 0."""
    default = MODELS[name]()
    names = {field.name for field in fields(default)}
    small = {key: value for key, value in SMALL.items() if key in names}
    torch.manual_seed(0)
    return build(replace(default, **small | options), schema)


class Twins:
    """A model that both frameworks train."""

    def __init__(
        self, model: nn.Module, optim: OptimConfig, loss: LossConfig | None = None, clip: float = 0
    ):
        loss, task, scale = loss or LossConfig(), "classification", None
        if isinstance(model, Standardized):
            task, scale = "regression", model.deviation
        self.models = torch_model, jax_model = model, deepcopy(model)
        self.optimizers = tuple(optim.build(parameter_groups(m)) for m in self.models)
        self.steps = (
            TrainStep(
                torch_model, self.optimizers[0], loss_function(loss, task, scale), clip=clip,
                rate=lambda number: optim.rate(number, 100),
            ),
            JaxStep(
                jax_model, self.optimizers[1], losses.loss_function(loss, task, scale), clip=clip,
                rate=lambda number: optim.rate(number, 100), samples=16,
            ),
        )  # fmt: skip

    def train(self, batches: list[Batch]) -> None:
        """Train on both, and compare everything that a user sees."""
        for batch in batches:
            ours, theirs = (step(batch).item() for step in self.steps)
            assert theirs == pytest.approx(ours, rel=1e-5)
            _close(self.steps[1].logits, self.steps[0].logits)
        ours, theirs = (model.state_dict() for model in self.models)
        for name, tensor in ours.items():
            _close(theirs[name], tensor)
        for pair in zip(*(model.parameters() for model in self.models), strict=True):
            states = [o.state[p] for o, p in zip(self.optimizers, pair, strict=True)]
            for key in states[0]:
                _close(states[1][key], states[0][key])
        assert self.steps[0].lr == self.steps[1].lr


def _close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def batches(schema: Schema, steps: int) -> list[Batch]:
    """Each tenth is the short one at the end of an epoch."""
    return [draw(schema, 16 if seed % 10 < 9 else 5, seed=seed) for seed in range(steps)]


@pytest.mark.parametrize("schema", [IDS, HISTORY], ids=["ids", "lists"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("name", ["dlrm", "dcn"])
def test_a_hundred_steps_have_the_losses_of_pytorch(name, optimizer, schema):
    twins = Twins(make(name, schema), OptimConfig(name=optimizer, lr=0.05))
    twins.train(batches(schema, 100))
    # Ids of lists are padded to a few sizes, of which each is compiled once.
    compiled = twins.steps[1].compiled
    assert compiled <= (1 if schema is IDS else 2)


@pytest.mark.parametrize(
    ("optim", "clip"),
    [
        (OptimConfig(name="sgd", lr=0.05, warmup_steps=5, decay_start=8, decay_steps=9), 0.05),
        (OptimConfig(name="sgd", lr=0.05, **ROWS_ALL), 0),
        (OptimConfig(name="adagrad", lr=0.05, eps=1e-3, embedding_l2=1e-2), 0.1),
        (OptimConfig(name="rowwise_adagrad", lr=0.05), 0),
        (OptimConfig(name="adam", lr=0.01), 0),
        (OptimConfig(name="adam", lr=0.01, **ROWS_ALL), 0.1),
    ],
)
def test_optimizers_and_their_options(optim, clip):
    Twins(make("fm", HISTORY), optim, clip=clip).train(batches(HISTORY, 20))


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(name="weighted_bce", weights=(0.5, 3.0)),
        LossConfig(name="mse"),
    ],
)
def test_losses_of_samples_that_weigh(loss):
    batch = draw(IDS, 16)
    weighed = replace(batch, weights=torch.linspace(0, 2, 16))
    Twins(make("lr", IDS), OptimConfig(name="sgd"), loss).train([weighed, batch])


def test_regressions_and_crosses_of_lists():
    schema = replace(HISTORY, task="regression")
    crossed = make("wide_deep", schema, crosses=("user*item", "history*words"), cross_rows=50)
    model = Standardized(crossed, 2)
    model.standardize(draw(schema, 99).labels.numpy() * 5 + 3)
    Twins(model, OptimConfig(name="adagrad", lr=0.05)).train(batches(schema, 12))


def test_what_others_put_into_the_torch_model_after_a_step_stays_there():
    twins = Twins(make("lr", IDS), OptimConfig())
    step, model = twins.steps[1], twins.models[1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(draw(IDS, 16))
    # As evaluations of a mean, and the best checkpoint at the end, are put there.
    model.load_state_dict(before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    batch = draw(IDS, 16, seed=1)
    assert not torch.equal(model(batch), step.predict(batch))
    step(batch)
    _close(model(batch), step.predict(batch))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"tables": TablesConfig(storage="bf16")}, "not stored in fp32"),
        ({"tables": TablesConfig(compression="hash", threshold=50)}, "compressed"),
        ({"tables": TablesConfig(qat="int2"), "dim": 16}, "compressed"),
        ({"batch_norm": True}, "batch norm"),
    ],
)
def test_what_jax_does_not_train_is_said(options, what):
    with pytest.raises(ConfigError, match=f"JAX does not train .*{what}.* or take PyTorch"):
        Twins(make("dcn", IDS, **options), OptimConfig())


def test_optimizers_of_ones_own_are_refused():
    with pytest.raises(ConfigError, match=r"JAX has no optimizer SignSGD: it has sgd, adagrad"):
        Twins(make("lr", IDS), OptimConfig(name="sign_sgd:SignSGD"))


def test_a_wrong_id_names_its_feature_and_changes_nothing():
    twins = Twins(make("lr", IDS), OptimConfig())
    batch = draw(IDS, 6)
    wrong = replace(batch, ids=batch.ids + 300)
    with pytest.raises(IdError, match=r"user: id \d+ is out of range, its table has 300 rows"):
        twins.steps[1](wrong)
