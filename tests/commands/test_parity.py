"""`dlrm parity`: several processes learn what one learns, and what does not is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.cli import main
from dlrm.commands.parity import ParityResult, default
from dlrm.parallel.launch_env import BY_US
from dlrm.reporting.page import render
from dlrm.reporting.parity import conclusion, page
from dlrm.terminal import out
from dlrm.training import parity
from dlrm.training.config import TrainConfig
from dlrm.training.parity import Parity
from dlrm.training.variant import Outcome, Variant

ONE = (0.7, 0.6, 0.5, 0.4)
OFF = (0.7, 0.6, 0.502, 0.41)


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def made(*losses: tuple[float, ...], reordered: tuple[tuple[float, ...], ...] = ()) -> Parity:
    """Return what was found where variants had these losses, and one process others."""
    outcomes = [
        Outcome(Variant("adagrad", procs=procs), of) for procs, of in enumerate(losses, start=2)
    ]
    return Parity(
        recipe="demo",
        config=default("demo"),
        steps=4,
        tolerance=1e-6,
        alone={"adagrad": ONE},
        reordered={"adagrad": reordered} if reordered else {},
        outcomes=tuple(outcomes),
    )


def shown(found: Parity) -> str:
    with out.capture() as capture:
        out.print(ParityResult(found, None))
    return " ".join(capture.get().split())


def test_two_processes_learn_what_one_does(clicks, workdir, capsys):
    words = ["parity", "--data", str(clicks.path), "--procs", "1,2", "--steps", "24"]
    words += ["--sharding", "row,table", "--optim", "rowwise_adagrad", "--html", "parity.html"]
    assert main([*words, "--json"]) == 0
    found = said(capsys)
    assert found["holds"]
    assert found["max_abs_diff"] <= 1e-6
    assert [row["sharding"] for row in found["rows"]] == ["row", "table"]
    assert all(row["verdict"] == "equal" and row["procs"] == 2 for row in found["rows"])
    losses = found["losses"]["rowwise_adagrad"]
    # More than an epoch of 19 steps, whose last batch is smaller.
    assert len(losses) == len(found["rows"][0]["diffs"]) == 24
    assert max(losses) - min(losses) > 0.01
    assert Path("parity.html").read_text().count("<svg") >= 2
    # Nothing else is left.
    assert [path.name for path in workdir.iterdir()] == ["parity.html"]


def test_what_rounding_does_not_explain_fails(clicks, workdir, monkeypatch, capsys):
    def off(config: TrainConfig, ways: list[Variant], *_: Any) -> list[Outcome]:
        return [Outcome(way, (0.0,) * 24) for way in ways]

    monkeypatch.setattr(parity, "launched", off)
    monkeypatch.setattr(parity, "ORDERS", (1, 1))
    words = ["parity", "--data", str(clicks.path), "--procs", "2", "--steps", "24", "--json"]
    words += ["--sharding", "table", "--optim", "sgd", "--optim.warmup-steps", "0"]
    assert main(words) == 1
    found = said(capsys)
    assert not found["holds"]
    assert [row["verdict"] for row in found["rows"]] == ["different"]
    # Rounding alone was looked at.
    assert 0 < found["reordered_max_abs_diff"] <= 1e-6
    assert list(workdir.iterdir()) == []


def test_verdicts():
    def verdict(*losses: tuple[float, ...], reordered: tuple[tuple[float, ...], ...] = ()) -> str:
        found = made(*losses, reordered=reordered)
        return found.verdict(found.outcomes[0])

    assert verdict((0.7, 0.6, 0.5, 0.4000009)) == "equal"
    assert verdict(OFF) == "different"
    assert verdict(OFF, reordered=(ONE, ONE)) == "different"
    assert verdict(OFF, reordered=(ONE, (0.7, 0.6, 0.504, 0.405))) == "rounding"
    # A last digit in an early step, where rounding has one too, and long before it goes off.
    noisy = (0.7, 0.6 + 4e-7, 0.5, 0.405)
    assert verdict((0.7, 0.6 + 2e-6, 0.5, 0.4), reordered=(noisy,)) == "rounding"
    # Sooner than rounding shows, or by more.
    assert verdict((0.702, 0.6, 0.5, 0.4), reordered=(OFF,)) == "different"
    assert verdict((0.7, 0.6, 0.5, 0.6), reordered=(OFF,)) == "different"


def test_what_is_shown():
    holds = made(ONE, OFF, reordered=(ONE, OFF))
    text = shown(holds)
    assert "Equal but for rounding: the losses of 1 of 2 ways" in text
    assert "auto │ 3 │ 1.0e-02 │ 4 │ 0.410000 │ rounding" in text
    assert ParityResult(holds, None).status == 0
    fails = made(ONE, OFF, reordered=(ONE,))
    assert "Different: the losses of 1 of 2 ways" in shown(fails)
    assert "in step 4 of 3 processes with adagrad" in render(page(fails))
    assert ParityResult(fails, None).status == 1
    equal = made(ONE)
    assert "in the one way to train; the largest difference is 0.0e+00" in shown(equal)
    assert render(page(equal)) == render(page(equal))


def test_what_was_refused_is_said():
    way = Variant("adagrad", "torchrec", "column", 2)
    found = made(ONE)
    refused = Outcome(way, refused="it cannot be done")
    found = Parity(
        recipe="demo", config=found.config, steps=4, tolerance=1e-6, alone=found.alone,
        reordered={}, outcomes=(*found.outcomes, refused),
    )  # fmt: skip
    assert "refused: it cannot be done" in shown(found)
    assert "it cannot be done" in render(page(found))
    result = ParityResult(found, None).to_dict()
    assert json.loads(json.dumps(result))["rows"][1]["verdict"] == "refused"
    assert found.holds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--procs", "1"], "needed are two processes or more"),
        (["--procs", "two"], "procs is 0"),
        (["--steps", "0"], "steps 0"),
        (["--sharding", "rows"], 'unknown sharding "rows"; choose one of: auto, table, row'),
        (["--optim", "rmsprop"], 'unknown optimizer "rmsprop"'),
        (["--engine", "fbgemm"], 'unknown engine "fbgemm"; choose one of: dlrm, torchrec'),
        (["--optim", ","], "optim is empty"),
        (["--procs", "4", "--loader.batch-size", "3"], "loader.batch_size is 3"),
        (["nobody"], 'unknown recipe "nobody"'),
    ],
)
def test_what_has_no_meaning_is_said(words, message, workdir, capsys):
    assert main(["parity", *words]) == 1
    assert message in capsys.readouterr().err
    assert list(workdir.iterdir()) == []


def test_it_starts_its_processes_itself(workdir, monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv(BY_US, raising=False)
    assert main(["parity"]) == 1
    assert "run it without torchrun" in capsys.readouterr().err


loss = st.floats(0.3, 0.7)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(loss, loss, loss, loss), min_size=1, max_size=4),
    st.lists(st.tuples(loss, loss, loss, loss), max_size=2),
)
def test_the_conclusion_follows_from_the_rows(losses, reordered):
    found = made(*losses, reordered=tuple(reordered))
    verdicts = {row["verdict"] for row in ParityResult(found, None).to_dict()["rows"]}
    result = ParityResult(found, None)
    assert result.status == int("different" in verdicts)
    assert ("Different:" in shown(found)) == ("different" in verdicts)
    assert ("Equal:" in shown(found)) == (verdicts == {"equal"})


@pytest.mark.parametrize("grown", [14_785.0, float("inf"), float("nan")])
def test_a_loss_that_diverges_tells_nothing(grown):
    found = replace(made((0.7, 0.6, 80.0, 900.0)), alone={"adagrad": (0.7, 0.6, 90.0, grown)})
    assert found.verdict(found.outcomes[0]) == "diverged"
    assert ParityResult(found, None).status == 1
    assert conclusion(found).startswith("Nothing can be told of adagrad")
    assert "smaller --optim.lr" in conclusion(found)


def test_a_loss_that_leaps_and_comes_back_has_not_diverged():
    leaps = replace(made((0.7, 9.0, 0.5, 0.41)), alone={"adagrad": (0.7, 9.0, 0.5, 0.4)})
    assert leaps.verdict(leaps.outcomes[0]) == "different"
    other = replace(leaps, reordered={"adagrad": ((0.7, 9.0, 0.5, 0.41),)})
    assert other.verdict(other.outcomes[0]) == "rounding"


def test_each_optimizer_has_a_rate_that_suits_it(clicks, workdir, monkeypatch):
    tried = []

    def launch(config, ways, *_):
        tried.extend(ways)
        return [Outcome(way, ONE) for way in ways]

    monkeypatch.setattr(parity, "launched", launch)
    monkeypatch.setattr(parity, "alone", lambda *_: ONE)
    words = ["parity", "criteo-kaggle", "--data", str(clicks.path), "--procs", "1,2"]
    words += ["--sharding", "row", "--optim", "sgd,adagrad,adam"]
    assert main(words) == 0
    assert {way.optimizer: way.lr for way in tried} == {"sgd": 0.1, "adagrad": 0.01, "adam": 0.001}
    tried.clear()
    assert main([*words, "--optim.lr", "0.05"]) == 0
    assert {way.lr for way in tried} == {0.05}
