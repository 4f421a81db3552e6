from pathlib import Path
from typing import Any

import pytest

from dlrm.reporting.record import read
from dlrm.reporting.verdict import gap, verdict

from .runs import evaluation, events, metrics, write_run


def say(folder: Path, final: dict[str, Any] | None, log: Any = None) -> str:
    return verdict(read(write_run(folder, final=final, log=log)))


def test_beside_the_optimum_and_a_baseline(tmp_path: Path) -> None:
    said = say(tmp_path, evaluation(0.8050))
    assert said == (
        "Test AUC 0.8050; the best possible on this generated log is 0.8100, logistic regression"
        " reaches 0.7700: the model closes 88% of the gap."
    )


@pytest.mark.parametrize(
    ("auc", "end"), [(0.76, "still below logistic regression."), (0.82, "noise of the sample.")]
)
def test_outside_of_the_gap(tmp_path: Path, auc: float, end: str) -> None:
    assert say(tmp_path, evaluation(auc)).endswith(end)


@pytest.mark.parametrize(
    ("auc", "side"), [(0.80, "0.0300 above logistic"), (0.75, "0.0200 below logistic")]
)
def test_beside_a_baseline_alone(tmp_path: Path, auc: float, side: str) -> None:
    assert side in say(tmp_path, evaluation(auc) | {"optimum": None})


def test_beside_the_optimum_alone(tmp_path: Path) -> None:
    assert "best possible" in say(tmp_path, evaluation() | {"baseline": None})


def test_alone(tmp_path: Path) -> None:
    assert "removes 19% of the uncertainty" in say(tmp_path, evaluation(known=False))
    worse = evaluation(known=False)
    worse["metrics"]["normalized_entropy"] = 1.3
    assert "no better than" in say(tmp_path, worse)


def test_one_class(tmp_path: Path) -> None:
    said = say(tmp_path, evaluation(None))
    assert "undefined" in said
    assert "one class only" in said
    assert "0.4604" in said


def test_unfinished(tmp_path: Path) -> None:
    assert say(tmp_path, None, []).startswith("Nothing has been measured")
    early = say(tmp_path, None, events()[:3])
    assert early.startswith("Not finished: the last logged step is 6. The training loss")
    assert "The latest validation AUC, at step 120, is 0.7844" in say(tmp_path, None, events()[:90])


def test_a_gap_needs_a_better_optimum() -> None:
    final = evaluation()
    found = gap(final, "log_loss")
    assert found is not None
    assert found.closed == pytest.approx((0.4870 - 0.4604) / (0.4870 - 0.4550))
    assert gap(final | {"optimum": metrics(0.70, 0.60)}, "auc") is None
    assert gap(final | {"optimum": metrics(0.70, 0.60)}, "log_loss") is None
    assert gap(final | {"baseline": None}, "auc") is None
    off = final | {"optimum": metrics(0.81, 0.455) | {"calibration": 1.05}}
    assert gap(off, "calibration") is None
