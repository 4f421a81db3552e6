"""A server under load on the page of benchmarks."""

import json
import re
from html import unescape
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.reporting.bench import page, write
from dlrm.reporting.bench_rows import Row
from dlrm.reporting.bench_serve import answer, called, grids, loads, matrices, sentences
from dlrm.reporting.charts.heat import FAINT, STRONG, heat
from dlrm.reporting.page import render

from . import serving
from .test_bench_browser import probed
from .test_browser import CHROMIUM, PROBE, _open


def rows(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(row) for row in values]


def test_the_page_has_curves_tables_and_maps():
    text = render(page(serving.everything()))
    for words in (
        "Latency over offered rate: demo, 64 rows a request",
        "Rows/s, all at once: demo, 64 rows a request",
        "p99 at 2,500 requests/s, ms",
        "Slowdown of throughput beside another, 64 rows a request",
        "Slowdown of the median beside another, 64 rows a request",
        "Slowdown of p99 beside another, 64 rows a request",
        "arrivals, cut short",
        "1 run was cut short",
        "The generator alone schedules 350,000 queries/s",
    ):
        assert words in text, words
    assert "are not drawn" not in text
    assert "Doubtful" not in text


def test_only_the_most_disturbed_run_is_named():
    disturbed = [serving.load("single", 1.0, 1.0, others_share=share) for share in (0.1, 0.6, 0.3)]
    notices = page(disturbed).notices
    assert len(notices) == 1
    assert notices[0].count("another program") == 1
    assert "60%" in notices[0]


@pytest.mark.parametrize("at", range(len(serving.everything())))
def test_any_of_the_rows_alone_is_a_page(at):
    assert "<main>" in render(page([serving.everything()[at]]))


def test_rows_of_a_curve_have_the_same_settings():
    other = [{**row, "batch": 16} for row in serving.arrivals()]
    drawn = loads(rows([*serving.arrivals(), *other]))
    assert [len(load.rows) for load in drawn] == [8, 8]
    assert [row["rate"] for row in drawn[0].rows] == sorted(
        row["rate"] for row in serving.arrivals()
    )


@pytest.mark.parametrize(
    ("verdict", "values", "words"),
    [
        ("held", {}, "4,700 requests/s (300,800 rows/s) with p99 within 60 ms in 3 of 3 runs"),
        ("held", {}, "4,950 was too much"),
        ("not exceeded", {"largest_per_s_high": None}, "at least 4,700 requests/s"),
        ("no verdict", {}, "no verdict on p99 within 60 ms: 4,700 requests/s"),
        ("no verdict", {"largest_per_s": None}, "every rate was held and was not"),
        ("not held", {"largest_per_s": None}, "p99 was never within 60 ms, even at 4,950"),
    ],
)
def test_each_verdict_has_its_sentence(verdict, values, words):
    sentence = answer(Row(serving.largest(verdict, **values)))
    assert words in sentence
    assert sentence.startswith("demo, 64 rows a request: ")
    assert "nan" not in sentence


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("1", "demo, 1 row a request"),
        ("mlperf", "demo, MLPerf's 100 to 700 rows a request"),
        ("lognormal:64", "demo, log-normal rows a request, 64 in the median"),
    ],
)
def test_what_is_loaded_has_a_name(sizes, words):
    assert called(Row(serving.load("offline", 1.0, 1.0, sizes=sizes))) == words


def test_the_best_setting_and_the_worst_neighbour_are_said():
    said = " ".join(sentences(rows([*serving.grid(), *serving.beside()])))
    assert "Batches of 4096 with 5 ms of delay do the most" in said
    assert "with 16 and 0 ms" in said
    assert "demo beside lr, dcn does 40% of what it does alone" in said


def test_maps_have_what_was_measured_in_their_cells():
    throughput, p99 = grids(rows(serving.grid()[:-1]))
    for figure in (throughput, p99):
        assert {"16", "256", "4096", "0 ms", "5 ms", "–"} <= set(texts(figure.svg))
    assert "19,200" in texts(throughput.svg)
    assert "4" in texts(p99.svg)
    slowdown, _, _ = matrices(rows(serving.beside()))
    assert {"1.50×", "2.50×", "lr, dcn"} <= set(texts(slowdown.svg))


@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.lists(st.floats(-1e12, 1e12) | st.just(nan), min_size=3, max_size=3),
                    min_size=1, max_size=3)
)  # fmt: skip
def test_cells_are_between_faint_and_strong(values):
    figure = heat("any", "Any", values, rows=["r"] * len(values), columns=list("abc"),
                  x_label="x", y_label="y", shown=lambda value: f"{value:.1e}")  # fmt: skip
    opacities = [float(x) for x in re.findall(r"opacity: ([\d.]+)", figure.svg)]
    assert len(opacities) == np.isfinite(values).sum()
    assert all(FAINT - 1e-9 <= opacity <= STRONG + 1e-9 for opacity in opacities)


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>\n]+)</text>", svg)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1240])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_in_anothers_way(tmp_path: Path, dark, width):
    file = write(tmp_path / "bench.html", serving.everything())
    _open(tmp_path, file, dark=dark, width=width)
    # There is no table to sort on this page.
    script = PROBE.replace('document.querySelectorAll("table.sort thead button")', "[]")
    script = "\n".join(line for line in script.splitlines() if "heads[0]" not in line)
    seen = _open(tmp_path, probed(file, script), dark=dark, width=width)
    found = json.loads(unescape(re.findall(r'data-found="([^"]*)"', seen)[0]))
    assert found["overlaps"] == []
    assert found["wide"] <= 0
    assert found["toggled"] != found["scheme"]
