"""Equal seeds make equal models, whatever else draws random numbers meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.data.loader import LoaderConfig
from dlrm.data.store import Dataset
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.mlp import MLP
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import TrainConfig
from dlrm.training.draws import Draws
from dlrm.training.trainer import Trainer


class Foreign(nn.Module):
    """A model of layers that know torch's global generator alone."""

    def __init__(self, dense: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dense, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        )

    def forward(self, batch: Batch) -> Tensor:
        return self.layers(batch.dense)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignConfig:
    name: str = "test_draws:ForeignConfig"

    def build(self, schema, dtype="fp32"):
        del dtype
        return Foreign(len(schema.dense))


OURS = DLRMConfig(dim=4, bottom=(8,), top=(8,), dropout=0.5, tables=TablesConfig(storage="bf16"))


def parameters(path: Path, config: TrainConfig, dataset: Dataset) -> list[Tensor]:
    trained = Trainer.create(path, "custom", config, dataset).fit().model
    return [p.detach().clone() for p in trained.parameters()]


@pytest.mark.parametrize("model", [OURS, ForeignConfig()], ids=["ours", "foreign"])
def test_equal_seeds_in_threads_make_equal_models(clicks, tmp_path, model):
    config = TrainConfig(
        model=model,
        optim=OptimConfig(name="adagrad", lr=0.05),
        loader=LoaderConfig(batch_size=200),
        max_steps=8,
        precision="fp32",
    )
    state = torch.get_rng_state()
    alone = parameters(tmp_path / "alone", config, clicks)
    # What the caller draws goes on as if nothing had been drawn here.
    assert torch.equal(torch.get_rng_state(), state)
    with ThreadPoolExecutor(3) as pool:
        together = [
            pool.submit(parameters, tmp_path / str(k), replace(config), clicks) for k in range(3)
        ]
    for other in together:
        assert all(map(torch.equal, alone, other.result()))


def test_dropout_of_a_generator_is_that_of_torch():
    mlp, x = MLP([4, 16, 1], relu_last=False, dropout=0.3), torch.ones(9, 4)
    torch.manual_seed(5)
    expected = mlp(x)
    mlp.generator = torch.Generator().manual_seed(5)
    assert torch.equal(mlp(x), expected)


def test_draws_go_on_where_they_stood():
    draws = Draws()
    draws.seed(3)
    with draws.lent():
        torch.rand(3)
    states = draws.states()
    with draws.lent():
        expected = torch.rand(3)
    draws.restore(states)
    with draws.lent():
        assert torch.equal(torch.rand(3), expected)
