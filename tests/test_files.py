"""Files and folders that are replaced whole, and nothing that is written through a link."""

import subprocess
import sys
from pathlib import Path

import pytest

from dlrm import files
from dlrm.errors import RunError
from dlrm.file_records import inside
from dlrm.files import exchange, recover, replacing, set_aside, write_bytes
from dlrm.lock import locked


def test_nothing_is_written_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.html").symlink_to("mine")
    write_bytes(tmp_path / "report.html", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "report.html").is_symlink()
    # Whoever guesses the name all the same gains nothing.
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".x.guessed.tmp").symlink_to("mine")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_that_was_not_written_is_not_there(tmp_path):
    with pytest.raises(TypeError), replacing(tmp_path / "x") as temporary:
        temporary.write_text(7)  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_folders_trade_places(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(files, "_exchanged", lambda new, old: False)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/new").exists()
    assert (tmp_path / "new/old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_folder_that_was_set_aside_comes_back(tmp_path):
    set_aside(tmp_path / "data").mkdir()
    recover(tmp_path / "data")
    recover(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a\\b", "a\0b", 7, None]
)
def test_names_that_lead_out_of_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match="is not the name of a file"):
        inside(tmp_path, name)


def test_a_lock_dies_with_its_holder(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from dlrm.errors import RunError\n"
        "from dlrm.lock import locked\n"
        "with locked(Path(sys.argv[1]), RunError, 'training'): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(RunError, match="another process is training"),
        locked(tmp_path, RunError, "training"),
    ):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path, RunError, "training"):
        pass
