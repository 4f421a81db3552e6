"""Several models on the same rows."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.errors import ConfigError, DivergedError, RunError
from dlrm.models import another
from dlrm.models.dlrm import DLRMConfig
from dlrm.optim.config import OptimConfig
from dlrm.reporting import figure5
from dlrm.reporting.comparison import conclusion
from dlrm.run import Run
from dlrm.training.compare import compare, of_runs
from dlrm.training.comparison import Candidate, Seed, ordered
from dlrm.training.config import TrainConfig
from dlrm.training.trainer import Trainer

SMALL = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    optim=OptimConfig(name="adagrad", lr=0.05),
    loader=LoaderConfig(batch_size=128),
    precision="fp32",
)


@pytest.fixture(scope="module")
def compared(clicks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    made = compare(
        folder, "demo", SMALL, clicks, models=("lr", "dlrm", "trees"), seeds=(0, 1), factors=(1, 4)
    )
    return folder, made


def test_every_model_has_every_seed(compared):
    folder, made = compared
    assert {each.name for each in made.candidates} == {"lr", "dlrm", "trees"}
    assert made.split == "test"
    for each in made.candidates:
        assert [seed.seed for seed in each.seeds] == [0, 1]
        for seed in each.seeds:
            assert seed.metrics["samples"] == 300
    # Two rates with the first seed, and the better one with the second.
    assert len(list((folder / "dlrm").iterdir())) == 3
    assert len(list((folder / "trees").iterdir())) == 2


def test_the_rate_that_is_best_on_validation_stays(compared):
    folder, made = compared
    for name in ("lr", "dlrm"):
        reached = {}
        for path in (folder / name).glob("*-seed-0"):
            evaluation = Run.open(path).evaluation("validation")
            assert evaluation is not None
            reached[Run.open(path).config["optim"]["lr"]] = evaluation["metrics"]["auc"]
        assert len(reached) == 2
        assert made.candidate(name).lr == max(reached, key=lambda lr: reached[lr])


def test_a_rate_that_diverges_is_not_chosen(clicks, tmp_path):
    sgd = replace(SMALL, optim=OptimConfig(name="sgd", lr=0.05), log_every=1)
    made = compare(tmp_path, "demo", sgd, clicks, models=("dlrm",), seeds=(0,), factors=(1e30, 1))
    assert made.best.lr == 0.05
    with pytest.raises(DivergedError, match="every rate tried: 5e"):
        compare(tmp_path, "demo", sgd, clicks, models=("dlrm",), seeds=(1,), factors=(1e30, 1e31))


def test_the_best_stands_first(compared):
    _, made = compared
    means = [each.mean("auc") or 0.0 for each in made.candidates]
    assert means == sorted(means, reverse=True)
    by_loss = ordered("d", "test", "log_loss", made.candidates, None)
    losses = [each.mean("log_loss") or 0.0 for each in by_loss.candidates]
    assert losses == sorted(losses)


def test_parameters_are_counted(compared, clicks):
    _, made = compared
    for name in ("lr", "dlrm"):
        model = another(SMALL.model, name).build(clicks.schema)
        assert made.candidate(name).parameters == sum(p.numel() for p in model.parameters())


def test_finished_runs_are_not_trained_again(compared, clicks, monkeypatch):
    folder, made = compared
    monkeypatch.setattr(Trainer, "fit", None)
    monkeypatch.setattr("dlrm.training.compare.fit_trees", None)
    again = compare(
        folder, "demo", SMALL, clicks, models=("lr", "dlrm", "trees"), seeds=(0, 1), factors=(1, 4)
    )
    assert again == made


def test_seeds_change_parameters_and_order(compared):
    _, made = compared
    for each in made.candidates:
        first, second = each.seeds
        assert first.metrics != second.metrics


def test_a_run_is_what_train_makes_of_its_config(compared, clicks, tmp_path):
    _, made = compared
    best = made.candidate("dlrm")
    config = replace(
        SMALL,
        optim=replace(SMALL.optim, lr=best.lr or 0.0),
        seed=1,
        loader=replace(SMALL.loader, seed=1),
    )
    _, seen = Trainer.complete(tmp_path / "run", "demo", config, clicks, title="again")
    assert seen["test"]["metrics"] == best.seeds[1].metrics


def test_runs_that_were_there_are_grouped_into_seeds(compared, tmp_path):
    _, made = compared
    paths = [seed.run for name in ("lr", "dlrm") for seed in made.candidate(name).seeds]
    grouped = of_runs([tmp_path / (path or "") for path in paths])
    assert {each.name for each in grouped.candidates} == {"lr", "dlrm"}
    for each in grouped.candidates:
        assert each.seeds == made.candidate(each.name).seeds


def test_runs_on_different_rows_are_refused(compared, tmp_path):
    _, made = compared
    config = PrepareConfig(split="chronological")
    other = prepare(ClicksSource(2000, seed=1), tmp_path / "d", config).dataset
    Trainer.complete(tmp_path / "run", "demo", SMALL, other, title="other")
    first = tmp_path / (made.candidate("dlrm").seeds[0].run or "")
    with pytest.raises(RunError, match=r"different rows.*same prepared dataset"):
        of_runs([first, tmp_path / "run"])


def test_an_unknown_model_lists_the_choices(clicks, tmp_path):
    with pytest.raises(ConfigError, match=r"dlrn.*dlrm.*trees"):
        compare(tmp_path, "demo", SMALL, clicks, models=("dlrn",), seeds=(0,))


def test_rates_need_validation_rows(tmp_path):
    data = prepare(
        ClicksSource(500, seed=1),
        tmp_path / "d",
        PrepareConfig(split="chronological", fractions=(400, 0, 100)),
    ).dataset
    with pytest.raises(ConfigError, match="no validation rows"):
        compare(tmp_path / "c", "demo", SMALL, data, models=("lr",), seeds=(0,), factors=(1, 2))


def test_few_seeds_tell_nothing_and_many_do():
    def candidate(name: str, values: list[float]) -> Candidate:
        seeds = tuple(Seed(seed=i, metrics={"auc": v}) for i, v in enumerate(values))
        return Candidate(name=name, lr=0.1, parameters=1, seeds=seeds)

    few = ordered("d", "test", "auc", [candidate("a", [0.7]), candidate("b", [0.8])], None)
    assert few.best.name == "b"
    assert few.chance(few.candidates[0], few.candidates[1]) is None
    alike = [0.71, 0.72, 0.73, 0.70]
    many = ordered("d", "test", "auc", [candidate("a", alike), candidate("b", alike[::-1])], None)
    assert many.chance(many.candidates[0], many.candidates[1]) == 1.0
    apart = ordered(
        "d", "test", "auc", [candidate("a", alike), candidate("b", [v + 0.1 for v in alike])], None
    )
    assert apart.chance(apart.candidates[0], apart.candidates[1]) == pytest.approx(2 / 70)
    assert [row["differs"] for row in apart.to_dict()["models"]] == [None, True]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.floats(0.6, 0.8), min_size=1, max_size=4), min_size=2, max_size=3))
def test_nobody_wins_within_the_noise(models):
    candidates = [
        Candidate(
            name=f"m{k}",
            lr=0.1,
            parameters=1,
            seeds=tuple(Seed(seed=i, metrics={"auc": v}) for i, v in enumerate(values)),
        )
        for k, values in enumerate(models)
    ]
    found = ordered("d", "test", "auc", candidates, None)
    told = all(row["differs"] for row in found.to_dict()["models"][1:])
    assert (found.to_dict()["winner"] == found.best.name) == told
    assert ("is the best, with" in conclusion(found)) == told
    assert ("No model is told to be the best" in conclusion(found)) == (not told)


@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_figure_5_names_a_model_ahead_only_beyond_the_noise(apart):
    def candidate(name: str, more: float) -> Candidate:
        values = (0.71, 0.72, 0.73, 0.70)
        seeds = [Seed(seed=i, metrics={"accuracy": v + more}) for i, v in enumerate(values)]
        return Candidate(name=name, lr=0.1, parameters=1, seeds=tuple(seeds))

    pair = [candidate("dlrm", apart), candidate("dcn", 0.0)]
    said = figure5.conclusion({"sgd": ordered("d", "test", "accuracy", pair, None)})
    assert ("DLRM is ahead of DCN" in said) == (apart > 0)
    assert ("are not told apart" in said) == (apart == 0)
