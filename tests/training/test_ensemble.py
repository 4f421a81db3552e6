"""An ensemble is its members trained alone, and the mean of what they say."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.data.loader import Loader, LoaderConfig
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted, RunError
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.fm import FMConfig
from dlrm.models.lr import LRConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training import compare, interrupt
from dlrm.training.compression import sweep
from dlrm.training.config import EvalConfig, TrainConfig, from_dict, to_dict
from dlrm.training.ensemble import Ensemble, Mean, members, model_name
from dlrm.training.load import load_model, training_stats
from dlrm.training.trainer import Trainer, baseline_of

CONFIG = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    optim=OptimConfig(name="rowwise_adagrad", lr=0.05),
    loader=LoaderConfig(batch_size=300, seed=7),
    eval=EvalConfig(every=4),
    precision="fp32",
    log_every=1,
    seed=4,
    ensemble=3,
)
MIXED = replace(CONFIG, ensemble_models=(FMConfig(dim=2),))


class Says(nn.Module):
    """A model of fixed logits."""

    def __init__(self, logits: Sequence[float]):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, batch: Batch) -> Tensor:
        return self.logits


NOTHING = Batch(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.int32), torch.zeros(3))


def _stop_at(calls: int) -> type[interrupt.Interrupt]:
    """Return an Interrupt that wants to stop once all of its kind were asked so often."""
    asked = 0

    class Stop(interrupt.Interrupt):
        @property
        def requested(self) -> bool:
            nonlocal asked
            asked += 2
            return asked > calls

    return Stop


def trained(path: Path, dataset: Dataset, config: TrainConfig = CONFIG) -> Run:
    run, _ = Trainer.complete(path, "custom", config, dataset, title="")
    return run


def parameters(run: Run) -> dict[str, Tensor]:
    """Return all parameters of all checkpoints in a run and below, by file and name."""
    return {
        f"{file.relative_to(run.path)}: {name}": tensor
        for file in sorted(run.path.rglob("model.safetensors"))
        for name, tensor in load_file(file).items()
    }


def said(run: Run) -> list[dict[str, Any]]:
    """Return all lines of metrics.jsonl in a run and below, without what depends on the clock."""
    clock = ("elapsed_s", "samples_per_s", "loading_share")
    return [
        {"of": str(file.relative_to(run.path))} | {k: v for k, v in row.items() if k not in clock}
        for file in sorted(run.path.rglob("metrics.jsonl"))
        for row in map(json.loads, file.read_text().splitlines())
        if row["event"] != "resumed"
    ]


@pytest.fixture(scope="module")
def whole(clicks, tmp_path_factory) -> Run:
    """An ensemble of three that was never stopped."""
    return trained(tmp_path_factory.mktemp("ensemble") / "run", clicks)


logit = st.floats(-80, 80, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(logit, logit, logit), min_size=1, max_size=6))
def test_the_mean_is_that_of_logits_or_of_probabilities(rows):
    z = np.array(rows, dtype=np.float64)
    for mean in ("logits", "probabilities"):
        found = Ensemble(map(Says, rows), mean)(NOTHING).double().numpy()
        if mean == "logits":
            expected = z.mean(axis=0)
        else:
            # sigmoid(z) and 1 - sigmoid(z) each in a form that loses nothing.
            expected = np.log((1 / (1 + np.exp(-z))).mean(0)) - np.log(
                (1 / (1 + np.exp(z))).mean(0)
            )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_members_differ_by_seed_and_model_alone():
    found = members(replace(MIXED, baseline=True))
    assert [member.seed for member in found] == [4, 5, 6]
    assert [member.loader.seed for member in found] == [7, 8, 9]
    assert [member.model.name for member in found] == ["dlrm", "fm", "dlrm"]
    for member in found:
        again = replace(member, seed=4, loader=CONFIG.loader, model=CONFIG.model, ensemble=3)
        assert again == CONFIG


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (replace(CONFIG, ensemble=1), "dlrm"),
        (CONFIG, "dlrm x 3"),
        (MIXED, "dlrm x 2 + fm"),
        (replace(MIXED, ensemble=1), "dlrm"),
    ],
)
def test_an_ensemble_is_named_by_its_models(config, name):
    assert model_name(config) == name


@pytest.mark.parametrize("config", [CONFIG, MIXED])
def test_a_config_with_further_models_survives_json(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="ensemble is 0"):
        TrainConfig(ensemble=0)


def test_the_baseline_of_an_ensemble_is_one_model():
    assert baseline_of(MIXED).ensemble == 1
    assert members(baseline_of(MIXED))[0].model == LRConfig()


def test_an_ensemble_is_its_members_trained_alone(whole, clicks, tmp_path):
    logits = []
    for k in range(3):
        seeds = {"seed": 4 + k, "loader": replace(CONFIG.loader, seed=7 + k)}
        alone = trained(tmp_path / str(k), clicks, replace(CONFIG, ensemble=1, **seeds))
        inside = Run(whole.path / "members" / str(k))
        theirs, ours = parameters(alone), parameters(inside)
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert alone.evaluation("test") == inside.evaluation("test")
        with torch.inference_mode():
            logits.append(load_model(alone)(next(batches(clicks))))
    with torch.inference_mode():
        found = load_model(whole)(next(batches(clicks)))
    torch.testing.assert_close(found, torch.stack(logits).mean(dim=0), rtol=0, atol=1e-6)
    assert not torch.equal(logits[0], logits[1])


def batches(dataset: Dataset):
    return Loader(dataset.split("test"), batch_size=100).epoch()


def test_what_it_says_of_itself(whole):
    evaluation = whole.evaluation("test")
    assert evaluation is not None
    assert evaluation["model"] == "dlrm x 3"
    assert [(each["model"], each["seed"]) for each in evaluation["members"]] == [
        ("dlrm", 4),
        ("dlrm", 5),
        ("dlrm", 6),
    ]
    inside = [Run(whole.path / "members" / str(k)) for k in range(3)]
    for each, run in zip(evaluation["members"], inside, strict=True):
        assert each["metrics"] == (run.evaluation("test") or {})["metrics"]
    # Log loss is convex in the logit: the mean is never worse than the members are on average.
    alone = [each["metrics"]["log_loss"] for each in evaluation["members"]]
    assert evaluation["metrics"]["log_loss"] < np.mean(alone)
    assert training_stats(whole).samples == sum(training_stats(run).samples for run in inside)
    assert training_stats(whole).step == sum(training_stats(run).step for run in inside)


@pytest.mark.parametrize(("calls", "finished"), [(3, 0), (18, 1), (33, 2)])
def test_a_stopped_ensemble_goes_on_exactly(whole, clicks, tmp_path, calls, finished):
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(calls))
        with pytest.raises(
            Interrupted, match=rf"member \d of 3; .* dlrm train --run {path} --resume"
        ):
            trained(path, clicks)
    done = list(path.glob("members/*/evaluation-test.json"))
    assert len(done) == finished
    before = {file: file.stat().st_mtime_ns for file in done}
    torch.manual_seed(99)
    run = trained(path, clicks)
    assert {file: file.stat().st_mtime_ns for file in done} == before
    assert said(run) == said(whole)
    assert run.evaluation("test") == whole.evaluation("test")
    ours, theirs = load_model(run).state_dict(), load_model(whole).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_member_killed_before_its_config_was_written_starts_anew(whole, clicks, tmp_path):
    half = tmp_path / "run" / "members" / "1"
    run = Trainer.create(tmp_path / "run", "custom", CONFIG, clicks).run
    half.mkdir(parents=True)
    (half / "schema.json").write_text("{")
    trained(run.path, clicks)
    assert run.evaluation("test") == whole.evaluation("test")


def test_an_ensemble_that_is_not_finished_has_no_model(clicks, tmp_path):
    run = Trainer.create(tmp_path / "run", "custom", CONFIG, clicks).run
    with pytest.raises(RunError, match="no such run"):
        load_model(run)


def test_a_diverged_member_is_named(clicks, tmp_path):
    from dlrm.errors import DivergedError

    config = replace(CONFIG, optim=OptimConfig(name="sgd", lr=1e30))
    with pytest.raises(DivergedError, match="member 1 of 3"):
        trained(tmp_path / "run", clicks, config)


def test_models_of_several_kinds_are_averaged(clicks, tmp_path):
    mean: Mean = "probabilities"
    run = trained(tmp_path / "run", clicks, replace(MIXED, ensemble_mean=mean, ensemble=2))
    model = load_model(run)
    assert isinstance(model, Ensemble)
    batch = next(batches(clicks))
    with torch.inference_mode():
        alone = [torch.sigmoid(member(batch)) for member in model.members]
        torch.testing.assert_close(torch.sigmoid(model(batch)), (alone[0] + alone[1]) / 2)
    assert (run.evaluation("test") or {})["model"] == "dlrm + fm"


def test_ensembles_are_compared_by_name(whole, clicks, tmp_path):
    single = trained(tmp_path / "single", clicks, replace(CONFIG, ensemble=1))
    other = trained(tmp_path / "other", clicks, replace(CONFIG, ensemble=3, seed=7))
    found = compare.of_runs([whole.path, single.path, other.path])
    ensemble, alone = found.candidate("dlrm x 3"), found.candidate("dlrm")
    assert [seed.seed for seed in ensemble.seeds] == [4, 7]
    assert alone.parameters is not None
    assert ensemble.parameters == 3 * alone.parameters


def test_ensembles_that_share_members_are_no_two_seeds(whole, clicks, tmp_path):
    near = trained(tmp_path / "near", clicks, replace(CONFIG, seed=6))
    with pytest.raises(RunError, match=r"members in common.*--seed 0, 3, 6"):
        compare.of_runs([whole.path, near.path])


def test_a_comparison_of_ensembles_shares_no_members(clicks, tmp_path):
    found = compare.compare(
        tmp_path / "compare",
        "custom",
        replace(MIXED, ensemble=2),
        clicks,
        models=["lr"],
        seeds=[0, 1],
    )
    (only,) = found.candidates
    assert only.name == "lr x 2"
    seeds = [
        from_dict(Run(path.parent).config).seed
        for path in (tmp_path / "compare").rglob("members/*/config.json")
    ]
    assert sorted(seeds) == [0, 1, 2, 3]


def test_the_tables_of_an_ensemble_are_compressed_as_one(whole, clicks, tmp_path):
    single = sweep(
        Run(whole.path / "members" / "0"),
        replace(CONFIG, ensemble=1),
        clicks,
        clicks.split("test"),
        [],
        lambda: None,
    )
    run = trained(tmp_path / "run", clicks)
    tables = [("hash 4", "hash", TablesConfig(compression="hash", collisions=4, threshold=16))]
    found = sweep(run, CONFIG, clicks, clicks.split("test"), tables, lambda: None)
    assert found.base.size_bytes == 3 * single.base.size_bytes
    assert found.base.log_loss == (whole.evaluation("test") or {})["metrics"]["log_loss"]
    assert found.candidates[-1].size_bytes < found.base.size_bytes
    assert from_dict(Run.open(Path(found.candidates[-1].run or "")).config).ensemble == 3
