import json
from pathlib import Path

import numpy as np
import pytest

from dlrm.data.prepare import PrepareConfig
from dlrm.data.resolve import raw_files, resolve
from dlrm.errors import ConfigError, DatasetError, InputError

from .logs import log, write


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_raw_text_is_prepared_once_and_found_again(capsys):
    write(Path("train.txt"), log(30))
    made = resolve("train.txt")
    assert made.path.parent == Path("prepared")
    assert made.path.name.startswith("train-")
    assert "Dataset prepared: prepared/train-" in capsys.readouterr().err
    assert resolve("train.txt").path == made.path
    assert "Dataset found again" in capsys.readouterr().err
    assert resolve(str(made.path)).manifest == made.manifest
    other = resolve("train.txt", PrepareConfig(min_count=2))
    assert other.path != made.path
    write(Path("train.txt"), log(31))
    assert resolve("train.txt").path not in (made.path, other.path)


def test_what_another_release_prepared_is_prepared_anew(monkeypatch):
    write(Path("train.txt"), log(30))
    with monkeypatch.context() as other_release:
        other_release.setattr("dlrm.data.resolve.VERSION", 3)
        before = resolve("train.txt").path
    assert resolve("train.txt").path != before


def test_several_files_and_patterns():
    for day in range(12):
        write(Path(f"day_{day}"), log(3, seed=day))
    natural = [Path(f"day_{day}") for day in range(12)]
    assert raw_files("day_*") == natural
    assert raw_files("day_1,day_0") == [natural[1], natural[0]]
    write(Path("a,b"), log(3))
    assert raw_files("a,b") == [Path("a,b")]
    whole = resolve("day_*", PrepareConfig(split="days"))
    assert len(whole.split("train")) == 33


def test_bad_rows_can_be_skipped():
    Path("log").write_bytes(write(Path("good"), log(5)).read_bytes() + b"bad\n")
    with pytest.raises(InputError, match="log, line 6"):
        resolve("log")
    assert not Path("prepared").exists() or not list(Path("prepared").iterdir())
    assert resolve("log", PrepareConfig(bad_rows="skip")).manifest["bad_rows"]["total"] == 1


@pytest.mark.parametrize("data", ["nowhere", "a.txt,b.txt", "clcks", "nothing_*.txt", ""])
def test_what_does_not_exist_is_an_error_and_never_random_data(data):
    with pytest.raises((InputError, DatasetError)):
        resolve(data)
    assert not list(Path.cwd().iterdir())


def test_a_folder_that_is_no_dataset():
    Path("logs").mkdir()
    with pytest.raises(InputError, match=r'neither a prepared dataset.*"logs/\*"'):
        resolve("logs")


def test_the_generated_log_is_found_by_name():
    small = resolve("clicks:700:3")
    assert small.source == "clicks"
    assert sum(split["rows"] for split in small.summary()["splits"].values()) == 700
    truth = small.split("test").truth
    assert truth is not None
    assert np.all((truth > 0) & (truth < 1))
    assert json.loads((small.path / "manifest.json").read_text())["fingerprint"]["seed"] == 3
    with pytest.raises(ConfigError, match="clicks:ROWS"):
        resolve("clicks:many")
