import json
from pathlib import Path

import pytest

from dlrm.cli import main
from dlrm.commands.report import ReportResult, report
from dlrm.errors import RunError
from dlrm.terminal import out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"recipe": "demo", "config": {}}')
    (tmp_path / "metrics.jsonl").write_text('{"event": "train", "step": 1, "loss": 0.7}\n')
    return tmp_path


def test_the_report_is_written_and_named(run: Path) -> None:
    result = report(run)
    assert result.report == run / "report.html"
    assert result.report_bytes == result.report.stat().st_size > 1000
    assert result.to_dict() == {
        "report": str(run / "report.html"),
        "report_bytes": result.report_bytes,
    }


def test_a_terminal_shows_the_path_and_the_size() -> None:
    with out.capture() as shown:
        out.print(ReportResult(report=Path("r/report.html"), report_bytes=123_456))
    assert shown.get().split() == ["r/report.html", "123.5", "kB"]


def test_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--json"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(last)["report"] == str(run / "report.html")


def test_what_is_not_a_run_is_an_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError):
        report(tmp_path)
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
