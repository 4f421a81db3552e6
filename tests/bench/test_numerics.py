"""What fewer bits cost: intervals and verdicts against simulation, variants on a little data."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.tiny import speeds_of_a_moment
from dlrm.batch import Batch
from dlrm.bench.numerics import study
from dlrm.bench.numerics.study import Study, read_bytes, score, tables_bytes
from dlrm.bench.numerics.variants import REFERENCE, VARIANTS, Variant, chosen
from dlrm.bench.numerics.verdict import (
    NEUTRAL,
    Change,
    change,
    conclusion,
    pareto,
    rows,
    student,
    verdict,
)
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DatasetError, DivergedError, Interrupted
from dlrm.metrics.intervals import difference
from dlrm.models import build
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
from dlrm.nn.quantized import quantize
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema
from dlrm.training.config import EvalConfig, LoaderConfig, TrainConfig
from dlrm.training.evaluate import predict_split

SMALL = TrainConfig(
    model=DLRMConfig(dim=16, bottom=(8,), top=(8,)),
    loader=LoaderConfig(batch_size=256),
    eval=EvalConfig(every=1000),
)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with speeds_of_a_moment():
        yield


def test_quantiles_are_students():
    # Of the sampling distribution itself, for few degrees of freedom and for many.
    rng = np.random.default_rng(0)
    for freedom in (1, 2, 4, 12, 40):
        draws = rng.standard_normal((200_000, freedom + 1))
        t = draws.mean(1) / draws.std(1, ddof=1) * (freedom + 1) ** 0.5
        assert np.quantile(np.abs(t), 0.95) == pytest.approx(student(freedom), rel=0.03)
    values = [student(freedom) for freedom in range(1, 200)]
    assert values == sorted(values, reverse=True)
    assert student(10**6) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize(("seeds_std", "rows_std"), [(0.01, 0.0), (0.0, 0.01), (0.01, 0.01)])
def test_intervals_cover_the_truth(seeds_std, rows_std):
    rng, seeds, covered, repeats = np.random.default_rng(1), 4, 0, 600
    for _ in range(repeats):
        # One draw of the rows shifts all seeds alike; resamples spread as much around it.
        luck = rng.normal(0, rows_std)
        values = 0.003 + luck + rng.normal(0, seeds_std, seeds)
        around = rng.normal(0, rows_std, 200)
        resampled = [value + around for value in values]
        found = change(values.tolist(), [0.0] * seeds, resampled, [np.zeros(200)] * seeds)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.003 <= found.high
    assert 0.92 < covered / repeats <= 0.99


def test_equal_models_differ_by_nothing():
    same = [np.linspace(0.6, 0.7, 50)] * 3
    assert change([0.6, 0.7, 0.8], [0.6, 0.7, 0.8], same, same) == Change(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-NEUTRAL, NEUTRAL, "neutral"),
        (-1e-4, -1e-5, "neutral"),
        (-3e-4, -1e-5, "worse"),
        (-0.02, -0.01, "worse"),
        (1e-5, 3e-4, "better"),
        (-1e-4, 3e-4, "no verdict"),
        (-3e-4, 1e-4, "no verdict"),
        (-0.01, 0.01, "no verdict"),
    ],
)
def test_neutral_is_only_what_lies_inside_as_a_whole(low, high, said):
    assert verdict(Change((low + high) / 2, low, high)) == said


def test_the_reference_comes_first_and_unknown_variants_are_named():
    assert [v.name for v in chosen("int8, fp16,int8")] == ["fp32", "fp16", "int8"]
    assert [v.name for v in chosen("")] == list(VARIANTS)
    assert next(iter(VARIANTS)) == REFERENCE.name
    with pytest.raises(ConfigError, match='unknown variant "int3"; choose one of: fp32, mlp-bf16'):
        chosen("int8,int3")
    with pytest.raises(ConfigError, match="variants is fp32: nothing to compare"):
        chosen("fp32")


@pytest.mark.parametrize("bits", ["fp16", "bf16", "int8", "int4", "int2"])
def test_bytes_are_those_of_the_rows_that_a_sample_reads(bits):
    schema = Schema.one_hot(0, [100, 40], ["a", "b"])
    tables = materialize(TablesConfig(init_std=0.1).build(schema, 16))
    row = {"fp16": 32, "bf16": 32, "int8": 24, "int4": 12, "int2": 8}[bits]
    small = quantize(tables, bits)
    assert read_bytes(tables, {}) == 2 * 64
    assert read_bytes(small, {"b": 2.5}) == row * 3.5
    assert tables_bytes(small) == 140 * row
    config = TablesConfig(compression="hash", threshold=50)
    hashed = config.build(Schema.one_hot(0, [1000, 40], ["a", "b"]), 16)
    assert read_bytes(hashed, {}) == (2 + 1) * 64
    trained = materialize(TablesConfig(qat="int2").build(schema, 16))
    assert read_bytes(quantize(trained, "int2"), {}) == 2 * 8


def test_resamples_are_those_of_the_paired_bootstrap(clicks: Dataset):
    torch.manual_seed(0)
    models = [build(SMALL.model, clicks.schema).eval() for _ in range(2)]
    split = clicks.split("test")
    a, b = (score(model, split, clicks.schema, 128) for model in models)
    logits = [predict_split(model, split, 128).arrays()[0][:, 0] for model in models]
    expected = difference(logits[0], logits[1], np.asarray(split.labels[:, 0]))["auc"]
    assert expected is not None
    assert a.value("auc") - b.value("auc") == expected.value
    ends = np.quantile(a.resampled - b.resampled, [0.025, 0.975])
    assert ends == pytest.approx([expected.low, expected.high])


@pytest.fixture(scope="module")
def whole(clicks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Any]]:
    """Every variant with two seeds, and its ticks."""
    folder = tmp_path_factory.mktemp("study")
    ticks = []
    made = Study("demo", SMALL, clicks, list(VARIANTS.values()), 2)
    made.run(folder, lambda variant, seed: ticks.append((variant.name, seed)))
    assert not list(folder.iterdir())
    assert len(ticks) == made.units == 2 * len(VARIANTS)
    return made, rows(made, "little")


def test_every_variant_is_a_row(whole):
    made, found = whole
    assert [row["variant"] for row in found] == list(VARIANTS)
    by_name = {row["variant"]: row for row in found}
    reference = by_name["fp32"]
    assert reference["noise_auc"] > 0
    assert reference["auc_change"] == 0
    tables = len(made.dataset.schema.features)
    for name, row in by_name.items():
        assert row["error"] is None
        assert row["seeds"] == [0, 1]
        assert row["samples_per_s"] > 0
        assert len({len(row[metric]) for metric in ("auc", "log_loss", "calibration")}) == 1
        trained = VARIANTS[name].kind in ("training", "qat")
        assert (row["training_speedup"] is not None) == (trained or name == "fp32")
        if name != "fp32":
            low, high = row["auc_change_low"], row["auc_change_high"]
            assert low <= row["auc_change"] <= high
            mean = np.mean(np.subtract(row["auc"], reference["auc"]))
            assert row["auc_change"] == pytest.approx(mean)
            assert row["verdict"] == verdict(Change(0.0, low, high))
    numbers = {"fp32": 64, "mlp-bf16": 64, "int8": 24, "aware-int8": 24, "int4": 12, "int2": 8}
    for name, row_bytes in (numbers | dict.fromkeys(("fp16", "split-bf16"), 32)).items():
        assert by_name[name]["bytes_per_sample"] == tables * row_bytes
    # Post-training variants are of the same training, others are not.
    assert abs(by_name["fp16"]["auc_change"]) < 1e-3
    assert by_name["fp16"]["verdict"] in ("neutral", "no verdict")
    for name in ("bf16-nearest", "aware-int2"):
        assert by_name[name]["auc"] != reference["auc"]


def test_the_frontier_is_what_nothing_beats(whole):
    _, found = whole
    best = [row for row in found if row["pareto"]]
    assert best
    for one in best:
        for row in found:
            beaten = (
                row["bytes_per_sample"] <= one["bytes_per_sample"]
                and row["auc_change"] >= one["auc_change"]
            )
            same = (row["bytes_per_sample"], row["auc_change"]) == (
                one["bytes_per_sample"],
                one["auc_change"],
            )
            assert not beaten or same
    failed = {**best[0], "error": "it broke"}
    assert not pareto(failed, found)


def few(clicks: Dataset, *names: str, config: TrainConfig = SMALL, seeds: int = 2) -> Study:
    return Study("demo", config, clicks, chosen(",".join(names)), seeds)


def test_what_fails_is_a_row_and_the_rest_is_kept(clicks, tmp_path, monkeypatch):
    plain = study.quantize

    def breaks(model: Any, to: Any) -> Any:
        if to == "int4":
            raise RuntimeError("out of luck")
        return plain(model, to)

    monkeypatch.setattr(study, "quantize", breaks)
    qr = replace(SMALL.model, tables=TablesConfig(compression="qr", threshold=20))
    made = few(clicks, "int8", "int4", "aware-int8", config=replace(SMALL, model=qr))
    made.run(tmp_path, lambda *_: None)
    found = {row["variant"]: row for row in rows(made, "little")}
    assert found["int8"]["error"] is None
    assert found["int8"]["seeds"] == [0, 1]
    assert found["int4"]["error"] == "RuntimeError: out of luck"
    assert "tables.qat is int8, but says nothing to" in found["aware-int8"]["error"]
    assert found["aware-int8"]["auc_mean"] is None
    assert not found["int4"]["pareto"]


def test_a_reference_that_diverges_is_an_error(clicks, tmp_path):
    config = replace(SMALL, optim=replace(SMALL.optim, name="sgd", lr=1e30))
    with pytest.raises(DivergedError):
        few(clicks, "int8", config=config).run(tmp_path, lambda *_: None)


def test_a_reference_that_fails_later_leaves_what_was_there(clicks, tmp_path, monkeypatch):
    made = few(clicks, "int8", seeds=3)
    plain = Study._trained

    def fails(self: Study, variant: Variant, seed: int, folder: Any) -> Any:
        if seed == 2:
            raise DivergedError("the loss is no number")
        return plain(self, variant, seed, folder)

    monkeypatch.setattr(Study, "_trained", fails)
    made.run(tmp_path, lambda *_: None)
    reference, small = rows(made, "little")
    assert reference["error"] == "seed 2: the loss is no number"
    assert reference["seeds"] == small["seeds"] == [0, 1]
    assert small["error"] is None
    assert small["auc_change_low"] <= small["auc_change"] <= small["auc_change_high"]


def test_what_was_measured_before_it_was_stopped_is_there(clicks, tmp_path):
    made = few(clicks, "fp16", "int8", seeds=3)

    def tick(variant: Variant, seed: int) -> None:
        if (variant.name, seed) == ("int8", 2):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        made.run(tmp_path, tick)
    found = {row["variant"]: row for row in rows(made, "little")}
    assert [len(row["seeds"]) for row in found.values()] == [3, 3, 2]
    assert found["int8"]["auc_change_low"] is not None
    first = few(clicks, "fp16", "int8")
    with pytest.raises(Interrupted):
        first.run(tmp_path, lambda v, s: tick(v, 2) if v.name == "int8" else None)
    begun = rows(first, "little")
    assert [row["variant"] for row in begun] == ["fp32", "fp16"]
    assert begun[1]["auc_change_low"] is None
    assert begun[1]["verdict"] == "no verdict"
    assert "nothing can be said" in conclusion(begun)


def test_too_little_of_anything_is_refused(clicks, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="seeds is 1: at least 2 are needed"):
        few(clicks, "int8", seeds=1)
    large = replace(SMALL, loader=LoaderConfig(batch_size=5000))
    with pytest.raises(ConfigError, match="batch_size is 5000, and there are 2,400 training rows"):
        few(clicks, "int8", config=large)
    monkeypatch.setattr(study, "memory_bytes", lambda: 10_000)
    with pytest.raises(
        ConfigError, match=r"take .* with their optimizers, and this machine has 10"
    ):
        few(clicks, "int8")
    monkeypatch.undo()
    untested = prepare(
        ClicksSource(500),
        tmp_path / "none",
        PrepareConfig(split="chronological", fractions=(0.9, 0.1, 0.0)),
    ).dataset
    with pytest.raises(DatasetError, match="the test split has no rows; see --prepare"):
        few(untested, "int8")


def row(variant: str, change: float, said: str, bytes_: float = 64.0) -> dict[str, Any]:
    kind = "reference" if variant == "fp32" else "post-training"
    return {
        "variant": variant, "kind": kind, "auc_change": change, "verdict": said,
        "auc_change_low": change - 0.005, "auc_change_high": change + 0.005,
        "bytes_per_sample": bytes_, "noise_auc": 0.001, "error": None,
    }  # fmt: skip


def test_the_conclusion_names_the_smallest_neutral_one_and_what_training_brings_back():
    base = row("fp32", 0.0, "")
    found = [base, row("fp16", 0.0, "neutral", 32), row("int8", 1e-5, "neutral", 20)]
    assert conclusion(found) == "int8 is neutral at 3.2 times fewer bytes a sample."
    found.append(row("int2", -0.012, "worse", 8))
    for cost, said in (
        (-0.003, "; training for it brings back 0.0090."),
        (-0.02, "; training for it brings nothing back."),
        (-0.011, "; whether training for it brings something back cannot be told."),
    ):
        trained = row("aware-int2", cost, "worse", 8)
        told = conclusion([*found, trained])
        assert f"int2 after training costs 0.0120 AUC{said}" in told
    assert conclusion(found).endswith("costs 0.0120 AUC.")
    assert "Nothing is shown to be neutral" in conclusion([base, row("int8", 0.0, "no verdict")])


def test_a_batch_takes_the_same_step_as_the_loop(clicks):
    step = study._step(SMALL, clicks)
    batch: Batch = study._batches(clicks.split("train"), 256, 256)[0]
    losses = [step(batch) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert len(study._batches(clicks.split("test"), 2048, 100)) == 1


def test_collections_of_one_table_are_counted_too():
    layout = Layout.of(Schema.one_hot(0, [10]))
    assert read_bytes(materialize(EmbeddingCollection(layout, 3)), {}) == 12
