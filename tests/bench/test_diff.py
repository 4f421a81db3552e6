"""Two files of results beside each other, against what their intervals say."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlrm.bench.diff import Compared, Diff, diff
from dlrm.bench.figure import figures
from dlrm.bench.results import SCHEMA
from dlrm.errors import ConfigError, InputError

Row = dict[str, Any]
OF = {
    "schema": SCHEMA, "suite": "train", "commit": "abc1234", "dlrm": "0.1.0", "python": "3.11.7",
    "torch": "2.13.0", "cpu": "AMD EPYC", "cores": 2, "threads": 2, "load": 0.1, "seed": 0,
    "steal_share": 0.0, "machine": "0123456789ab", "taken": "2026-12-01", "command": "dlrm bench",
}  # fmt: skip
OTHER = {"slower": "faster", "faster": "slower", "no verdict": "no verdict",
         "better": "worse", "worse": "better"}  # fmt: skip


def step(batch_size: int, ms: float, share: float = 0.02, **more: Any) -> Row:
    """Return a row of a step with an interval of a share to both sides."""
    bounds = {"step_low": ms * (1 - share), "step_high": ms * (1 + share)}
    return {**OF, "batch_size": batch_size, "step_ms": ms, **bounds, **more}


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


class Files:
    """Writes rows into two files and compares them."""

    def __init__(self, folder: Path):
        self.before, self.after = folder / "before.jsonl", folder / "after.jsonl"

    def __call__(self, before: Sequence[Row], after: Sequence[Row], **flags: bool) -> Diff:
        write(self.before, before)
        return diff(self.before, write(self.after, after), **flags)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """For properties, which try many files one after another."""
    return Files(tmp_path_factory.mktemp("rows"))


POSITIVE = st.floats(1e-3, 1e6)
OPERATORS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["lookup", "update", "loss"]), "ms": POSITIVE}),
    unique_by=lambda each: each["name"],
)
ROWS = st.lists(
    st.builds(
        step,
        st.sampled_from([128, 2048, 16384]),
        POSITIVE,
        st.floats(0, 0.3),
        suite=st.sampled_from(["train", "infer"]),
        ids=st.sampled_from(["uniform", "zipf"]),
        p95_ms=st.none() | POSITIVE,
        lines_per_s=POSITIVE,
        operators=OPERATORS,
    ),
    min_size=1,
    max_size=8,
)


def every(found: Diff) -> list[Compared]:
    return [each for pair in found.pairs for each in (*pair.figures, *pair.operators)]


@given(ROWS)
@settings(deadline=None, max_examples=50)
def test_a_file_beside_itself_has_no_verdict(shared: Files, rows: list[Row]) -> None:
    found = shared(rows, rows)
    assert every(found)
    assert {each.verdict for each in every(found)} == {"no verdict"}
    assert {each.ratio[0] for each in every(found)} == {1.0}
    assert not found.only_before
    assert not found.only_after
    assert not found.changed
    assert not found.notes
    assert not found.slower(0.0)


@given(ROWS, ROWS)
@settings(deadline=None, max_examples=30)
def test_the_other_way_round_all_is_inverted(shared: Files, a: list[Row], b: list[Row]) -> None:
    b = [*b, a[0]]
    one, other = shared(a, b), shared(b, a)
    assert (one.only_before, one.only_after) == (other.only_after, other.only_before)
    there = {(str(pair.settings), each.name): each for pair in one.pairs for each in pair.figures}
    back = {(str(pair.settings), each.name): each for pair in other.pairs for each in pair.figures}
    assert set(there) == set(back)
    for name, each in there.items():
        assert back[name].verdict == OTHER[each.verdict]
        middle, low, high = each.ratio
        assert middle is not None
        assert back[name].ratio[0] == pytest.approx(1 / middle)
        if low is not None and high is not None:
            assert low <= middle <= high
            assert back[name].ratio[1:] == (pytest.approx(1 / high), pytest.approx(1 / low))
        assert back[name].slowdown == pytest.approx(1 / each.slowdown)


@given(ROWS, ROWS, st.randoms(use_true_random=False))
@example(
    [step(128, 1.0, 0.0, p95_ms=each, lines_per_s=1.0, operators=[]) for each in (1.0, None)],
    [step(128, 1.0, 0.0, p95_ms=1.0, lines_per_s=1.0, operators=[])],
    random.Random(1),
)
@settings(deadline=None, max_examples=30)
def test_the_order_of_rows_does_not_matter(
    shared: Files, a: list[Row], b: list[Row], chance: random.Random
) -> None:
    b = [*b, a[0]]
    found = shared(a, b)
    chance.shuffle(a)
    chance.shuffle(b)
    assert shared(a, b) == found


@given(POSITIVE, st.floats(1e-3, 0.5), POSITIVE, st.floats(1e-3, 0.5))
@settings(deadline=None, max_examples=50)
def test_a_verdict_is_given_exactly_where_intervals_do_not_overlap(
    shared: Files, a: float, wide_a: float, b: float, wide_b: float
) -> None:
    (pair,) = shared([step(8, a, wide_a)], [step(8, b, wide_b)]).pairs
    (each,) = pair.figures
    overlap = a * (1 - wide_a) <= b * (1 + wide_b) and b * (1 - wide_b) <= a * (1 + wide_a)
    assert each.verdict == ("no verdict" if overlap else "slower" if b > a else "faster")
    low, high = each.ratio[1:]
    assert low is not None
    assert high is not None
    if abs(low - 1) > 1e-9 and abs(high - 1) > 1e-9:
        assert overlap == (low <= 1 <= high)


@given(st.lists(POSITIVE, min_size=1, max_size=5), st.lists(POSITIVE, min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_repeats_give_their_median_and_spread(
    shared: Files, before: list[float], after: list[float]
) -> None:
    found = shared(
        *([step(8, ms, 0.01, seed=i) for i, ms in enumerate(s)] for s in (before, after))
    )
    (pair,) = found.pairs
    (each,) = pair.figures
    assert pair.repeats == (len(before), len(after))
    for figure, values in ((each.before, before), (each.after, after)):
        assert figure.value == pytest.approx(median(values))
        assert figure.low == pytest.approx(min(values) * 0.99)
        assert figure.high == pytest.approx(max(values) * 1.01)


def test_repeats_without_intervals_have_a_spread(files: Files) -> None:
    def rows(*values: float) -> list[Row]:
        return [{**OF, "suite": "loading", "prepared_s": value} for value in values]

    assert every(files(rows(1.0), rows(2.0)))[0].verdict == "no verdict"
    assert every(files(rows(1.0, 1.1), rows(2.0)))[0].verdict == "no verdict"
    assert every(files(rows(1.0, 1.1), rows(2.0, 2.1)))[0].verdict == "slower"


@pytest.mark.parametrize(
    ("name", "a", "b", "verdict", "slowdown"),
    [
        ("ours_ms", 10.0, 20.0, "slower", 2.0),
        ("lines_per_s", 10.0, 20.0, "faster", 0.5),
        ("lines_per_s", 20.0, 10.0, "slower", 2.0),
        ("auc_change", -0.0001, -0.0008, "worse", 1.0),
        ("auc_change", -0.0008, 0.0001, "better", 1.0),
        ("prepared_s", 0.0, 1.0, "slower", 1.0),
    ],
)
def test_what_is_better_depends_on_the_figure(
    files: Files, name: str, a: float, b: float, verdict: str, slowdown: float
) -> None:
    base = name.removesuffix("_ms").removesuffix("_s")

    def row(value: float) -> Row:
        return {**OF, name: value, f"{base}_low": value - 1e-5, f"{base}_high": value + 1e-5}

    (each,) = every(files([row(a)], [row(b)]))
    assert each.verdict == verdict
    assert each.slowdown == slowdown


def test_slower_figures_are_ours_and_beyond_the_tolerance_worst_first(files: Files) -> None:
    def row(batch_size: int, ours: float, original: float) -> Row:
        found = {**OF, "batch_size": batch_size}
        for name, value in (("ours", ours), ("original", original)):
            found |= {f"{name}_ms": value, f"{name}_interval": [value * 0.99, value * 1.01]}
        return found

    found = files(
        [row(1, 10, 10), row(2, 10, 10), row(3, 10, 10)],
        [row(1, 11, 20), row(2, 13, 10), row(3, 10.3, 10)],
    )
    assert [p.settings["batch_size"] for p, _ in found.slower(0.05)] == [2, 1]
    assert [p.settings["batch_size"] for p, _ in found.slower(0.2)] == [2]
    assert [p.settings["batch_size"] for p, _ in found.slower(0.0)] == [2, 1, 3]
    assert {each.name for _, each in found.slower(0.0)} == {"ours_ms"}


def test_a_tail_has_a_verdict_but_is_not_held_against_us(files: Files) -> None:
    def row(p95: float) -> Row:
        return step(8, 1.0, p95_ms=p95, p95_low=p95 * 0.9, p95_high=p95 * 1.1)

    found = files([row(1.5)], [row(3.0)])
    assert [each.verdict for each in every(found)] == ["no verdict", "slower"]
    assert not found.slower(0.0)


def test_the_operator_that_did_it_is_named(files: Files) -> None:
    def row(**operators: float) -> Row:
        of = [{"name": name, "ms": ms} for name, ms in operators.items()]
        return step(2048, sum(operators.values()), operators=of)

    before, after = row(lookup=4.0, update=3.1, loss=1.0), row(lookup=4.1, update=4.0, loss=0.9)
    (pair,) = files([before], [after]).pairs
    assert pair.cause is not None
    most, share = pair.cause
    assert (most.name, most.before.value, most.after.value) == ("update", 3.1, 4.0)
    assert share == pytest.approx(1.0)
    assert [each.name for each in pair.operators] == ["lookup", "update", "loss"]
    # The other way the same one is why it is faster.
    (pair,) = files([after], [before]).pairs
    assert pair.cause is not None
    assert pair.cause[0].name == "update"
    (pair,) = files([before], [before]).pairs
    assert pair.cause is None


def test_rows_of_one_file_alone_are_listed_by_size(files: Files) -> None:
    a = [step(n, 1.0) for n in (16384, 2048, 128)]
    found = files(a, [step(2048, 1.0), step(64, 1.0)])
    assert [each["batch_size"] for each in found.only_before] == [128, 16384]
    assert [each["batch_size"] for each in found.only_after] == [64]
    sizes = [pair.settings["batch_size"] for pair in files(a, a).pairs]
    assert all(x < y for x, y in pairwise(sizes))


def test_what_fails_now_is_known(files: Files) -> None:
    good = {**OF, "suite": "ops", "operator": "lookup", "ms": 1.0, "error": None}
    bad = {**good, "ms": None, "error": "out of memory"}
    found = files([good], [bad])
    assert [pair.failed for pair in found.broken()] == [(None, "out of memory")]
    assert not every(found)
    assert not files([bad], [good]).broken()
    assert not files([bad], [bad]).broken()
    # One of the repeats went well.
    assert not files([good], [bad, good]).broken()


def test_what_changed_besides_is_said(files: Files) -> None:
    found = files([step(8, 1.0)], [step(8, 1.0, commit="def5678", torch="2.14.0")])
    assert found.changed == {"commit": ("abc1234", "def5678"), "torch": ("2.13.0", "2.14.0")}


def test_other_products_are_said(files: Files) -> None:
    ours, torchs = {"bf16, small": "kernels", "scores": "kernels"}, {"bf16, small": "torch"}
    rows = [step(8, 1.0, products=ours)]
    assert not files(rows, rows).changed
    found = files(rows, [step(8, 1.0, products=torchs)])
    said = ("bf16, small: kernels, scores: kernels", "bf16, small: torch")
    assert found.changed == {"products": said}
    assert files(rows, [step(8, 1.0, products={})]).changed == {"products": (said[0], "none")}


def test_rows_measured_beside_something_else_are_counted(files: Files) -> None:
    rows = [step(1, 1.0, steal_share=0.3), step(2, 1.0, others_share=0.2), step(3, 1.0)]
    found = files([step(1, 1.0)], rows)
    (note,) = found.notes
    assert note.startswith("Something else took CPU time while 2 of 3 rows of ")
    assert note.endswith("after.jsonl were measured")


def test_other_machines_are_refused_unless_asked_for(files: Files) -> None:
    here, there = step(8, 1.0), step(8, 2.0, machine="ba9876543210", cores=4)
    with pytest.raises(ConfigError) as error:
        files([here], [there])
    said = str(error.value)
    assert "before.jsonl was measured on AMD EPYC with 2 cores (0123456789ab)" in said
    assert "after.jsonl on AMD EPYC with 4 cores (ba9876543210)" in said
    assert "--across-machines" in said
    found = files([here], [there], across_machines=True)
    assert found.notes[0].startswith("Across machines: ")
    assert every(found)[0].verdict == "slower"


def test_a_file_of_two_machines_keeps_them_apart(files: Files) -> None:
    both = [step(8, 1.0), step(8, 9.0, machine="ba9876543210")]
    found = files(both, both)
    assert len(found.pairs) == 2
    assert not found.notes
    with pytest.raises(ConfigError, match=r"was measured on .* and .*, .* on "):
        files(both, both[:1])


def test_other_schemas_are_refused_unless_asked_for(files: Files) -> None:
    new = step(8, 1.0)
    old = {name: value for name, value in new.items() if name not in ("schema", "machine")}
    with pytest.raises(ConfigError) as error:
        files([old], [new])
    assert "before.jsonl has rows without a schema" in str(error.value)
    assert "after.jsonl of schema 1" in str(error.value)
    assert "--across-schemas" in str(error.value)
    found = files([old], [new], across_schemas=True)
    assert found.notes[0].startswith("Across schemas: ")
    # Among themselves old rows can be compared; their machine is known by its name.
    assert files([old], [old]).notes == ()
    with pytest.raises(ConfigError, match=r"AMD EPYC with 2 cores, .* on AMD EPYC with 8 cores"):
        files([old], [{**old, "cores": 8}])


def test_rows_of_a_later_version_are_refused(files: Files) -> None:
    later = step(8, 1.0, schema=SCHEMA + 1)
    with pytest.raises(ConfigError, match=f"of schema 2.*this version writes schema {SCHEMA}"):
        files([later], [later])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([step(128, 1.0), step(2048, 1.0)], [step(16384, 1.0)],
         "batch_size is 128, 2048 in the one, 16384 in the other"),
        ([step(8, 1.0)], [step(8, 1.0, suite="infer")],
         "suite is train in the one, infer in the other"),
        ([step(8, 1.0)], [step(8, 1.0, threads=1, ids="zipf")],
         "threads is 2 in the one, 1 in the other; ids is not said in the one, zipf in the other"),
        ([step(8, 1.0, ids="a"), step(9, 1.0, ids="b")],
         [step(8, 1.0, ids="b"), step(9, 1.0, ids="a")],
         "each setting occurs in both, but never with the same others"),
        ([step(n, 1.0) for n in range(1, 8)], [step(9, 1.0)], "1, 2, 3, 4, 5 and 2 more"),
    ],
)  # fmt: skip
def test_files_with_nothing_in_common_say_what_differs(
    files: Files, before: list[Row], after: list[Row], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        files(before, after)
    assert "have no rows in common: " in str(error.value)
    assert message in str(error.value)


def test_a_file_that_is_none_is_said(files: Files) -> None:
    with pytest.raises(InputError, match=r"before\.jsonl: has no rows of results"):
        files([], [step(8, 1.0)])


def test_each_operator_of_a_row_is_compared_with_its_own(files: Files) -> None:
    row = step(8, 1.0, operators=[{"name": "a", "ms": 2.0}, {"name": "b", "ms": 3.0}])
    other = step(8, 1.0, operators=[{"name": "b", "ms": 6.0}, {"name": "c", "ms": 1.0}])
    (pair,) = files([row], [other]).pairs
    assert [(each.name, each.ratio[0]) for each in pair.operators] == [("b", 2.0)]
    assert len(pair.figures) == len(figures(row))
