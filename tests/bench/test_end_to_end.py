"""From raw text to a trained model: the commands, in this process, on a few lines."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scripts import script
from dlrm import cli
from dlrm.bench.timer import peak_bytes
from dlrm.data.sources.clicks import ClicksSource
from dlrm.errors import DlrmError

LINES = 400
end_to_end = script("raw_to_model")
extrapolated_s, original, ours, write_log = (
    getattr(end_to_end, name) for name in ("extrapolated_s", "original", "ours", "write_log")
)


def a_run(lines: int, total_s: float) -> Any:
    return end_to_end.EndToEnd(lines, total_s, {"prepare_s": 1.0}, 3, None, 0.5, 0.8)


def test_the_log_is_the_generated_one_with_categories_that_the_original_can_keep(
    tmp_path: Path,
) -> None:
    lines = write_log(tmp_path / "log.txt", LINES).read_text().splitlines()
    frame = next(ClicksSource(LINES).read())
    assert len(lines) == LINES
    for line, row in zip(lines, frame.drop("truth").iter_rows(), strict=True):
        words = line.split("\t")
        assert [int(word) if word else None for word in words[:14]] == list(row[:14])
        # As the original reads them: missing ones are 0.
        kept = [int(word or "0", 16) for word in words[14:]]
        assert max(kept) < 2**31
        assert kept == [(value or 0) % 2**31 for value in row[14:]]


def test_ours_prepares_trains_and_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: object, folder: Path) -> tuple[str, int]:
        assert words[:2] == ("-m", "dlrm")
        assert cli.main([*map(str, words[2:])]) == 0
        return capsys.readouterr().out, 7 if "data" in words else 5

    monkeypatch.setattr(end_to_end, "_call", call)
    raw = write_log(tmp_path / "log.txt", LINES)
    run = ours(raw, LINES, tmp_path, 64, ["--eval.every=1000", "--precision=fp32"])
    figures = run.to_dict("ours")
    assert sorted(run.stages) == ["other_s", "prepare_s", "train_s"]
    assert min(run.stages.values()) > 0
    assert sum(run.stages.values()) == pytest.approx(run.total_s) == figures["ours_s"]
    assert figures["ours_peak_bytes"] == 7
    # 26 tables of at least two rows each.
    assert 26 * 2 * 16 * 4 < figures["ours_table_bytes"] < 26 * (LINES + 2) * 16 * 4
    assert 0 < figures["ours_train_loss"] < 3
    assert 0 < figures["ours_test_accuracy"] <= 1


SAID = """Load 3/400 ...
Finished training it 2/6 of epoch 0, -1.00 ms/it, loss 0.600000
Finished training it 4/6 of epoch 0, -1.00 ms/it, loss 0.500000
Finished training it 5/6 of epoch 0, -1.00 ms/it, loss 0.200000
Testing at - 5/6 of epoch 0,
 accuracy 76.500 %, best 76.500 %
{"prepare_s": 2.0, "read_s": 0.5, "train_s": 3.0, "test_s": 0.25}
"""


def test_what_the_original_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def call(*words: object, folder: Path) -> tuple[str, int]:
        asked.extend(words)
        assert (folder / "train.txt").read_text() == "raw"
        return SAID, 11

    monkeypatch.setattr(end_to_end, "_call", call)
    raw = tmp_path / "log.txt"
    raw.write_text("raw")
    folder = tmp_path / "its"
    folder.mkdir()
    run = original(tmp_path / "clone", raw, LINES, folder, 64, ["--memory-map"])
    assert run.train_loss == pytest.approx((2 * 0.6 + 2 * 0.5 + 0.2) / 5)
    assert run.test_accuracy == pytest.approx(0.765)
    assert run.to_dict("original")["original_train_s"] == 3.0
    assert run.peak_bytes == 11
    assert asked[1] == tmp_path / "clone"
    for flag in (
        "--arch-mlp-bot=13-512-256-64-16",
        "--arch-mlp-top=512-256-1",
        "--mini-batch-size=64",
        "--memory-map",
    ):
        assert flag in asked


def test_an_original_that_said_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "_call", lambda *words, folder: ("Load 1/2", 0))
    raw = tmp_path / "log.txt"
    raw.write_text("raw")
    folder = tmp_path / "its"
    folder.mkdir()
    with pytest.raises(DlrmError, match="said nothing of its loss"):
        original(tmp_path, raw, LINES, folder, 64)


@given(
    st.floats(0, 100), st.floats(1e-6, 1e-3), st.integers(1, 10**5), st.integers(1, 10**5),
    st.integers(0, 10**7),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_time_is_extrapolated_along_a_line_that_need_not_begin_at_zero(
    start_s: float, per_line_s: float, few: int, more: int, beyond: int
) -> None:
    small = a_run(few, start_s + few * per_line_s)
    large = a_run(few + more, start_s + (few + more) * per_line_s)
    lines = few + more + beyond
    expected = start_s + lines * per_line_s
    assert extrapolated_s(small, large, lines) == pytest.approx(expected, rel=1e-3)
    assert extrapolated_s(small, large, large.lines) == large.total_s


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(DlrmError, match=r"failed: .*no such luck"):
        end_to_end._call("-c", "raise SystemExit('no such luck')", folder=tmp_path)


GREEDY = """
import time
from pathlib import Path
memory = b'x' * 50_000_000
while not Path('seen').exists():
    time.sleep(0.01)
print('done')
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_the_process_not_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = b"x" * 300_000_000

    def look(process: int | None = None) -> int:
        peak = peak_bytes(process)
        if peak > 50_000_000:
            (tmp_path / "seen").touch()
        return peak

    monkeypatch.setattr(end_to_end, "peak_bytes", look)
    said, peak = end_to_end._call("-c", GREEDY, folder=tmp_path)
    assert said == "done\n"
    assert len(ballast) < peak_bytes()
    assert 50_000_000 < peak < 200_000_000


def test_a_process_that_is_gone_has_no_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    process.wait()
    assert peak_bytes(process.pid) == 0
    assert (peak_bytes(os.getpid()) > 0) == (sys.platform == "linux")
