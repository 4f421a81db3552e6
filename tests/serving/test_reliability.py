"""Ten seconds of `benchmarks/reliability.py`, and what it has shown."""

import json
import shutil
from pathlib import Path

import pytest

from bench.scripts import script
from dlrm.errors import DlrmError
from dlrm.serving.model import BackEnd
from dlrm.serving.repository import Repository


def test_while_everything_goes_wrong(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["--minutes", "0.17", "--out", str(tmp_path / "rows.jsonl")]
    failed = script("reliability").main(words)
    assert not failed, capsys.readouterr().out
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    outcomes = row["outcomes"]
    assert row["verdict"] == "passed"
    assert outcomes["load: 200"] > 10
    assert outcomes["caller: 200"] > 500
    assert outcomes["under way at the end: 200"] > 0
    assert any(name.startswith("worker killed and replaced") for name in outcomes)
    assert row["scores_compared"] > 500


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_is_exchanged_while_it_is_opened_is_not_taken_for_another(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
):
    run = tmp_path / "run"
    run.symlink_to(folder / "visits")
    repository = Repository([f"m={run}"], BackEnd(device="cpu"))
    before = repository.find("m")
    shutil.copytree(folder / "two", tmp_path / "other")
    run.unlink()
    run.symlink_to(tmp_path / "other")
    opened = BackEnd.open

    def exchanged(back_end: BackEnd, path: Path):
        run.unlink()
        run.symlink_to(folder / "demo")
        if fails:
            raise KeyError("a file of another run")
        return opened(back_end, path)

    monkeypatch.setattr(BackEnd, "open", exchanged)
    with pytest.raises(DlrmError, match="was changed while it was opened"):
        repository.load("m")
    assert repository.find("m") is before
    monkeypatch.undo()
    assert repository.load("m")
    assert repository.find("m").predictor.features.needed != before.predictor.features.needed
