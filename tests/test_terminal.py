"""Progress where nobody looks at a terminal."""

import re

from dlrm import terminal


def test_progress_in_a_pipe_is_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.0)
    with terminal.progress("loss") as bar:
        task = bar.add_task("train", total=3, loss="loss 0.5")
        bar.advance(task, 2)
        bar.update(task, completed=3)
        assert [*bar.track(range(2), description="read")] == [0, 1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["train: 2 of 3, loss 0.5", "train: 3 of 3, loss 0.5"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "".join(lines))


def test_progress_that_is_not_asked_for_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.0)
    with terminal.quiet(), terminal.progress() as bar:
        bar.advance(bar.add_task("train", total=3))
    assert capsys.readouterr().err == ""


def test_what_is_quick_says_nothing(capsys):
    with terminal.progress() as bar:
        bar.advance(bar.add_task("train", total=3))
    assert capsys.readouterr().err == ""
