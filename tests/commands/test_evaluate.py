import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlrm.cli import main
from dlrm.commands.evaluate import evaluate
from dlrm.data.describe import by_column
from dlrm.data.features.features import Features
from dlrm.data.store import Dataset
from dlrm.errors import DatasetError
from dlrm.metrics import measure, sigmoid
from dlrm.run import Run
from dlrm.training.evaluate import optimum

SMALL = ["--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--no-baseline"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "demo", "--data", "clicks:4000", "--run", "run", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "80")


def test_the_run_keeps_intervals_beside_its_metrics():
    kept = Run.open(Path("run")).evaluation("test")
    assert kept is not None
    assert kept["intervals"] == {"level": 0.95, "resamples": 1000}
    for name in ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration"):
        value, low, high = (kept["metrics"][f"{name}{end}"] for end in ("", "_low", "_high"))
        assert low < value < high
    assert kept["metrics"].items() <= evaluate(Path("run")).to_dict().items()


def test_json_is_flat_and_complete(capsys):
    assert main(["eval", "run", "--user", "C9", "--by", "C6", "--segments", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in (
        *("auc", "log_loss", "normalized_entropy", "accuracy", "calibration", "ece", "gauc"),
    ):
        assert shown[f"{name}_low"] <= shown[name] <= shown[f"{name}_high"]
    assert (shown["interval_level"], shown["interval_resamples"]) == (0.95, 1000)
    assert (shown["interval_unit"], shown["user"], shown["by"]) == ("user", "C9", "C6")
    assert shown["gauc_samples"] + shown["gauc_samples_left_out"] == shown["samples"]
    parts = shown["segments"]
    assert len(parts) == 4
    assert parts[-1]["segment"].startswith("other (")
    assert sum(part["samples"] for part in parts) == shown["samples"]
    mean = sum(part["samples"] * part["log_loss"] for part in parts) / shown["samples"]
    assert mean == pytest.approx(shown["log_loss"])


def test_without_intervals_users_and_columns(capsys):
    assert main(["eval", "run", "--no-intervals", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "auc_low" not in shown
    assert shown["gauc"] is shown["segments"] is shown["interval_level"] is None


def test_a_segment_has_the_metrics_of_its_rows():
    result = evaluate(Path("run"), by="I1", segments=3, intervals=False)
    split = Dataset.open(result.data).split("test")
    parts = by_column(split, Features.load("run"), "I1", 3)
    for number, shown in enumerate(result.segments):
        mine = parts.numbers == number
        assert shown["segment"] == parts.names[number]
        assert shown["samples"] == mine.sum()
        assert shown["click_rate"] == pytest.approx(split.labels[mine].mean())


def test_the_terminal_shows_them(capsys):
    assert main(["eval", "run", "--by", "C9", "--user", "C7", "--segments", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("AUC", "per-user AUC", "ECE", "95% interval", "optimum", "C9", "click", "±"):
        assert said in shown
    assert "by 1,000 resamples of the users" in shown
    assert "values of C7 that have both labels" in shown


def test_one_metric_alone(capsys):
    assert main(["eval", "run", "--metric", "log_loss", "--by", "I1"]) == 0
    shown = capsys.readouterr().out
    assert "log loss" in shown
    assert "accuracy" not in shown
    assert "calib" not in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--metric", "roc"], 'unknown metric "roc"; choose one of: auc, gauc, log_loss'),
        (["--metric", "gauc"], "name their column with --user"),
        (["--by", "age"], 'unknown column "age"; choose one of: C1, C2'),
        (["--user", "I1"], '"I1" holds numbers'),
        (["--by", "C1", "--segments", "0"], "segments is 0, expected 1 or more"),
    ],
)
def test_what_does_not_exist_is_said(flags, said, capsys):
    assert main(["eval", "run", *flags]) == 1
    assert said in capsys.readouterr().err


def test_one_class_has_no_auc_and_says_so(monkeypatch, capsys):
    def of_one_class(self: Dataset, name: str):
        split = split_of(self, name)
        return replace(split, labels=split.labels * 0)

    split_of = Dataset.split
    monkeypatch.setattr(Dataset, "split", of_one_class)
    assert main(["eval", "run", "--user", "C9"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "AUC and normalized entropy are undefined: all" in shown
    with pytest.raises(DatasetError, match=r"auc is undefined: all .* have the label 0"):
        evaluate(Path("run"), metric="auc")
    with pytest.raises(DatasetError, match="gauc is undefined: no value of C9 has rows of both"):
        evaluate(Path("run"), metric="gauc", user="C9")
    assert main(["eval", "run", "--metric", "auc", "--json"]) == 1
    assert "auc is undefined" in capsys.readouterr().err


def test_the_optimum_of_certain_rows_is_finite():
    split = Dataset.open(evaluate(Path("run"), intervals=False).data).split("test")
    found = optimum(replace(split, truth=np.asarray(split.labels[:, 0], np.float32)))
    assert found is not None
    assert found.auc == 1.0
    assert found.require("log_loss") < 1e-6
    honest = optimum(split)
    assert split.truth is not None
    assert honest is not None
    p = split.truth.astype(np.float64)
    assert sigmoid(np.log(p / (1 - p)))[0] == pytest.approx(p[0])
    assert honest.auc == measure(np.log(p / (1 - p)), np.asarray(split.labels[:, 0])).auc
