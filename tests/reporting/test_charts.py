import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Annotation

from dlrm.errors import MissingExtraError
from dlrm.reporting import run_scores, run_training
from dlrm.reporting.bench_machine import Dot, Roof, roofline
from dlrm.reporting.charts.bars import Piece, shares_of, stacks
from dlrm.reporting.charts.curves import Level, curves, line
from dlrm.reporting.charts.drawing import PALETTE, callouts, drawing
from dlrm.reporting.record import Record, read

from .runs import evaluation, events, write_run

SVG = "{http://www.w3.org/2000/svg}"
LEVELS = [Level("best possible", "optimum", 0.81), Level("simple", "baseline", 0.77)]


def tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def check(svg: str) -> None:
    """A drawing is well formed, uses the page's colours alone, and names only what it has."""
    assert tree(svg).get("viewBox")
    # No colour but those that the style sheet has another one for, in the dark theme
    colors = {light for light, _ in PALETTE.values()}
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})\b", svg)) <= colors
    names = re.findall(r'\bid="([^"]+)"', svg)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= set(names)
    assert "nan" not in re.findall(r'd="([^"]*)"', svg)


def curve(values: list[float], levels: list[Level] | None = None) -> str:
    drawn = line("a", "train", list(enumerate(values)))
    return curves("a", "t", [drawn], "AUC", levels or []).svg


@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.5, 0.5],
        [0.5, 0.6],
        [0.0],
        [-1e29, 1e29],
        [1e-300, 1e-299],
        [1e-12, 1e12] * 30,
        [float("nan"), 0.5],
        list(np.random.default_rng(1).normal(0.5, 0.1, 10_000)),
    ],
    ids=["one", "two alike", "two", "zero", "huge", "tiny", "wide", "nan", "many"],
)
def test_every_range_can_be_drawn(values: list[float]) -> None:
    check(curve(values))
    check(curve(values, LEVELS))


def test_many_points_do_not_make_a_large_drawing() -> None:
    many = curve(list(np.random.default_rng(1).normal(0.5, 0.1, 10_000)))
    assert len(many) < 40_000


@given(st.lists(st.floats(-1e29, 1e29), min_size=1, max_size=30))
@settings(deadline=None, max_examples=20)
def test_drawn_lines_are_well_formed(values: list[float]) -> None:
    check(curve(values, LEVELS[:1]))


def test_equal_input_gives_equal_drawings_and_other_input_does_not() -> None:
    assert curve([0.1, 0.2], LEVELS) == curve([0.1, 0.2], LEVELS)
    assert curve([0.1, 0.2], LEVELS) != curve([0.1, 0.3], LEVELS)


def test_the_settings_of_a_user_do_not_matter() -> None:
    import matplotlib

    before = curve([0.1, 0.2])
    with matplotlib.rc_context({"axes.titleweight": "bold", "lines.linestyle": ":"}):
        assert curve([0.1, 0.2]) == before


def test_a_text_is_escaped() -> None:
    drawn = line("a", "train", [(0, 1)])
    svg = curves("a", "t", [drawn], '<script>"&').svg
    assert '<script>"&' in [one.text for one in tree(svg).iter(f"{SVG}text")]


def test_levels_are_drawn_across_and_a_mark_around_a_point() -> None:
    plain, marked = curve([0.7, 0.8]), curve([0.7, 0.8], LEVELS)
    for role in ("optimum", "baseline"):
        assert f"stroke: {PALETTE[role][0]}" in marked
        assert f"stroke: {PALETTE[role][0]}" not in plain


def test_ticks_have_separators_and_differ() -> None:
    drawn = line("a", "train", [(0, 0.79251), (90_000, 0.79252)])
    svg = curves("a", "t", [drawn], "AUC").svg
    texts = [text for one in tree(svg).iter(f"{SVG}text") if (text := (one.text or "").strip())]
    assert "50,000" in texts or "40,000" in texts
    numbers = [text for text in texts if text.startswith("0.79")]
    assert len(numbers) >= 3
    assert len(set(numbers)) == len(numbers)


def record(folder: Path, log: list | None = None, **final: object) -> Record:
    return read(write_run(folder, log=log, final=evaluation() | final))


