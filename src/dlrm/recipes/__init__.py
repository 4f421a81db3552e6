"""Named runs: functions that return a whole TrainConfig."""

from collections.abc import Callable
from glob import has_magic
from pathlib import Path

from dlrm import catalogue
from dlrm.recipes.amazon import amazon
from dlrm.recipes.clicks import clicks, demo
from dlrm.recipes.criteo import criteo_head, criteo_kaggle, criteo_terabyte
from dlrm.recipes.frappe import frappe, frappe_ids
from dlrm.recipes.movielens import movielens
from dlrm.recipes.own import own
from dlrm.training.config import TrainConfig

Recipe = Callable[[], TrainConfig]

RECIPES: dict[str, Recipe] = {
    "demo": demo,
    "criteo-kaggle": criteo_kaggle,
    "criteo-terabyte": criteo_terabyte,
    "own": own,
    "amazon": amazon,
    "clicks": clicks,
    "criteo-head": criteo_head,
    "frappe": frappe,
    "frappe-ids": frappe_ids,
    "movielens": movielens,
}
"""Name of a recipe -> the function that returns its config."""


def first_word(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the recipe that a command line begins with, if any, and the flags behind it.

    A first word that is data instead (files, a folder, a pattern) becomes `--data`, and the recipe
    is the one for data of one's own.
    """
    if not words or words[0].startswith("-"):
        return None, words
    if _is_data(words[0]):
        return "own", ["--data", words[0], *words[1:]]
    return words[0], words[1:]


def _is_data(word: str) -> bool:
    if word in RECIPES:
        return False
    there = any(Path(part).exists() or has_magic(part) for part in word.split(","))
    # A file that is missing shall be called a missing file, not an unknown recipe.
    return there or ("." in word and ":" not in word)


def find(name: str) -> Recipe:
    """Return the recipe of that name, or the function that `module:function` names.

    Raises:
        ConfigError: There is none; lists the choices.

    """
    return catalogue.find("recipe", name, RECIPES)
