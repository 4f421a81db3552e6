import ast
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import MissingExtraError
from dlrm.reporting import charts
from dlrm.reporting.charts.drawing import ROLES
from dlrm.reporting.charts.scores import interval
from dlrm.reporting.series import Level, line

LEVELS = [Level("best possible", "optimum", 0.81), Level("simple", "baseline", 0.77)]


def tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def check(svg: str) -> None:
    """A drawing is well formed, uses the page's colours alone, and names only what it has."""
    assert tree(svg).get("viewBox")
    assert not re.search(r"#0abc", svg)
    used = set(re.findall(r"var\(--(\w+)\)", svg))
    assert used <= set(ROLES)
    # No colour of its own that one theme could not show
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    assert "http" not in svg
    names = re.findall(r'\bid="([^"]+)"', svg)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= set(names)
    assert "nan" not in re.findall(r'd="([^"]*)"', svg)


def curve(values: list[float], levels: list[Level] | None = None) -> str:
    drawn = line("a", "train", list(enumerate(values)))
    return charts.curves("a", "what is seen", [drawn], levels or [], y_label="AUC")


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


def test_a_title_is_escaped() -> None:
    drawn = line("a", "train", [(0, 1)])
    svg = charts.curves("a", '<script>"&', [drawn], y_label="AUC")
    assert tree(svg).get("aria-label") == '<script>"&'


def test_levels_are_drawn_across_and_a_mark_around_a_point() -> None:
    plain, marked = curve([0.7, 0.8]), curve([0.7, 0.8], LEVELS)
    for role in ("optimum", "baseline"):
        assert f"var(--{role})" in marked
        assert f"var(--{role})" not in plain


def test_ticks_have_separators_and_differ() -> None:
    drawn = line("a", "train", [(0, 0.79251), (90_000, 0.79252)])
    svg = charts.curves("a", "t", [drawn], y_label="AUC")
    texts = [text for one in tree(svg).iter("text") if (text := (one.text or "").strip())]
    assert "50,000" in texts or "40,000" in texts
    numbers = [text for text in texts if text.startswith("0.79")]
    assert len(numbers) >= 3
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("bins", [1, 2, 20])
@pytest.mark.parametrize("top", [1.0, 0.3, 1e-4])
def test_calibration(bins: int, top: float) -> None:
    ends = np.linspace(0, top, bins + 1)
    pairs = np.stack([ends[:-1], ends[1:]], axis=1)
    middle = pairs.mean(axis=1)
    check(charts.calibration("c", "t", pairs, middle, middle, np.full(bins, 3.0)))


def test_calibration_of_one_score_alone() -> None:
    one = np.array([0.25])
    check(charts.calibration("c", "t", np.array([[0.25, 0.25]]), one, one * 0, one * 4))
    check(charts.calibration("c", "t", np.array([[0.0, 0.0]]), one * 0, one * 0, one * 4))


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [([5, 0, 0], [0, 0, 0]), ([0, 0, 0], [0, 1, 0]), ([9, 1, 0], [0, 1, 9])],
)
def test_histogram(negatives: list[int], positives: list[int]) -> None:
    edges = np.linspace(0, 1, 4)
    check(charts.histogram("h", "t", edges, np.array(negatives, float), np.array(positives, float)))


@pytest.mark.parametrize("speeds", [[41_000.0], [0.0, 0.0], [1.0, 5e8]])
@pytest.mark.parametrize("waits", [[], [0.0, 0.0], [1.0, 0.1]])
def test_throughput(speeds: list[float], waits: list[float]) -> None:
    speed, wait = (
        line("a", role, list(enumerate(values)))
        for role, values in (("model", speeds), ("train", waits))
    )
    check(charts.throughput("t", "t", speed, wait, x_label="time (s)"))


def test_an_interval_holds_its_rate() -> None:
    rates, samples = np.array([0.0, 0.2, 1.0]), np.array([1.0, 50.0, 10.0])
    low, high = interval(rates, samples)
    assert np.all((low >= -1e-12) & (low <= rates) & (rates <= high) & (high <= 1 + 1e-12))
    # Wilson's interval for 10 of 50, from its closed form
    assert low[1] == pytest.approx(0.1124, abs=1e-4)
    assert high[1] == pytest.approx(0.3304, abs=1e-4)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"report\.html .*opendlrm\[report\]"):
        curve([1.0])


@pytest.mark.parametrize(
    "path", [*Path(charts.__file__).parent.glob("*.py")], ids=lambda path: path.stem
)
def test_no_chart_imports_matplotlib_before_drawing_has_looked_for_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in (each for each in tree.body if isinstance(each, ast.FunctionDef)):
        if function.name.startswith("_") or path.stem == "drawing":
            continue  # called while a drawing is open
        for statement in function.body:
            names = [
                each.module or ""
                for each in ([] if isinstance(statement, ast.With) else ast.walk(statement))
                if isinstance(each, ast.ImportFrom)
            ]
            assert not any(name.startswith("matplotlib") for name in names), function.name
