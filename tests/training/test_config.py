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
