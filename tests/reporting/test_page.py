import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import dlrm.files
from dlrm.errors import RunError
from dlrm.metrics import NAMES
from dlrm.reporting import write
from dlrm.reporting.charts.drawing import PALETTE
from dlrm.reporting.words import METRICS, number

from .runs import (
    COMMAND,
    CONFIG,
    ENVIRONMENT,
    evaluation,
    events,
    features,
    of_numbers,
    with_labels,
    write_run,
)

VOID = {"br", "col", "hr", "img", "link", "meta"}
HOSTILE = """<script>alert("1")</script>'&</title></style>--><img src=http://x.example/y>"""


class Page(HTMLParser):
    """What a page holds, read as a browser would; fails where a tag is not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


CLASSIFICATION = {name: METRICS[name] for name in (*NAMES["classification"], "click_rate")}
REGRESSION = {name: METRICS[name] for name in (*NAMES["regression"], "mean_label")}
RENAMED = {"auc": "rmse", "log_loss": "mae"}
OTHERS = set(CLASSIFICATION) - set(RENAMED)
NUMBERS: list[dict[str, Any]] = [
    {RENAMED.get(key, key): value for key, value in event.items() if key not in OTHERS}
    for event in events()
]
"""The log of a training on numbers."""
LEARNT: dict[str, Any] = {"log": NUMBERS, "config": CONFIG | {"loss": {"name": "auto"}}}
TWO = with_labels({}, {"bought": evaluation(0.81), "<b>liked</b>": evaluation(0.71, known=False)})
RUNS: dict[str, dict[str, Any]] = {
    "good": {"final": evaluation()},
    "alone": {"final": evaluation(known=False)},
    "young": {"log": []},
    "one step": {"log": events(1, 1, 1), "final": evaluation()},
    "two steps": {"log": events(2, 1, 1)},
    "killed": {"log": events()[:77], "tail": '{"event"', "bad_rows": 17},
    "one class": {
        "log": [event | ({"auc": None} if "auc" in event else {}) for event in events()],
        "final": evaluation(None),
    },
    "wide": {"final": evaluation(), "columns": features(150, 50)},
    "no columns": {"final": evaluation(), "columns": []},
    "squared": {"final": evaluation(), "config": CONFIG | {"loss": {"name": "mse"}}},
    "two labels": {"final": TWO, "labels": ("bought", "<b>liked</b>")},
    "two labels, young": {"log": events()[:90], "labels": ("bought", "liked")},
    "numbers": {"final": of_numbers(), "task": "regression", **LEARNT},
    "numbers alone": {"final": of_numbers(known=False), "task": "regression", **LEARNT},
    "two numbers": {
        "final": with_labels({}, {"stars": of_numbers(), "minutes": of_numbers(12.5)}),
        "labels": ("stars", "minutes"),
        "task": "regression",
        **LEARNT,
    },
    "bare": {"config": {}, "environment": {}, "final": {"split": "test"}},
    "odd": {
        "environment": {"command": None, "started": 5},
        "log": [{"event": "train"}, {"event": "eval"}, {"event": "new", "step": "x"}],
        "columns": [
            {"name": None, "kind": "dense", "num_embeddings": "many", "missing_rate": "most"}
        ],
    },
}


def page(folder: Path, **options: Any) -> tuple[str, Page]:
    text = write(write_run(folder, **options)).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize("kind", RUNS)
def test_every_run_makes_a_whole_page_that_loads_nothing(tmp_path: Path, kind: str) -> None:
    text, found = page(tmp_path, **RUNS[kind])
    assert text.startswith("<!DOCTYPE html>")
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == len(found.all("main")) == len(found.all("title")) == 1
    # But for the names of SVG's own elements, which nobody asks for
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|http-equiv', "", text)
    assert "@import" not in text
    assert all(place == "data:," for one in found.all("link") if (place := one.get("href")))
    assert not any("src" in attributes for _, attributes in found.tags)
    assert not re.search(r"url\((?!#)", text)
    assert all((one.get("xlink:href") or "").startswith("#") for one in found.all("use"))
    names = re.findall(r'\sid="([^"]+)"', text)
    assert len(names) == len(set(names))
    drawn = [one for one in found.all("div") if one.get("class") == "drawing"]
    assert all(one["role"] == "img" and one["aria-label"] for one in drawn)
    keys = [one for one in found.all("svg") if one.get("aria-hidden") == "true"]
    assert len(found.all("svg")) == len(drawn) + len(keys)
    assert "nan" not in found.text.lower().split()


def test_the_page_forbids_what_it_does_not_need(tmp_path: Path) -> None:
    _, found = page(tmp_path, final=evaluation())
    policy = next(one["content"] for one in found.all("meta") if "http-equiv" in one)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "script-src 'sha256-" in policy


def test_every_metric_of_model_baseline_and_optimum_is_there(tmp_path: Path) -> None:
    final = evaluation()
    _, found = page(tmp_path, final=final)
    for name in CLASSIFICATION.values():
        assert name in found.texts
    for metrics in (final["metrics"], final["optimum"], final["baseline"]["metrics"]):
        for name, value in metrics.items():
            assert (f"{value:,}" if name == "samples" else f"{value:.4f}") in found.texts
    assert "88%" in found.texts
    assert "Logistic regression" in found.texts


def test_every_feature_setting_and_version_is_there(tmp_path: Path) -> None:
    columns = features()
    _, found = page(tmp_path, final=evaluation(), columns=columns)
    for column in columns:
        assert column["name"] in found.texts
        if column["num_embeddings"] is not None:
            assert f"{column['num_embeddings']:,}" in found.texts
    for setting in ("optim.lr", "model.bottom", "data.rows", "loss"):
        assert setting in found.texts
    assert "64, 32" in found.texts
    for key in ("dlrm", "python", "torch", "numpy", "platform", "cpu"):
        assert str(ENVIRONMENT[key]) in found.text
    assert "8.2 GB" in found.texts


def test_what_the_columns_of_a_table_were_taken_for(tmp_path: Path) -> None:
    taken = [
        {"name": "<b>city</b>", "kind": "category", "taken_for": "category", "why": "9 texts"},
        {"name": "shop", "kind": "ignore", "taken_for": "ignore", "why": 'always "north"'},
    ]
    _, found = page(tmp_path, final=evaluation(), taken=taken)
    for column in taken:
        assert {column["name"], column["taken_for"], column["why"]} <= set(found.texts)
    assert "2 columns, and why" in found.texts
    _, of_a_log = page(tmp_path, final=evaluation())
    assert not any("columns, and why" in text for text in of_a_log.texts)


def test_many_features_fold_away(tmp_path: Path) -> None:
    def folds(columns: list[dict[str, Any]]) -> list[bool]:
        _, found = page(tmp_path, final=evaluation(), columns=columns)
        return ["open" in one for one in found.all("details")]

    assert folds(features(30, 30))[0]
    assert not folds(features(31, 30))[0]


def test_what_mlps_multiplied_by_stands_with_the_environment(tmp_path: Path) -> None:
    products = {"mlp bf16 below 512": "avx512 bf16", "mlp bf16 scores": "torch"}
    _, found = page(tmp_path, final=evaluation() | {"products": products})
    for what, way in products.items():
        assert found.texts[found.texts.index(f"products.{what}") + 1] == way


def test_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"command": [*COMMAND, "--data", "my log; rm.txt"]}
    folder = tmp_path / "a run"
    _, found = page(folder, environment=environment)
    assert "dlrm train demo --run runs/demo --optim.lr 0.2 --data 'my log; rm.txt'" in found.texts
    assert f"dlrm train --run '{folder}' --resume" in found.texts
    assert f"dlrm eval '{folder}' --split test" in found.texts


def test_text_of_a_run_stays_text(tmp_path: Path) -> None:
    final = evaluation()
    final["baseline"]["name"] = HOSTILE
    log = [*events(), {"event": "early_stop", "step": HOSTILE, "patience": HOSTILE}]
    _, clean = page(tmp_path / "clean", final=evaluation(), log=log[:-1])
    text, found = page(
        tmp_path / "hostile",
        recipe=HOSTILE,
        log=log,
        final=final,
        config={HOSTILE: {HOSTILE: HOSTILE}, "loss": {"name": HOSTILE}},
        environment={HOSTILE: HOSTILE, "command": [HOSTILE], "cpu": HOSTILE, "started": HOSTILE},
        columns=[
            {
                "name": HOSTILE,
                "kind": "dense",
                "num_embeddings": HOSTILE,
                "missing_rate": HOSTILE,
            }
        ],
    )
    assert len(found.all("script")) == len(clean.all("script")) == 1
    assert found.all("img") == []
    drawings = [one for one in found.all("div") if one.get("class") == "drawing"]
    assert text.count("</style>") == 1 + len(drawings)
    assert text.count("</title>") == 1
    assert found.text.count(HOSTILE) > 8


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    _, found = page(tmp_path, **RUNS["killed"])
    assert "Not finished: the last logged step is" in found.text
    for said in ("cut off", "no final evaluation", "17 bad rows", "Not drawn: "):
        assert said in found.text
    _, found = page(tmp_path / "good", **RUNS["good"])
    assert "Not drawn" not in found.text
    assert not any("notices" in (one.get("class") or "") for one in found.all("ul"))


def test_points_that_cannot_be_drawn_are_counted(tmp_path: Path) -> None:
    log = events()
    log[3]["loss"] = float("nan")
    _, found = page(tmp_path, log=log, final=evaluation())
    assert "1 measurement is not finite and is not drawn." in found.text


def test_equal_runs_give_equal_pages_in_any_process(tmp_path: Path) -> None:
    text, _ = page(tmp_path, final=evaluation())
    program = "import sys; from dlrm.reporting import write; write(sys.argv[1])"
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, env=environment)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _ = page(tmp_path, final=evaluation())
    before = sorted(path.name for path in tmp_path.iterdir())
    write_run(tmp_path, recipe="another")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dlrm.files.os, "fsync", full)
    with pytest.raises(RunError, match=r"report\.html cannot be written: No space left"):
        write(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_text_can_be_read_on_both_grounds() -> None:
    for theme in (0, 1):
        colors = {name: pair[theme] for name, pair in PALETTE.items()}
        for name in ("ink", "muted", "model", "train", "test", "optimum", "baseline"):
            for ground in ("surface", "raised"):
                assert _contrast(colors[name], colors[ground]) >= 4.5, (name, ground, theme)
        assert _contrast(colors["ink"], colors["warning"]) >= 4.5


def _contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_training_value_over_very_few_rows_is_left_out_and_said(tmp_path: Path) -> None:
    log = events()
    few = {**log[-2], "event": "eval", "split": "train", "step": 401, "samples": 100, "auc": 0.99}
    text, found = page(tmp_path, log=[*log, few], final=evaluation())
    assert found.text.count("Not drawn: the training's last value, over very few rows.") == 2
    assert "0.9900" in found.texts
    other, _ = page(tmp_path, log=log, final=evaluation())

    def drawing(of: str) -> str:
        return of[of.index('aria-label="Validation AUC') :].partition("</svg>")[0]

    assert drawing(text) == drawing(other)


def test_another_loss_has_a_drawing_beside_the_log_loss(tmp_path: Path) -> None:
    _, found = page(tmp_path, **RUNS["squared"])
    assert "mse per sample" in found.texts
    assert "log loss per sample (nats)" in found.texts
    _, found = page(tmp_path, **RUNS["good"])
    assert "mse per sample" not in found.texts


def test_either_evaluation_is_there(tmp_path: Path) -> None:
    write_run(tmp_path, final=evaluation() | {"split": "validation"})
    _, found = page(tmp_path, final=evaluation(0.81))
    assert "Test rows, model of step 400" in found.texts
    assert "Validation rows, model of step 400" in found.texts


def test_a_training_that_logged_once_has_a_loss_curve_from_its_evaluations(tmp_path: Path) -> None:
    log = [event for event in events() if event["event"] != "train" or event["step"] == 400]
    _, found = page(tmp_path, log=log, final=evaluation())
    first, last = (
        number([event for event in log if event.get("split") == "train"][at]["log_loss"])
        for at in (0, -1)
    )
    assert f"Training loss goes from {first} to {last}" in found.texts


def test_intervals_stand_below_their_values(tmp_path: Path) -> None:
    final = evaluation()
    final["metrics"] |= {"auc_low": 0.8011, "auc_high": 0.8099}
    final["metrics"] |= {"log_loss_low": 0.4599, "log_loss_high": 0.4609}
    _, found = page(tmp_path, final=final)
    # In the headline and in the table of results.
    assert found.texts.count("0.8011 to 0.8099") == 2
    assert found.texts.count("0.4599 to 0.4609") == 2
    assert "below each value its 95% interval" in found.text


def test_a_metric_that_no_evaluation_has_is_left_out(tmp_path: Path) -> None:
    final = evaluation()
    for one in (final["metrics"], final["optimum"], final["baseline"]["metrics"]):
        del one["ece"]
    _, found = page(tmp_path, final=final)
    assert "over bins of equal score" not in found.text
    assert "how often a positive row scores above a negative one" in found.text
    assert "below each value" not in found.text


def test_each_of_several_labels_has_its_metrics_and_charts(tmp_path: Path) -> None:
    _, found = page(tmp_path, **RUNS["two labels"])
    for said in (
        "bought: Test AUC 0.8100",
        "<b>liked</b>: Test AUC 0.7100",
        "Label bought",
        "Label <b>liked</b>",
        "bought: test AUC",
        "<b>liked</b>: test AUC",
        "mean of the labels",
    ):
        assert said in found.text
    drawn = [str(one.get("aria-label")) for one in found.all("div")]
    for title in ("Calibration", "Scores by label", "Validation AUC", "Validation log loss"):
        assert sum(name.startswith(title) for name in drawn) == 2


def test_a_regression_shows_errors_predictions_and_residuals(tmp_path: Path) -> None:
    _, found = page(tmp_path, **RUNS["numbers"])
    assert "Test RMSE 0.9400, 0.0400 below linear regression, which reaches 0.9800." in found.text
    for name in REGRESSION.values():
        assert name in found.texts
    for name in set(CLASSIFICATION.values()) - set(REGRESSION.values()):
        assert name not in found.texts
    for said in (
        "mean prediction over mean label",
        "Predicted against actual: 30% of the variance is predicted",
        "Residuals: predicted less actual",
        "mse per sample",
        "7 more are further off",
        "Mean label",
        "1.0000 to 5.0000",
        "0.9300 to 0.9500",
    ):
        assert said in found.text
    assert "Not drawn" not in found.text
    _, alone = page(tmp_path / "alone", **RUNS["numbers alone"])
    assert "Test RMSE 0.9400. It predicts 30% of the label's variance." in alone.text
