import json
from dataclasses import replace

import pytest

from dlrm import recipes
from dlrm.errors import ConfigError
from dlrm.models import MODELS
from dlrm.training.config import EvalConfig, TrainConfig, from_dict, to_dict


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=list(recipes.RECIPES))
@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_configs_survive_json(recipe, model):
    config = replace(recipe(), model=model())
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_field_is_named_with_the_choices():
    values = to_dict(TrainConfig())
    values["optim"]["learning_rate"] = 1
    with pytest.raises(ConfigError, match=r"config.optim has no field learning_rate; it has .*lr"):
        from_dict(values)


def test_an_unknown_model_is_named():
    values = to_dict(TrainConfig())
    values["model"]["name"] = "dlrn"
    with pytest.raises(ConfigError, match=r"config\.model\.name is 'dlrn'"):
        from_dict(values)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"log_every": 0}, {"max_steps": -1}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrainConfig(**wrong)


def test_evaluation_settings_without_meaning_are_refused():
    with pytest.raises(ConfigError, match=r"eval\.patience is -1"):
        EvalConfig(patience=-1)


def test_recipes_are_found_by_name_and_by_module():
    assert recipes.find("demo")() == recipes.find("dlrm.recipes.clicks:demo")()
    with pytest.raises(ConfigError, match=r'unknown recipe "demon".*criteo-kaggle'):
        recipes.find("demon")
    with pytest.raises(ConfigError, match="no attribute"):
        recipes.find("dlrm.recipes.clicks:nothing")


@pytest.mark.parametrize(
    ("settings", "steps_per_epoch", "due"),
    [
        # As many an epoch as asked for, the last at its end.
        ({}, 20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]),
        ({"per_epoch": 2}, 7, [4, 7, 8, 12, 14, 16, 20, 21, 24]),
        # Epochs shorter than that end without one.
        ({"per_epoch": 2, "min_steps": 8}, 3, [8, 16, 24]),
        ({"per_epoch": 2, "min_steps": 8}, 12, [8, 12, 16, 24]),
        ({"every": 9, "min_steps": 99}, 10, [9, 10, 18, 20]),
    ],
)
def test_evaluations_are_so_many_an_epoch_and_so_many_steps_apart(settings, steps_per_epoch, due):
    evaluation = EvalConfig(**settings)
    assert [s for s in range(1, 25) if evaluation.is_due(s, steps_per_epoch)] == due
    in_first_epoch = [step for step in due if step <= steps_per_epoch]
    expected = len(in_first_epoch) or steps_per_epoch / evaluation.min_steps
    assert evaluation.evaluations(steps_per_epoch) == pytest.approx(expected)
