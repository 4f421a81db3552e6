"""The page of benchmarks: what is drawn, what is not, and names that mean harm."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.reporting import bench_machine, bench_steps, bench_suites
from dlrm.reporting.bench import headline, page, write
from dlrm.reporting.bench_rows import sort
from dlrm.reporting.page import render as rendered

from . import benchmarks
from .test_charts import check

HOSTILE = "</script><script>alert(1)</script><!-- $x_{$ \"'&lt;"
SECTIONS = {
    "Verdicts": ("train", "infer"),
    "What would change it": ("train", "infer"),
    "How near to the limits": ("train", "infer", "ops"),
    "Where the time goes": ("train", "infer"),
    "Machine: AMD EPYC": ("machine",),
    "Operators alone": ("ops",),
    "What fewer bits cost": ("numerics",),
    "Where the figures come from": ("machine", "train", "infer", "ops", "numerics"),
}


def render(rows: list[dict[str, Any]]) -> str:
    return rendered(page(rows))


class Reader(HTMLParser):
    """The elements of a page, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        addresses = ("src", "href", "xlink:href")
        self.addresses += [found[name] or "" for name in addresses if name in found]
        if tag == "script":
            self.scripts.append(found)


def heads(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def embedded(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_every_suite_has_its_sections_and_no_other():
    rows = benchmarks.every()
    for suite in ("machine", "train", "infer", "ops", "numerics"):
        page = render([row for row in rows if row["suite"] == suite])
        expected = [head for head, suites in SECTIONS.items() if suite in suites]
        assert heads(page) == expected, suite
    assert heads(render(rows)) == list(SECTIONS)


def test_equal_rows_give_equal_pages_and_the_rows_are_in_them():
    rows = benchmarks.every()
    page = render(rows)
    assert page == render(rows)
    assert embedded(page, "rows") == rows
    assert [told["batch"] for told in embedded(page, "steps")] == [128, 2048, 16384, 128, 2048]


def test_a_page_needs_nothing_from_elsewhere():
    page = render(benchmarks.every())
    read = Reader(page)
    assert all(address.startswith(("#", "data:")) for address in read.addresses)
    assert len(read.ids) == len(set(read.ids))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].count("sha256-") == 2
    assert [script.get("type") for script in read.scripts] == [
        "application/json", "application/json", None, None,
    ]  # fmt: skip


def test_without_rows_and_with_foreign_ones_the_page_says_so():
    assert headline([]) == "Nothing of these rows can be drawn."
    rows = [
        {"suite": "train", "step_ms": 3},
        benchmarks.row("gpu", {}),
        benchmarks.step("train", 8, operators=[]),
        {name: value for name, value in benchmarks.step("train", 8).items() if name != "verdict"},
        benchmarks.step("infer", 8, step_ms=None),
        benchmarks.row("machine", {"facts": benchmarks.machine()["facts"], "ceilings": {}}),
        benchmarks.row("machine", {"facts": 3, "ceilings": {}}),
        {},
    ]
    found = sort(rows)
    assert found.machines == []
    assert found.left_out == [
        "row 1 (train): schema None, expected 1",
        "row 2 (gpu): no page draws this suite",
        'row 3 (train): expected a list of objects in "operators"',
        'row 4 (train): lacks "verdict"',
        "row 5 (infer): step_ms is None, expected a number above 0",
        'row 6 (machine): its facts or ceilings lack "threads"',
        "row 7 (machine): its facts or ceilings are damaged ('int' object is not subscriptable)",
        "row 8 (no suite): schema None, expected 1",
    ]
    page = render(rows)
    assert "8 rows are not drawn" in page
    assert "lacks &#34;verdict&#34;" in page
    assert embedded(page, "rows") == rows


def hostile(value: Any) -> Any:
    """Return rows with every text but those that choose what is drawn replaced."""
    kept = ("suite", "kind", "machine")
    if isinstance(value, dict):
        return {k: v if k in kept else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_names_cannot_break_out():
    rows = hostile(benchmarks.every())
    page = render(rows)
    assert HOSTILE not in page
    assert "<script>alert" not in page
    read = Reader(page)
    assert len(read.scripts) == 4
    assert len(read.ids) == len(set(read.ids))
    assert embedded(page, "rows") == rows
    assert embedded(page, "steps")[0]["operators"][0]["name"] == HOSTILE
    assert sort(rows).left_out == []


def test_numbers_that_are_none_are_not_drawn_and_break_nothing():
    def without(value: Any, name: str = "") -> Any:
        if name in ("facts", "ceilings", "step_ms", "batch_size", "schema", "seeds"):
            return value
        if isinstance(value, dict):
            return {k: without(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [without(each) for each in value]
        return math.nan if isinstance(value, float | int) and not isinstance(value, bool) else value

    rows = [without(row) for row in benchmarks.every()]
    page = render(rows)
    assert "no operator here does arithmetic" in page
    assert "no variant was measured" in page
    # What-if needs the terms of every operator.
    assert "What would change it" not in page
    assert "NaN" not in page.partition("<main>")[2].partition("<script")[0]
    assert "nan" not in re.findall(r'd="([^"]*)"', page)


def test_the_headline_is_that_of_what_there_is():
    said = headline(benchmarks.every())
    assert said == (
        "Train, criteo-kaggle: A step of 16,384 takes 86.3 ms: top MLP takes 47%, bound by compute."
    )
    assert headline(benchmarks.numerics()) == (
        "int8 is the smallest that is neutral: -0.00008 AUC."
    )
    only = [benchmarks.case("lookup", 8), benchmarks.case("exchange", 8, **benchmarks.FAILED)]
    assert headline(only) == "2 settings of single operators, 1 of which failed."
    assert headline([benchmarks.machine()]).startswith("This machine copies 41 GB/s, multiplies")


def test_changes_that_the_verdict_does_not_name_stand_below_it():
    listed = benchmarks.step("train", 128)["changes"]
    third = {"what": "batches of 512", "how": "--loader.batch-size 512", "gain": 1.21}
    page = render([benchmarks.step("train", 128, changes=[*listed, third])])
    assert "Also predicted: 1.21x by batches of 512 (--loader.batch-size 512)." in page
    assert "off by 9.0% in the median" in page
    without = render([benchmarks.step("train", 128, model_error=None)])
    assert "Also predicted" not in without
    assert "how far off the model is, is not known" in without


def test_a_step_beside_another_program_is_doubtful():
    assert "Doubtful" not in render([benchmarks.step("train", 128, others_share=0.01)])
    page = render([benchmarks.step("train", 128, others_share=0.5)])
    assert "Doubtful: another program computed meanwhile: 50% of the time" in page


def test_stacks_are_as_high_as_the_step():
    found = sort([benchmarks.step("train", 2048), benchmarks.step("infer", 128)])
    for step in found.steps:
        pieces = bench_steps.passes(step)
        whole = sum(each["ms"] for each in step.objects("operators"))
        assert sum(piece.value for piece in pieces) * step["batch_size"] == pytest.approx(
            1e3 * whole
        )
        backward = sum(o["backward_ms"] for o in step.objects("operators") if o["forward_ms"] > 0)
        light = sum(piece.value for piece in pieces if piece.light)
        assert light * step["batch_size"] == pytest.approx(1e3 * backward)


def test_operators_of_a_step_have_colours_of_their_own():
    colors = [bench_steps.role(name) for name in benchmarks.OPERATORS]
    assert len(set(colors)) == len(colors)
    for name in ("", "top secret", HOSTILE, "dense_update", "embedding lookup"):
        assert bench_steps.role(name)


def test_published_figures_stand_beside_ours():
    published = {"published_samples": 2_048_000, "published_ours_s": 31.4, "published_xeon_s": 256}
    page = render([benchmarks.step("train", 1024, arch="figure6", **published)])
    assert "2,048,000 samples would take 31 s here; published: 256 s on a xeon." in page


def test_counters_that_a_machine_lacks_are_unavailable():
    page = render([benchmarks.machine()])
    assert re.search(r"Hardware counters</th><td>unavailable", page)
    assert "L3 32 MiB" in page


def test_the_page_is_written(tmp_path: Path):
    file = write(tmp_path / "x.html", benchmarks.every())
    assert file.read_text(encoding="utf-8") == render(benchmarks.every())


@pytest.mark.parametrize("change", [0.0, -1e-5, -0.3])
def test_changes_of_any_size_are_drawn(change: float) -> None:
    rows = [
        benchmarks.variant("fp32", "reference", 100, 0.0, 0.0),
        benchmarks.variant("int2", "post-training", 10, change, 1e-4, noise_auc=None),
    ]
    ((figure, _),) = bench_suites.precision(sort(rows).variants)
    check(figure.svg)


def test_caches_and_tables_that_are_near_are_drawn() -> None:
    row = benchmarks.machine()
    caches = row["facts"]["caches"]
    row["facts"]["caches"] = [*caches, {**caches[1], "size_bytes": (1 << 20) + 9}]
    tables = [{"name": f"C{at}", "bytes": 10 ** (at + 2), "row_bytes": 64} for at in range(9)]
    (shown,) = bench_machine.machines(sort([row, benchmarks.step("train", 8, tables=tables)]))
    check(shown["gather"].svg)
    row["ceilings"]["gather"] = row["ceilings"]["gather"][:1]
    (shown,) = bench_machine.machines(sort([row]))
    check(shown["gather"].svg)


JUNK = (None, "x", [], {}, -1, 0, 1e300, True, math.nan, [3])
PLACES = (
    ("threads",), ("step_ms",), ("batch_size",), ("model_error",), ("dim",), ("pooling",),
    ("others_share",), ("load",),
    ("tables",), ("tables", 0), ("tables", 0, "bytes"), ("published_ours_s",),
    ("changes",), ("changes", 0), ("exponents",), ("exponents", "latency"), ("operators",),
    ("operators", 0), ("operators", 0, "ms"), ("operators", 0, "terms"), ("operators", 0, "cache"),
    ("operators", 2, "intensity"), ("operators", 2, "precision"), ("rows_scale",), ("verdict",),
)  # fmt: skip


def test_what_mlps_multiplied_by_stands_where_the_figures_come_from():
    products = {"mlp bf16 below 512": "avx512 bf16", "mlp bf16 scores": "torch"}
    page = render([{**benchmarks.step("train", 128), "products": products}])
    assert "mlp bf16 below 512: avx512 bf16, mlp bf16 scores: torch" in page


@given(st.sampled_from(PLACES), st.sampled_from(JUNK))
@settings(deadline=None, max_examples=20)
def test_damaged_rows_are_drawn_as_far_as_they_go(place: tuple[Any, ...], junk: Any):
    row = json.loads(json.dumps(benchmarks.step("train", 128)))
    inner = row
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    assert heads(render([row]))[-1] == "Where the figures come from"


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", ["copy", "flops", "gather", "gather_by_threads", "call_s"])
def test_damaged_machines_are_drawn_as_far_as_they_go(name: str, junk: Any):
    row = benchmarks.machine()
    row["ceilings"][name] = junk
    assert "Where the figures come from" in render([row])


def test_what_is_neutral_on_some_data_is_not_the_headline() -> None:
    rows = [
        benchmarks.variant("int8", "post-training", 624, -0.00008, 0.00006),
        benchmarks.variant("int4", "post-training", 416, 0.00001, 0.00006),
        benchmarks.variant("int8", "post-training", 624, 0.00002, 0.00006, data="other"),
        benchmarks.variant("int4", "post-training", 416, -0.001, 0.00006, data="other"),
    ]
    assert headline(rows) == "int8 is the smallest that is neutral: -0.00008 to +0.00002 AUC."
    assert headline(rows[3:]) == "No variant with fewer bits is neutral."
