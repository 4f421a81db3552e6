"""Runs and datasets that were killed at any moment, and two processes at once."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlrm import cli, files, run
from dlrm.commands.prepare import prepare
from dlrm.commands.train import train
from dlrm.data import target
from dlrm.data.store import Dataset
from dlrm.errors import DatasetError, RunError
from dlrm.lock import locked
from dlrm.run import Run
from dlrm.training.config import TrainConfig


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up after it."""


@pytest.fixture
def config(clicks: Dataset) -> TrainConfig:
    from dlrm.recipes.clicks import demo

    return replace(demo(), data=str(clicks.path), baseline=False, max_steps=2)


@pytest.fixture
def words(clicks: Dataset) -> list[str]:
    return ["train", "demo", "--data", str(clicks.path), "--no-baseline", "--max-steps", "2"]


def stop_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int) -> None:
    """Kill this process, as it were, before the call of a function with this number."""
    function: Callable[..., Any] = getattr(module, name)
    calls: list[None] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            raise Killed
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, counted)


MOMENTS = [
    *((run, "write_json", number) for number in (1, 2, 4)),
    (run, "file_record", 4),
    (run, "write_sealed", 1),
]


@pytest.mark.parametrize(("module", "name", "number"), MOMENTS)
@pytest.mark.parametrize("again", ["resume", "the same words"])
def test_killed_while_a_run_is_made(
    words, config, tmp_path, monkeypatch, module, name, number, again
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, module, name, number)
        # A killed process would not remove what is empty, either.
        patch.setattr(Path, "rmdir", lambda path: None)
        with pytest.raises(Killed):
            train(config, run=path)
    (path / ".config.json.0123.tmp").touch()
    if again == "resume":
        flags = ["train", "--run", str(path), "--resume"]
        # Nothing is known of what has not written its config.
        assert cli.main(flags) == (1 if (name, number) == ("write_json", 1) else 0)
        return
    assert cli.main([*words, "--run", str(path)]) == 0
    assert Run.open(path).evaluation("test")


def test_resumed_with_the_words_that_started_it(words, tmp_path):
    """Killed before anything was written: these words say what is to be trained."""
    (tmp_path / "run").mkdir()
    assert cli.main([*words, "--run", str(tmp_path / "run"), "--resume"]) == 0
    assert Run.open(tmp_path / "run").evaluation("test")


def test_the_words_that_started_a_run_resume_it(workdir):
    write_table(Path("t.csv"), 1)
    words = ["train", "t.csv", "--label", "y", "--epochs", "1", "--no-baseline", "--run", "run"]
    assert cli.main(words) == cli.main([*words, "--resume"]) == 0
    assert cli.main(words) == 1


def test_somebody_elses_folder_is_no_killed_run(config, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    for name in ("config.json", "notes.tmp", "schema.json"):
        (path / name).write_text("{}")
        with pytest.raises(RunError, match="exists already"):
            train(config, run=path)
        assert (path / name).read_text() == "{}"
        (path / name).unlink()


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_of_one_run(config, tmp_path, resume):
    path = tmp_path / "run"
    if resume:
        train(config, run=path)
    path.mkdir(exist_ok=True)
    with locked(path, RunError, "training"), pytest.raises(RunError, match="another process is"):
        train(config, run=path, resume=resume)


def test_an_error_leaves_no_run(config, tmp_path):
    with pytest.raises(Exception, match="no such file"):
        train(replace(config, data=str(tmp_path / "nothing.csv")), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def write_table(path: Path, factor: int) -> None:
    rows = [f"{i * factor % 7},{'abc'[i % 3]},{i % 2}" for i in range(60)]
    path.write_text("\n".join(["x,c,y", *rows]) + "\n")


@pytest.fixture
def table(workdir: Path) -> Path:
    """A dataset `data` of another table than the one that is there now."""
    write_table(Path("t.csv"), 1)
    prepare("table", [Path("t.csv")], out=Path("data"), label=("y",))
    write_table(Path("t.csv"), 2)
    return workdir


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_while_a_dataset_is_replaced(table, monkeypatch, at_once, number):
    before = Dataset.open("data").manifest["fingerprint"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchanged", files._exchanged if at_once else lambda *_: False)
        stop_at(patch, Path, "rename", number)
        stop_at(patch, target, "_remove", 1)
        # What a killed process would have left.
        patch.setattr(target.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises((Killed, DatasetError)):
            prepare("table", [Path("t.csv")], out=Path("data"), label=("y",), force=True)
    there = Dataset.open("data")
    assert there.manifest["rows"] == 60
    prepare("table", [Path("t.csv")], out=Path("data"), label=("y",), force=True)
    assert Dataset.open("data").manifest["fingerprint"] != before
    assert sorted(path.name for path in table.iterdir() if "data" in path.name) == ["data"]


def test_links_are_replaced_and_what_they_lead_to_stays(table):
    shutil.move("data/train", "elsewhere")
    Path("data/train").symlink_to(Path("elsewhere").resolve())
    kept = sorted(path.name for path in Path("elsewhere").iterdir())
    with pytest.raises(DatasetError, match="leads out of its folder"):
        Dataset.open("data")
    prepare("table", [Path("t.csv")], out=Path("data"), label=("y",), force=True)
    assert not Path("data/train").is_symlink()
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == kept
    # A dataset behind a link is replaced where it is.
    shutil.move("data", "moved")
    Path("data").symlink_to("moved")
    write_table(Path("t.csv"), 3)
    prepare("table", [Path("t.csv")], out=Path("data"), label=("y",), force=True)
    assert Path("data").is_symlink()
    Dataset.open("moved")


def test_a_module_of_the_current_folder_is_no_part_of_the_program(workdir):
    for name in ("rich", "numpy", "torch", "typing", "json", "polars", "lightgbm"):
        Path(f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    Path("mine.py").write_text("def recipe(): raise ValueError('my own recipe')")
    for words in (["--version"], ["data", "describe", "nothing"], ["train", "mine:recipe"]):
        done = subprocess.run(
            [sys.executable, "-m", "dlrm", *words], capture_output=True, text=True, check=False
        )
        assert "imported from" not in done.stderr
    assert "my own recipe" in done.stderr
