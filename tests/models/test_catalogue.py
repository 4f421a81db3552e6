"""The catalogue: models by name, and those of one's own as `module:Class`."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from batches import draw, history_schema
from dlrm.errors import ConfigError
from dlrm.models import MODELS, another, build, find
from dlrm.models.deepfm import DeepFMConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.mf import MFConfig
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Feature, Schema

OWN = '''
"""Attention over the history: its vectors weigh as much as they resemble the item's."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.embedding import Embeddings, add_up, bags_of
from dlrm.nn.mlp import MLP
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class Attention(nn.Module):
    def __init__(self, schema: Schema, config: "AttentionConfig", dtype):
        super().__init__()
        self.items = config.tables.build(schema, config.dim, ["item", "history"])
        sizes = [2 * config.dim, *config.top, schema.num_labels]
        self.top = MLP(sizes, relu_last=False, dtype=dtype)

    def forward(self, batch: Batch) -> Tensor:
        item = self.items(batch)[:, 0]
        history = self.items.sequence(batch, "history")
        sample = bags_of(history.offsets, len(history.values))
        score = torch.sigmoid((history.values * item[sample]).sum(dim=1, keepdim=True))
        interest = add_up(history.values * score, history.offsets, 1)[:, 0]
        return self.top(torch.cat([item, interest], dim=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig:
    name: str = "attention"
    dim: int = 4
    top: tuple[int, ...] = (8,)
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=0.1))

    def build(self, schema: Schema, dtype="fp32") -> Attention:
        return Attention(schema, self, dtype)


@dataclass
class NoModel:
    dim: int = 3


three = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder; the name of its config."""
    (tmp_path / "my_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_models:AttentionConfig"
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_the_name_of_its_config(name):
    assert find(name) is MODELS[name]
    assert find(name)().name == name


def test_a_model_of_ones_own_is_built_and_learns_from_a_history_that_shares_the_items(own):
    schema = history_schema(labels=("click", "buy"))
    config = another(DLRMConfig(dim=6, top=(16,), tables=TablesConfig(storage="bf16")), own)
    assert type(config) is find(own)
    assert (config.name, config.dim, config.top) == (own, 6, (16,))  # pyright: ignore[reportAttributeAccessIssue]
    assert config.tables == TablesConfig(storage="bf16")
    assert another(config, own) is config
    torch.manual_seed(0)
    model, batch = build(config, schema), draw(schema, 7)
    logits = model(batch)
    assert logits.shape == (7, 2)
    # Who has no history is judged by the item alone; ids of others' histories change nothing.
    other = model(draw(schema, 7, longest=0))
    assert other.shape == (7, 2)
    logits.sum().backward()
    weight = model.get_parameter("items.weight")
    assert weight.shape == (120, 6)
    assert weight.grad is not None
    assert batch.lists is not None
    history = batch.lists.columns([0], 2).values
    looked_up = torch.cat([batch.ids[:, 1], history, history]).unique()
    assert torch.equal(weight.grad.coalesce().indices()[0], looked_up)


def test_what_both_have_goes_from_one_model_to_another_and_back(own):
    config = another(DeepFMConfig(dim=5, deep=(9, 7)), own)
    # The one model's tables were as it has them by default, and so are the other's.
    assert config.tables == TablesConfig(init_std=0.1)
    assert config.top == (9, 7)  # pyright: ignore[reportAttributeAccessIssue]
    back = another(config, "deepfm")
    assert back == DeepFMConfig(dim=5, deep=(9, 7))
    assert another(config, "mf") == MFConfig(dim=5)
    assert another(replace(config, tables=TablesConfig(qat="int8")), "mf").tables.qat == "int8"


def test_a_name_that_stands_for_nothing_lists_the_choices(own):
    with pytest.raises(
        ConfigError, match=r'unknown model "dlmr"; choose one of: dlrm, lr, .*module'
    ):
        find("dlmr")
    with pytest.raises(ConfigError, match="model my_models:Nothing: module 'my_models' has no"):
        find("my_models:Nothing")
    with pytest.raises(ConfigError, match="model no_models:Config: No module named 'no_models'"):
        find("no_models:Config")
    with pytest.raises(ConfigError, match='unknown model "nothing"'):
        another(DLRMConfig(), "nothing")


@pytest.mark.parametrize("name", ["Attention", "NoModel", "three"])
def test_what_is_no_config_of_a_model_says_what_is_expected(own, name):
    with pytest.raises(ConfigError, match=rf"my_models:{name} is no config .* a field `name` and"):
        find(f"my_models:{name}")


def test_a_schema_without_what_the_model_needs_is_refused_in_the_words_of_the_seam(own):
    schema = history_schema()
    one_hot = replace(
        schema,
        features=tuple(
            Feature(name=f.name, table=f.table) if f.name == "history" else f
            for f in schema.features
        ),
    )
    model = build(find(own)(), one_hot)
    with pytest.raises(ConfigError, match=r'"history" is no list feature; choose one of: \(none\)'):
        model(draw(one_hot, 2))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        *(
            (name, {"dim": 0}, "model.dim is 0")
            for name in MODELS
            if name not in ("lr", "wide_deep")
        ),
        *(
            (name, {"dropout": share}, f"model.dropout is {share}")
            for name in ("dlrm", "wide_deep", "deepfm", "dcn", "dcnv2", "xdeepfm", "finalmlp")
            for share in (-0.1, 1.0)
        ),
        *(
            (name, {"deep": (4, 0)}, "model.deep is .*: sizes must be positive")
            for name in ("wide_deep", "deepfm", "dcn", "dcnv2", "xdeepfm")
        ),
        ("dlrm", {"projection": 0}, "model.projection is 0: it must be positive"),
        ("dlrm", {"bottom": (4, 0)}, "model.bottom is .*: sizes must be positive"),
        ("dlrm", {"top": (-1,)}, "model.top is .*: sizes must be positive"),
        ("wide_deep", {"dim": -1}, "model.dim is -1"),
        ("wide_deep", {"cross_rows": 0}, "model.cross_rows is 0"),
        ("dcn", {"cross_layers": 0}, "model.cross_layers is 0"),
        ("dcnv2", {"cross_layers": -1}, "model.cross_layers is -1"),
        ("dcnv2", {"rank": -1}, "model.rank is -1"),
        (
            "dcnv2",
            {"structure": "beside"},
            'unknown structure "beside"; choose one of: parallel',
        ),
        ("xdeepfm", {"cin": ()}, "take deepfm"),
        ("xdeepfm", {"cin": (4, 0)}, "model.cin is"),
        ("finalmlp", {"first": ()}, "model.first is"),
        ("finalmlp", {"second": (4, 0)}, "model.second is"),
        ("finalmlp", {"heads": 0}, "model.heads is 0"),
        (
            "finalmlp",
            {"heads": 3},
            "model.heads is 3: it must divide .* model.first, 256",
        ),
        ("finalmlp", {"gate": -1}, "model.gate is -1"),
        ("finalmlp", {"contexts": ("C1", "")}, "model.gate 0: no gates"),
    ],
)
def test_settings_without_meaning_are_refused(name, wrong, message):
    with pytest.raises(ConfigError, match=message):
        MODELS[name](**wrong)


@pytest.mark.parametrize(("dense", "rows"), [(0, (7, 5, 3)), (4, (7,))])
@pytest.mark.parametrize("name", ["dcn", "dcnv2", "finalmlp"])
def test_no_dense_feature_or_one_categorical_is_enough(name, dense, rows):
    schema = Schema.one_hot(dense, rows)
    assert build(MODELS[name](), schema)(draw(schema, 2)).isfinite().all()
