"""`--ensemble N`: every command takes the run of an ensemble as it takes that of one model."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.run import Run
from dlrm.training import interrupt
from dlrm.training.config import from_dict

SMALL = [
    "--model.bottom",
    "8",
    "--model.top",
    "8",
    "--model.dim",
    "4",
    "--loader.batch-size",
    "256",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with raw text, an ensemble of two trained on it, and one model."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["data", "generate", "clicks", "--rows", "3000", "--seed", "2", "--out", "log.txt"]
        assert main(words) == 0
        words = ["train", "criteo-kaggle", "--data", "log.txt", *SMALL]
        assert main([*words, "--ensemble", "2", "--run", "both"]) == 0
        assert main([*words, "--run", "one"]) == 0
    return folder


def last(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_training_says_that_it_is_an_ensemble(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["train", "--run", "both", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "test: dlrm x 2" in out
    assert "each alone, mean" in out
    assert main(["train", "--run", "both", "--resume", "--json"]) == 0
    row = last(capsys)
    assert row["model"] == "dlrm x 2"
    assert [member["seed"] for member in row["members"]] == [0, 1]
    assert "dlrm x 2" in Path("both/report.html").read_text()


def test_one_model_is_no_ensemble(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["train", "--run", "one", "--resume", "--json"]) == 0
    row = last(capsys)
    assert (row["model"], row["members"]) == ("dlrm", [])
    assert not Path("one/members").exists()


def test_eval_repeats_what_training_measured(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["eval", "both", "--json"]) == 0
    row = last(capsys)
    evaluation = Run.open(Path("both")).evaluation("test")
    assert evaluation is not None
    assert {key: row[key] for key in evaluation["metrics"]} == evaluation["metrics"]
    assert row["model"] == "dlrm x 2"
    assert main(["eval", "both"]) == 0
    assert "(dlrm x 2)" in capsys.readouterr().out


def test_predict_gives_the_mean_of_the_members(trained, monkeypatch):
    monkeypatch.chdir(trained)
    logits = {}
    for run in ("both", "both/members/0", "both/members/1"):
        dlrm.predict(Path(run), [Path("log.txt")], out=Path("scores.parquet"))
        p = pl.read_parquet("scores.parquet")["score"].to_numpy().astype(float)
        logits[run] = np.log(p / (1 - p))
    both, *members = logits.values()
    np.testing.assert_allclose(both, np.mean(members, axis=0), atol=1e-4)


def test_compare_names_it(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["compare", "--runs", "both", "one", "--json"]) == 0
    rows = {row["model"]: row for row in last(capsys)["models"]}
    assert rows.keys() == {"dlrm x 2", "dlrm"}
    assert rows["dlrm x 2"]["parameters"] == 2 * rows["dlrm"]["parameters"]


def test_compress_names_it(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["compress", "both", "--json"]) == 0
    row = last(capsys)
    assert row["model"] == "dlrm x 2"
    assert "dlrm x 2" in Path("both/compress.html").read_text()


def test_a_stopped_ensemble_says_how_to_go_on(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)

    class Stop(interrupt.Interrupt):
        @property
        def requested(self) -> bool:
            return True

    words = ["train", "criteo-kaggle", "--data", "log.txt", *SMALL, "--ensemble", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", Stop)
        assert main([*words, "--run", "stopped"]) == 130
    said = capsys.readouterr().err
    assert "member 1 of 2; go on with: dlrm train --run stopped --resume" in " ".join(said.split())
    assert main(["report", "stopped"]) == 0
    assert "0 of 2 members are trained" in Path("stopped/report.html").read_text()
    assert main(["train", "--run", "stopped", "--resume"]) == 0
    finals = [Run.open(Path(name)).evaluation("test") for name in ("stopped", "both")]
    assert finals[0] == finals[1]


def test_another_model_takes_the_place_of_all(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mixed_recipe.py").write_text(
        "from dlrm import DLRMConfig, FMConfig, TrainConfig\n"
        "def mixed():\n"
        "    return TrainConfig(data='log.txt', model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),\n"
        "                       ensemble=2, ensemble_models=(FMConfig(dim=2),), max_steps=2)\n"
    )
    words = ["train", "mixed_recipe:mixed"]
    assert main([*words, "--run", "mixed"]) == 0
    assert main([*words, "--run", "lr", "--model", "lr"]) == 0
    names = [(Run.open(Path(run)).evaluation("test") or {})["model"] for run in ("mixed", "lr")]
    assert names == ["dlrm + fm", "lr x 2"]
    assert from_dict(Run.open(Path("lr")).config).ensemble_models == ()
