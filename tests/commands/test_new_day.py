"""A new day of rows, for a run that was trained on the days before."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.data.coverage import Coverage, Shares
from dlrm.data.features.features import Features
from dlrm.data.scoring import encode_frame
from dlrm.errors import ConfigError, InputError
from dlrm.metrics import auc

N = 600
FLAGS = ["--no-baseline", "--model", "lr", "--optim.lr", "0.05", "--epochs", "3"]


def days(rows: int, seed: int, cities: range) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    city = rng.choice(np.array(cities), rows)
    return pl.DataFrame(
        {
            "city": [f"c{k}" for k in city],
            "tags": ["|".join(f"t{t}" for t in rng.integers(0, 4, 2)) for _ in range(rows)],
            "price": rng.random(rows).round(4),
            "counts": rng.integers(0, 3, rows),
            "bought": (rng.random(rows) < np.where(city % 2, 0.8, 0.2)).astype(int),
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("days")
    days(N, 0, range(6)).write_csv(folder / "old.csv")
    days(200, 1, range(3, 9)).with_columns(
        price=pl.when(pl.int_range(200) % 2 == 0).then("price")
    ).write_csv(folder / "new.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        label = ["--label", "bought", "--weight", "counts"]
        assert main(["train", "old.csv", *label, "--run", "run", *FLAGS]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "100")


def test_raw_rows_are_measured_with_the_features_of_the_run(capsys):
    new = pl.read_csv("new.csv")
    measured = dlrm.evaluate("run", data="new.csv", intervals=False).to_dict()
    scores = dlrm.Predictor.open("run").scores(new)[:, 0]
    weights, labels = new["counts"].to_numpy(), new["bought"].to_numpy()
    assert measured["auc"] == pytest.approx(auc(scores, labels, weights), abs=1e-6)
    columns = {column["name"]: column for column in measured["columns"]}
    unseen = (~new["city"].is_in([f"c{k}" for k in range(6)])).mean()
    assert columns["city"]["unseen"] == pytest.approx(unseen)
    assert columns["price"]["missing"] == 0.5
    assert columns["tags"]["unseen"] == 0
    assert [text.split(":")[0] for text in measured["warnings"]] == ["city", "price"]
    # A frame is as good as its file, and the labels of one class alone have no AUC.
    assert dlrm.evaluate("run", data=new, intervals=False).to_dict()["auc"] == measured["auc"]
    quiet = new.filter(pl.col("bought") == 0)
    assert dlrm.evaluate("run", data=quiet, intervals=False).metrics["auc"] is None
    capsys.readouterr()
    assert main(["eval", "run", "--data", "new.csv", "--no-intervals", "--by", "city"]) == 0
    shown = capsys.readouterr().out
    assert "unseen" in shown
    assert "price: 50.0% of the values are missing (there 0.0%)" in shown


@pytest.mark.parametrize("members", [1, 2])
def test_training_goes_on_with_a_new_day(capsys, members):
    name = f"on-{members}"
    if members == 1:
        origin = "run"
    else:
        origin = "several"
        label = ["--label", "bought", "--weight", "counts", "--ensemble", "2"]
        assert main(["train", "old.csv", *label, "--run", origin, *FLAGS]) == 0
    assert main(["train", "new.csv", "--from", origin, "--run", name, "--epochs", "2"]) == 0
    assert "city: 3 new values, 9 in all" in " ".join(capsys.readouterr().err.split())
    run = dlrm.Run.open(name)
    assert run.config["from_run"] == origin
    assert run.config["prepare"]["weight"] == "counts"
    assert main(["train", "--run", name, "--resume"]) == 0
    new = dlrm.evaluate(name, data="new.csv", intervals=False).to_dict()
    assert {column["unseen"] for column in new["columns"] if column["name"] == "city"} == {0.0}
    capsys.readouterr()
    assert main(["predict", name, "new.csv", "--out", "scores.csv"]) == 0
    assert "unseen" not in capsys.readouterr().out
    # From Python, with a frame, too.
    result = dlrm.train(from_run=origin, data=pl.read_csv("new.csv"), run=f"python-{members}")
    assert result.evaluations.keys() == run_splits(name)


def test_the_report_says_what_does_not_grow(workdir, pages, capsys):
    days(N, 0, range(6)).write_csv("old.csv")
    days(200, 1, range(3, 9)).write_csv("new.csv")
    words = ["--label", "bought", "--run", "run", *FLAGS, "--epochs", "1", "--no-importance"]
    assert main(["train", "old.csv", "--prepare.features.target-means", *words]) == 0
    capsys.readouterr()
    assert main(["train", "new.csv", "--from", "run", "--run", "next", "--epochs", "1"]) == 0
    expected = "counts and target means stay as the first run fitted them"
    assert expected in " ".join(capsys.readouterr().err.split())
    assert expected in " ".join(Path("next/report.html").read_text().split())


def test_several_processes_go_on_as_one_does(capfd):
    flags = ["new.csv", "--from", "run", "--epochs", "1", "--no-importance", "--threads", "1"]
    for procs in ("1", "2"):
        assert main(["train", *flags, "--run", f"on-{procs}-procs", "--procs", procs]) == 0
    capfd.readouterr()
    losses = [
        [row["loss"] for row in dlrm.Run.open(f"on-{procs}-procs").metrics() if "loss" in row]
        for procs in "12"
    ]
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def run_splits(name: str) -> set[str]:
    return {split for split in ("validation", "test") if dlrm.Run.open(name).evaluation(split)}


def test_scoring_says_what_training_did_not_see(capsys):
    assert main(["predict", "run", "new.csv", "--out", "scores.csv", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [text.split(":")[0] for text in shown["warnings"]] == ["city", "price"]
    assert main(["predict", "run", "new.csv", "--out", "scores.csv"]) == 0
    assert "price: 50.0% of the values are missing (there 0.0%)" in capsys.readouterr().out


def test_an_estimator_warns_of_what_training_did_not_see(recwarn):
    pytest.importorskip("sklearn")
    old, new = (pl.read_csv(f"{name}.csv").drop("counts") for name in ("old", "new"))
    classifier = dlrm.Classifier("lr", epochs=1).fit(old.drop("bought"), old["bought"])
    classifier.predict(old.drop("bought"))
    assert not [w for w in recwarn if "unlike" in str(w.message)]
    with pytest.warns(UserWarning, match=r"city: .*unseen.*price: .*missing"):
        classifier.predict(new.drop("bought"))


@pytest.mark.parametrize("members", ["1", "2"])
def test_the_chosen_settings_are_trained_on_validation_rows_too(capsys, members):
    name = f"refit-{members}"
    label = ["--label", "bought", "--weight", "counts", "--ensemble", members]
    command = ["train", "old.csv", *label, "--refit", "--run", name, *FLAGS]
    assert main(command) == 0
    run, chosen = dlrm.Run.open(name), dlrm.Run.open(f"{name}/chosen")
    assert run.evaluation("validation") is None
    assert run.evaluation("test")
    assert chosen.evaluation("validation")
    assert main(["train", "--run", name, "--resume"]) == 0
    if members == "1":
        best = [row["step"] for row in chosen.metrics() if row["event"] == "best"][-1]
        trained = [row for row in run.metrics() if row["event"] == "train"][-1]
        assert trained["step"] == round(best * 540 / 480)


def test_going_on_needs_new_rows(capsys):
    assert main(["train", "--from", "run", "--run", "none"]) == 1
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--label", "price"], "run has prepare.label bought, not bought, price"),
        (["--category", "price"], "run has prepare.category none, not price"),
        (["--model", "fm"], "run has model lr, not fm"),
    ],
)
def test_a_run_goes_on_as_it_is(flags, problem, capsys):
    assert main(["train", "new.csv", "--from", "run", "--run", "other", *flags])
    assert problem in " ".join(capsys.readouterr().err.split())


def test_the_splits_of_the_run_have_shares_too(capsys):
    assert main(["eval", "run", "--no-intervals", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["warnings"] == []
    assert {column["name"] for column in shown["columns"]} == {"city", "tags", "price"}


def test_rows_that_all_are_measured_may_be_in_any_order(capsys):
    times = [f"2024-01-{1 + k * 7 % 28:02} 10:00:00" for k in range(200)]
    timed = pl.read_csv("new.csv").with_columns(at=pl.Series(times))
    timed.write_csv("timed.csv")
    flags = ["--run", "timed", "--label", "bought", *FLAGS, "--no-importance", "--epochs", "1"]
    assert main(["train", "timed.csv", *flags]) == 0
    assert "--time at divides by time" in " ".join(capsys.readouterr().err.split())
    assert main(["eval", "timed", "--data", "timed.csv", "--no-intervals"]) == 0
    assert "divides by time" not in capsys.readouterr().err


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ConfigError, match="leave it out"):
        dlrm.evaluate("run", data="new.csv", split="validation")
    with pytest.raises(ConfigError, match='no label column "bought"'):
        dlrm.evaluate("run", data=pl.read_csv("new.csv").drop("bought"))
    with pytest.raises(InputError, match="city"):
        dlrm.evaluate("run", data=pl.read_csv("new.csv").drop("city"))


def test_shares_do_not_depend_on_the_pieces():
    features, new = Features.load("run"), pl.read_csv("new.csv")
    whole, pieces = Coverage(features), Coverage(features)
    whole.add(encode_frame(features, new), new)
    for piece in new.iter_slices(37):
        pieces.add(encode_frame(features, piece), piece)
    assert whole.shares() == pieces.shares()


def test_a_share_is_worth_a_warning_where_training_had_much_less():
    def warned(now: float, then: float | None, rows: int = 10**6) -> bool:
        return bool(Shares(name="c", rows=rows, unseen=now, trained_unseen=then).warnings())

    assert [warned(0.11, 0.0), warned(0.1, 0.0), warned(0.5, 0.3), warned(0.2, None)] == [
        True, False, False, True
    ]  # fmt: skip
    # One rule for any number of rows, in predict as in eval.
    assert [warned(1.0, 0.0, 3), warned(0.2, 0.0, 5), warned(0.4, 0.0, 10)] == [True, False, True]
