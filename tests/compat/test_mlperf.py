"""The flags of MLPerf and of profiling, as the original's scripts give them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from dlrm.compat.criteo_log import batches_shuffled
from dlrm.compat.measures import metrics_of

from .logs import write_log
from .session import ok, run

TERABYTE = (
    *("--data-generation=dataset", "--data-set=terabyte", "--raw-data-file=day"),
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=8-1"),
    *("--loss-function=bce", "--round-targets=True", "--learning-rate=0.5"),
    *("--mini-batch-size=8", "--print-freq=2048", "--print-time", "--test-freq=2"),
    *("--test-mini-batch-size=16", "--test-num-workers=16", "--memory-map"),
    *("--mlperf-logging", "--mlperf-bin-loader", "--mlperf-bin-shuffle"),
)
SMALL = ("--mini-batch-size=2", "--data-size=8", "--learning-rate=0.1")


@pytest.fixture(autouse=True)
def folder(workdir: Path) -> Path:
    return workdir


@pytest.fixture
def days(folder: Path) -> None:
    for day in range(24):
        write_log(folder / f"day_{day}", 40 if day == 23 else 6, seed=day)


def test_a_test_pass_prints_its_metrics(days):
    lines = ok(*TERABYTE, "--mlperf-auc-threshold=0.9999").lines
    tested = [line for line in lines if line.startswith("recall ")]
    assert len(tested) > 2
    names = ("precision", "f1", "ap", "auc", "best auc", "accuracy", "best accuracy")
    assert all(f", {name} " in line for name in names for line in tested)
    assert not any("stop training" in line for line in lines)


@pytest.mark.parametrize("kind", ["auc", "acc"])
def test_training_ends_at_the_threshold(kind, days):
    lines = ok(*TERABYTE, f"--mlperf-{kind}-threshold=0.0001").lines
    word = "accuracy" if kind == "acc" else "auc"
    said = [line for line in lines if not line.startswith(":::MLLOG")]
    assert said[-1] == f"MLPerf testing {word} threshold 0.0001 reached, stop training"
    assert sum(line.startswith("recall ") for line in lines) == 1


def test_gradients_of_several_batches_make_one_update():
    plain = ok(*SMALL, "--debug-mode", "--mlperf-grad-accum-iter=4").lines
    assert plain == ok(*SMALL, "--debug-mode").lines
    one, two = (
        ok(*SMALL, "--debug-mode", "--mlperf-logging", f"--mlperf-grad-accum-iter={n}").lines
        for n in (1, 2)
    )
    losses = [[line for line in lines if "loss" in line] for lines in (one, two)]
    # The second batch is still seen by the first parameters, the third by updated ones.
    assert losses[0][1] == losses[1][1]
    assert losses[0][2] != losses[1][2]
    assert one[-1] != two[-1]
    assert run("--mlperf-grad-accum-iter=0").status == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_metrics_are_those_of_scikit_learn(samples):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = np.array([score / 9 for score, _ in samples])
    labels = np.array([float(label) for _, label in samples])
    found = metrics_of(scores, labels)
    rounded = np.round(scores)
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(labels, rounded))
    for name in ("recall", "precision", "f1"):
        right = getattr(sklearn, f"{name}_score")(labels, rounded, zero_division=0)
        assert getattr(found, name) == pytest.approx(right)
    if labels.any():
        right = sklearn.average_precision_score(labels, scores)
        assert found.average_precision == pytest.approx(right)
    if len(set(labels)) == 2:
        assert found.auc == pytest.approx(sklearn.roc_auc_score(labels, scores))


@given(st.integers(0, 50), st.integers(1, 7), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_whole_batches_are_shuffled(rows, size, seed):
    order = RandomState(9).permutation(rows)
    shuffled = batches_shuffled(order, size, seed)
    whole = rows // size * size
    before, after = (o[:whole].reshape(-1, size).tolist() for o in (order, shuffled))
    assert sorted(before) == sorted(after)
    assert shuffled[whole:].tolist() == order[whole:].tolist()


@pytest.mark.parametrize("more", [(), ("--inference-only",)])
def test_profiling_leaves_a_table_and_a_trace(more):
    """bench/dlrm_s_benchmark.sh moves files of these names."""
    with_profile = ok(*SMALL, *more, "--enable-profiling")
    assert with_profile.lines == ok(*SMALL, *more).lines
    assert "Self CPU" in Path("dlrm_s_pytorch.prof").read_text()
    assert json.loads(Path("dlrm_s_pytorch.json").read_text())["traceEvents"]
    assert not torch.autograd.profiler.profile(enabled=False).enabled


def test_another_activation_is_without_effect_and_said_to_be():
    """The original reads the flag and looks no further."""
    plain, asked = ok(*SMALL), ok(*SMALL, "--activation-function=tanh")
    assert asked.lines == plain.lines
    assert "--activation-function is without effect" in asked.err
    assert not ok(*SMALL, "--activation-function=relu").err
