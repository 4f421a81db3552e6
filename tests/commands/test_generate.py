"""`dlrm data generate`: the file that it writes, and what it leaves when it cannot."""

import errno
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dlrm import cli
from dlrm.commands import generate as module
from dlrm.commands.generate import generate
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.sources.criteo import CriteoSource
from dlrm.errors import DlrmError


def test_what_is_written_is_what_the_criteo_source_reads(tmp_path: Path) -> None:
    plain, packed = tmp_path / "new" / "log.txt", tmp_path / "log.txt.gz"
    result = generate("clicks", out=plain, rows=70_000, seed=5)
    generate("clicks", out=packed, rows=70_000, seed=5)
    expected = pl.concat(ClicksSource(70_000, 5).read())
    assert pl.concat(CriteoSource(plain).read()).equals(expected.drop("truth"))
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert result.size_bytes == plain.stat().st_size
    assert result.optimum is not None
    assert result.optimum.samples == 70_000
    assert result.optimum.click_rate == pytest.approx(expected["label"].to_numpy().mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt.gz", "new"]


def test_equal_settings_make_equal_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.gz", tmp_path / "two.gz"
    generate("clicks", out=one, rows=500)
    generate("clicks", out=two, rows=500)
    assert one.read_bytes() == two.read_bytes()


def test_the_command_prints_the_optimum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "generate", "clicks", "--rows", "20000", "--seed", "3"]
    assert cli.main([*words, "--out", str(tmp_path / "a.txt")]) == 0
    shown = capsys.readouterr().out
    assert "20,000 rows" in shown
    assert "optimum" in shown
    assert cli.main([*words, "--out", str(tmp_path / "b.txt"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rows"] == 20_000
    assert 0.78 < result["optimum"]["auc"] < 0.84
    assert f"{result['optimum']['auc']:.4f}" in shown


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "log.txt"
    out.write_text("precious")
    with pytest.raises(DlrmError, match=r"log\.txt is there already: .*--force"):
        generate("clicks", out=out, rows=10)
    assert out.read_text() == "precious"
    generate("clicks", out=out, rows=10, force=True)
    assert len(out.read_text().splitlines()) == 10
    with pytest.raises(DlrmError, match="is there already: name a file"):
        generate("clicks", out=tmp_path, rows=10, force=True)


@pytest.mark.parametrize(
    ("failure", "raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DlrmError, "the disk of .* is full"),
        (OSError(errno.EIO, "Input/output error"), DlrmError, "cannot be written: Input/output"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("name", ["log.txt", "log.txt.gz"])
def test_nothing_is_left_of_a_file_that_was_not_finished(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    failure: BaseException,
    raised: type[BaseException],
    said: str | None,
) -> None:
    written, once = module.write_lines, iter([True])

    def second_fails(*args: Any, **kwargs: Any) -> None:
        if not next(once, False):
            raise failure
        written(*args, **kwargs)

    monkeypatch.setattr(module, "write_lines", second_fails)
    with pytest.raises(raised, match=said):
        generate("clicks", out=tmp_path / name, rows=100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DlrmError, match="cannot be written"):
        generate("clicks", out=tmp_path / "file" / "log.txt", rows=10)
