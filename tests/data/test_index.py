"""What finds the ids of values, beside a plain dictionary."""

import copy
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data import index, kernels
from dlrm.data.index import FewRows, HashIndex, IntegerIndex, hashes_of, make_index
from dlrm.data.threads import Once
from dlrm.data.vocabulary import Vocabulary, fold, ids_of
from dlrm.errors import DatasetError

fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.usefixtures("both")

Values = Sequence[Any]
EDGES = [0, 1, 2, 5, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
POOLS: dict[Any, list[Any]] = {
    pl.UInt32: EDGES,
    pl.Int64: [*EDGES, -1, 2**32, 2**63 - 1],
    pl.UInt64: [*EDGES, 2**64 - 1],
    pl.Int8: [-128, -1, 0, 1, 127],
    pl.String: ["", "a", "b", "ü", "a rather long text of more than twelve letters"],
}
"""Type -> its values."""


def vocabulary(values: Values, dtype: Any) -> Vocabulary:
    frame = pl.DataFrame({"value": pl.Series(values, dtype=dtype), "count": [1] * len(values)})
    return Vocabulary("x", frame)


def expected(values: Values, known: Values, max_rows: int | None = None) -> list[int]:
    """Look values up in a dictionary."""
    if max_rows is not None:
        values = [(value or 0) % max_rows for value in values]
    places = {value: place for place, value in enumerate(known)}
    return [places.get(value, len(known)) for value in values]


@st.composite
def columns(draw, dtypes=tuple(POOLS)) -> list[tuple[Any, list[Any], list[Any]]]:
    """Return columns of equally many rows: type, known values and the values of the rows."""
    rows = draw(st.integers(0, 12))
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(dtypes))
        value = st.none() | st.sampled_from(POOLS[dtype])
        known = draw(st.lists(value, max_size=8, unique=True))
        drawn.append((dtype, known, draw(st.lists(value, min_size=rows, max_size=rows))))
    return drawn


@pytest.fixture(params=["few rows", "many rows", "hashes that are alike"])
def path(request, monkeypatch):
    """Take the path of few rows, or of many, or of hashes that are alike with the first seed."""
    few = 100 if request.param == "few rows" else 0
    monkeypatch.setattr(index, "FEW_VALUES", few)
    if request.param == "hashes that are alike":
        monkeypatch.setattr(index, "hashes_of", lambda v, seed: hashes_of(v, seed) * (seed > 0))


@fuzz
@given(columns())
@pytest.mark.usefixtures("path")
def test_ids_of_columns_are_those_of_a_dictionary(drawn):
    vocabularies = [vocabulary(known, dtype) for dtype, known, _ in drawn]
    series = [pl.Series(values, dtype=dtype) for dtype, _, values in drawn]
    wanted = [expected(values, known) for _, known, values in drawn]
    ids = ids_of(vocabularies, series)
    assert ids.dtype == np.int32
    assert ids.T.tolist() == wanted
    for v, column, each in zip(vocabularies, series, wanted, strict=True):
        assert v.ids(column).tolist() == each
        # In two pieces.
        half = len(column) // 2
        pieces = pl.concat([column[:half], column[half:]], rechunk=False)
        assert v.ids(pieces).tolist() == each


@fuzz
@given(st.data())
def test_a_few_rows_of_python_values_are_looked_up_as_columns_are(data):
    if not kernels.available():
        pytest.skip("without kernels there is no such index")
    value = st.none() | st.integers(0, 5) | st.integers(0, 2**32 - 1)
    knowns = data.draw(st.lists(st.lists(value, unique=True), min_size=1, max_size=4))
    rows = data.draw(st.integers(1, 5))
    drawn = [data.draw(st.lists(value, min_size=rows, max_size=rows)) for _ in knowns]
    vocabularies = [vocabulary(known, pl.UInt32) for known in knowns]
    indices = [known.index for known in vocabularies if isinstance(known.index, IntegerIndex)]
    few = FewRows(indices)
    wanted = [expected(values, known) for values, known in zip(drawn, knowns, strict=True)]
    ids = few.ids(drawn)
    assert ids is not None
    assert ids.T.tolist() == wanted
    wrong = data.draw(st.sampled_from([-1, 2**32]))
    assert few.ids([[wrong, *values[1:]] for values in drawn]) is None


@fuzz
@given(columns((pl.UInt32, pl.Int64, pl.Int8)), st.data())
@pytest.mark.usefixtures("path")
def test_values_are_folded_on_the_way(drawn, data):
    moduli, vocabularies, series, wanted = [], [], [], []
    for dtype, known, values in drawn:
        # 0 leaves them, in a vocabulary of their own type.
        modulus = data.draw(st.just(0) | st.integers(1, 40))
        table = fold(pl.Series(known, dtype=dtype), modulus or None).unique(maintain_order=True)
        moduli.append(modulus)
        vocabularies.append(vocabulary(table.to_list(), table.dtype))
        series.append(pl.Series(values, dtype=dtype))
        wanted.append(expected(values, table.to_list(), modulus or None))
    assert ids_of(vocabularies, series, moduli).T.tolist() == wanted


