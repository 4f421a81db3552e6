"""The command that made a run, and those that go on from it."""

import shlex

from dlrm.data.resolve import example_file
from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import Record
from dlrm.run import Run


def next_words(run: Run) -> list[str]:
    """Return a command that uses a model, on a file that is there: scores, or else metrics."""
    config = run.config
    if (file := example_file(config["data"])) is None:
        return ["dlrm", "eval", str(run.path)]
    words = ["dlrm", "predict", str(run.path), str(file), "--out", "scores.parquet"]
    return words + (["--bad-rows", "skip"] if config["prepare"]["bad_rows"] == "skip" else [])


def commands(record: Record) -> list[tuple[str, str]]:
    """Return the commands to type next: what each does, and its line, quoted for a shell."""
    run = str(record.path)
    command = [str(word) for word in record.environment.get("command") or ()]
    resume = ["dlrm", "train", "--run", run, "--resume"]
    lines = [("This run was made by", command)] if command else []
    if not record.finals:
        lines.append(("Take it up again where it stopped", resume))
    lines += [
        ("Evaluate it again", ["dlrm", "eval", run, "--split", record.split or "test"]),
        ("Say which columns matter", ["dlrm", "explain", run]),
        ("Score new rows", ["dlrm", "predict", run, "RAW", "--out", "scores.parquet"]),
        ("Write this report again", ["dlrm", "report", run]),
    ]
    if record.finals:
        lines.append(("Take it up again, had it been stopped before its end", resume))
    return [(what, shlex.join(words)) for what, words in lines]


def section(record: Record) -> Html:
    """Return the commands that made this run and that go on from it."""
    lines = [
        element(
            "div",
            element("h3", what),
            element("pre", element("code", text), tabindex=0),
            element("button", "Copy", type="button", class_="copy", aria_label=f"Copy: {what}"),
            class_="command",
        )
        for what, text in commands(record)
    ]
    return element("section", element("h2", "Commands"), *lines)