@pytest.mark.parametrize("bins", [1, 2, 20])
@pytest.mark.parametrize("top", [1.0, 0.3, 1e-4])
def test_calibration(tmp_path: Path, bins: int, top: float) -> None:
    ends = np.linspace(0, top, bins + 1).tolist()
    rows = [
        {"low": low, "high": high, "mean_score": low, "click_rate": low, "samples": samples}
        for low, high, samples in zip(ends, ends[1:], [3, 300, *[3] * bins], strict=False)
    ]
    check(run_scores.calibration(record(tmp_path, calibration_bins=rows)).svg)


@pytest.mark.parametrize("score", [0.0, 0.25])
def test_calibration_of_one_score_alone(tmp_path: Path, score: float) -> None:
    row = {"low": score, "high": score, "mean_score": score, "click_rate": 0.0, "samples": 4}
    check(run_scores.calibration(record(tmp_path, calibration_bins=[row])).svg)


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [([5, 0, 0], [0, 0, 0]), ([0, 0, 0], [0, 1, 0]), ([9, 1, 0], [0, 1, 9])],
)
def test_histogram(tmp_path: Path, negatives: list[int], positives: list[int]) -> None:
    edges = np.linspace(0, 1, 4).tolist()
    counts = {"edges": edges, "negatives": negatives, "positives": positives}
    check(run_scores.histogram(record(tmp_path, histogram=counts)).svg)


@pytest.mark.parametrize("speeds", [[41_000.0], [0.0, 0.0], [1.0, 5e8]])
@pytest.mark.parametrize("waits", [[None, None], [0.0, 0.0], [1.0, 0.1]])
def test_throughput(tmp_path: Path, speeds: list[float], waits: list[float]) -> None:
    log = events(2 * len(speeds), 2)
    for event, speed, wait in zip(log, speeds, waits, strict=False):
        event |= {"samples_per_s": speed, "loading_share": wait}
    check(run_training.throughput(record(tmp_path, log)).svg)


def test_an_interval_holds_its_rate() -> None:
    rates, samples = np.array([0.0, 0.2, 1.0]), np.array([1.0, 50.0, 10.0])
    low, high = run_scores.interval(rates, samples)
    assert np.all((low >= -1e-12) & (low <= rates) & (rates <= high) & (high <= 1 + 1e-12))
    # Wilson's interval for 10 of 50, from its closed form
    assert low[1] == pytest.approx(0.1124, abs=1e-4)
    assert high[1] == pytest.approx(0.3304, abs=1e-4)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"report\.html .*opendlrm\[report\]"):
        curve([1.0])


@pytest.mark.parametrize("rate", [1e-6, 1.0, 1e9])
def test_rooflines(rate: float) -> None:
    flat = [Roof("fp32", 480, False, ""), Roof("bf16", 490, False, "1 2")]
    roofs = [*flat, Roof("memory", 41, True, "")]
    points = [Dot("lookup", "", 1e-3, rate, 1, True), Dot("", "", 1e6, rate, 1, False)]
    check(roofline("r", "t", roofs, points).svg)
    check(roofline("r", "t", [], points[:1]).svg)
    check(roofline("r", "t", roofs[2:], points).svg)


def test_bars() -> None:
    pieces = [
        Piece(0.0, "model"),
        Piece(3.0, "olive"),
        Piece(1.0, "olive", True),
    ]
    check(stacks("s", "t", [pieces], texts=["128"], x_label="x", y_label="y").svg)
    check(stacks("m", "t", [[Piece(0.0, "model")]], x_label="x", y_label="y", limit=9.0).svg)
    check(shares_of("s", "t", [("<b>", pieces), ("nothing", [])]).svg)
    drawn = shares_of("s", "t", [("a", pieces)]).svg
    assert "75%" in drawn
    assert "25%" in drawn


@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 1)), min_size=1, max_size=18))
@settings(deadline=None, max_examples=15)
def test_callouts_stand_apart_and_in_the_order_of_their_dots(
    dots: list[tuple[float, float]],
) -> None:
    with drawing("c", "t") as (_, ax):
        ax.set_xscale("log")
        ax.set_xlim(1, 1e6)
        callouts(ax, dots, [str(at) for at in range(len(dots))], height=0.9)
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    places = [text.xyann[0] for text in texts]
    assert [dots[int(text.get_text())][0] for text in texts] == sorted(x for x, _ in dots)
    assert all(0 <= place <= 1 for place in places)
    assert all(np.diff(places) >= 0.055 - 1e-9)