@pytest.mark.parametrize("step", [1, 2, 1 << 12, 1 << 20, 2654435769])
def test_many_values_that_lie_in_steps(step):
    keys = np.unique(np.arange(70_000, dtype=np.uint64) * step % 2**32).astype(np.uint32)
    rng = np.random.default_rng(0)
    rng.shuffle(keys)
    known = vocabulary([None, *keys[:50_000].tolist()], pl.UInt32)
    rows = rng.integers(0, len(keys), 60_000)
    places = np.where(rows < 50_000, rows + 1, known.other)
    values = pl.Series(keys[rows])
    missing = pl.Series(rng.random(len(rows)) < 0.1)
    column = pl.select(pl.when(~missing).then(values)).to_series()
    ids = ids_of([known] * 3, [column, values, column])
    np.testing.assert_array_equal(ids[:, 1], places)
    np.testing.assert_array_equal(ids[:, 0], np.where(missing, 0, places))
    np.testing.assert_array_equal(ids[:, 2], ids[:, 0])


def test_integers_in_a_compiled_table_and_all_others_by_their_hashes():
    for values, small in (
        (pl.Series([None, 3], dtype=pl.UInt32), True),
        (pl.Series([2**32 - 1, 0], dtype=pl.Int64), True),
        (pl.Series([], dtype=pl.UInt8), True),
        (pl.Series([-1]), False),
        (pl.Series([2**32]), False),
        (pl.Series(["a", None]), False),
    ):
        kind = IntegerIndex if small and kernels.available() else HashIndex
        assert type(make_index(values)) is kind


def test_values_of_another_type_are_cast_or_refused():
    numbers, texts = vocabulary([7, None], pl.UInt32), vocabulary(["7"], pl.String)
    assert numbers.ids(pl.Series([7, None, 8], dtype=pl.Int64)).tolist() == [0, 1, 2]
    assert numbers.ids(pl.Series(["7", None])).tolist() == [0, 1]
    assert numbers.ids(pl.Series([None, None])).tolist() == [1, 1]
    assert texts.ids(pl.Series([7, 8])).tolist() == [0, 1]
    for values in (pl.Series(["seven"]), pl.Series([2**32]), pl.Series([-1])):
        for look_up in (numbers.ids, lambda v: ids_of([numbers], [v])):
            with pytest.raises(DatasetError, match=r"x holds .*, but its vocabulary holds UInt32"):
                look_up(values)


def test_numbers_that_are_written_in_several_ways():
    known = vocabulary([0.0, float("nan"), 0.5, None], pl.Float64)
    values = pl.Series([float("nan"), -0.0, None, 0.5, 0.25], dtype=pl.Float64)
    assert known.ids(values).tolist() == [1, 0, 3, 2, 4]


def test_columns_of_different_lengths_are_refused():
    known = vocabulary([1, 2], pl.UInt32)
    columns = [pl.Series([1], dtype=pl.UInt32), pl.Series([1, 2], dtype=pl.UInt32)]
    with pytest.raises(ValueError, match=r"1, 2|shape"):
        ids_of([known, known], columns)
    with pytest.raises(ValueError, match="zip"):
        ids_of([known], columns)


def test_no_columns():
    assert ids_of([], []).shape == (0, 0)


def test_threads_share_one_index(monkeypatch):
    built = []

    def counted(values: pl.Series) -> index.Index:
        built.append(len(values))
        return make_index(values)

    monkeypatch.setattr("dlrm.data.vocabulary.make_index", counted)
    known = [
        vocabulary(range(1000), pl.UInt32),
        vocabulary([str(value) for value in range(1000)], pl.String),
    ]
    threads = 8
    together = Barrier(threads, timeout=60)

    def work(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 1100, (3, 40 * 4**seed % 5000))
        together.wait()
        for values in rows:
            column = pl.Series(values, dtype=pl.UInt32)
            ids = ids_of(known, [column, column.cast(pl.String)])
            if not (ids == np.minimum(values, 1000)[:, None]).all():
                return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(work, range(threads)))
    assert sorted(built) == [1000, 1000]


def test_copies_make_an_index_of_their_own():
    known = vocabulary([5, None], pl.UInt32)
    known.index  # noqa: B018 - makes it
    for other in (pickle.loads(pickle.dumps(known)), copy.deepcopy(known)):
        assert other.ids(pl.Series([None, 5], dtype=pl.UInt32)).tolist() == [1, 0]
        assert other.index is not known.index


def test_what_fails_to_be_made_is_tried_again():
    once: Once[int] = Once()
    with pytest.raises(ZeroDivisionError):
        once.get(lambda: 1 // 0)
    assert once.get(lambda: 7) == 7
    assert once.get(lambda: 8) == 7
