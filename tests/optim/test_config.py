"""What the config of an optimizer accepts, and what it builds."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dlrm.errors import ConfigError
from dlrm.optim import OPTIMIZERS, Adam, build, find
from dlrm.optim.config import FLOOR, OptimConfig, learning_rate

from .tables import OWN, net


def test_an_unknown_optimizer_lists_the_choices():
    with pytest.raises(ConfigError, match="sgd, adagrad, rowwise_adagrad, adam, module:name"):
        build("sdg", [], lr=0.1)


def test_an_option_that_is_not_taken_lists_those_that_are():
    with pytest.raises(ConfigError, match="sgd takes no eps; it takes weight_decay, embedding_l2"):
        build("sgd", net().groups(), 0.1, eps=1e-3)


def test_the_help_lists_the_catalogue():
    file = Path(inspect.getfile(OptimConfig)).read_text()
    assert f"{', '.join(OPTIMIZERS)}, or module:Class" in " ".join(file.split())


def test_an_optimizer_of_ones_own_is_found_in_its_module_or_the_current_folder(
    tmp_path, monkeypatch
):
    assert find("dlrm.optim:Adam") is Adam
    assert find(OWN).declaration.state_per_table_row == 1
    (tmp_path / "lying_there.py").write_text("from dlrm.optim import SGD as Mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert find("lying_there:Mine").__name__ == "SGD"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "optim.lr is 0.0"),
        ({"lr": float("nan")}, "optim.lr is nan"),
        (
            {"name": "adma"},
            r"optim.name is 'adma': .* one of: sgd, adagrad, rowwise_adagrad, adam, module:name",
        ),
        (
            {"embedding_rows": "some"},
            r"optim.embedding_rows is 'some': it is one of touched, all, auto",
        ),
        ({"weight_decay": -0.1}, "optim.weight_decay is -0.1"),
        ({"embedding_l2": float("nan")}, "optim.embedding_l2 is nan"),
        ({"name": "nowhere:Adam"}, r"optim.name is 'nowhere:Adam': .* No module named 'nowhere'"),
        ({"name": "torch.optim:Adam"}, "is no subclass of dlrm.optim.SparseOptimizer"),
        ({"name": "dlrm.optim:SparseOptimizer"}, "does not define dense_state, table_state, upd"),
        ({"name": "sgd", "eps": 1e-3}, "optim.eps is 0.001, but sgd takes none"),
        ({"name": "rowwise_adagrad", "beta2": 0.5}, "optim.beta2 is 0.5, but rowwise_adagrad"),
        ({"name": OWN, "weight_decay": 0.1}, "optim.weight_decay is 0.1, but sign_sgd:SignSGD"),
        ({"name": OWN, "embedding_rows": "all"}, "optim.embedding_rows is all, but sign_sgd:Sig"),
        ({"name": "adam", "beta1": 1.0}, "optim.beta1 is 1.0: it is at least 0 and below 1"),
        ({"name": "adam", "eps": 0.0}, "optim.eps is 0.0: it must be positive"),
        ({"name": "adam", "beta2": -0.5}, "optim.beta2 is -0.5"),
        ({"warmup_steps": -1}, "optim.warmup_steps is -1"),
        ({"decay_share": 1.5}, "optim.decay_share is 1.5"),
        ({"decay_share": 0.5, "decay_steps": 9}, "optim.decay_share stands instead"),
        ({"warmup_steps": 10, "decay_start": 5, "decay_steps": 3}, "optim.decay_start is 5"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**wrong)


def test_the_config_builds_what_it_says():
    config = OptimConfig(
        name="adam", lr=0.5, eps=1e-3, beta1=0.5, beta2=0.6, weight_decay=0.1, embedding_l2=0.2,
        embedding_rows="all",
    )  # fmt: skip
    (group,) = config.build([nn.Parameter(torch.zeros(2))]).param_groups
    names = ("lr", "eps", "beta1", "beta2", "weight_decay", "embedding_l2", "embedding_rows")
    assert {name: group[name] for name in names} == {name: getattr(config, name) for name in names}
    (group,) = OptimConfig(name="adam").build([nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["eps"], group["embedding_rows"]) == (1e-8, "touched")
    (group,) = OptimConfig(name="adagrad").build([nn.Parameter(torch.zeros(2))]).param_groups
    assert group["eps"] == 1e-10


@pytest.mark.parametrize(("size", "rows"), [(4_000_000, "all"), (4_000_001, "touched")])
def test_small_models_have_all_rows_in_a_step(size, rows):
    config = OptimConfig(name="adam", embedding_rows="auto")
    (group,) = config.build(iter([nn.Parameter(torch.zeros(size))])).param_groups
    assert group["embedding_rows"] == rows


def test_small_is_what_all_processes_have_together():
    config = OptimConfig(name="adam", embedding_rows="auto")
    rows = [g["embedding_rows"] for g in config.build(net().groups(), total=10**7).param_groups]
    assert rows == ["touched", "touched"]


def test_an_optimizer_of_ones_own_gets_the_options_that_it_names():
    config = OptimConfig(name=OWN, lr=0.2, eps=0.5, beta1=0.3, embedding_rows="auto")
    dense, table = config.build(net().groups()).param_groups
    assert (dense["lr"], dense["eps"], dense["beta1"]) == (0.2, 0.5, 0.3)
    assert table["sparse"] is True
    assert "embedding_rows" not in table


def test_warm_up_is_linear_then_constant():
    rates = [learning_rate(step, 0.8, warmup_steps=4) for step in range(1, 7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_decay_is_quadratic_then_stays():
    rates = [learning_rate(step, 1.0, decay_start=3, decay_steps=4) for step in range(1, 10)]
    assert rates == pytest.approx([1, 1, 1, 9 / 16, 4 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 16])


def test_without_either_nothing_changes():
    assert {learning_rate(step, 0.3) for step in range(1, 50)} == {0.3}


def test_the_decay_ends_at_the_floor():
    assert learning_rate(10**6, 1e-3, decay_start=1, decay_steps=10**6) == FLOOR


def test_a_share_decays_to_the_end_of_any_run():
    config = OptimConfig(lr=1.0, decay_share=0.5)
    for steps in (8, 80):
        rates = [config.rate(step, steps) for step in range(1, steps + 1)]
        assert rates[: steps // 2 + 1] == [1.0] * (steps // 2 + 1)
        assert rates[-1] == pytest.approx((2 / steps) ** 2)
