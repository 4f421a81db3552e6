"""Times however they are written, and what becomes of them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.features.texts import NumberReading, as_numbers, time_reading
from dlrm.data.features.time_text import looks_like_time, recognise_number, recognise_order
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import ConfigError, InputError

from .tables import prepare, with_schema

FORMS = (
    *("%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00"),
    *("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S"),
    *("%d %b %Y %H:%M:%S", "%d/%b/%Y:%H:%M:%S +0000", "%a %b %d %H:%M:%S %Y"),
    *("%a, %d %b %Y %H:%M:%S GMT", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S+0000"),
    *("%Y-%m-%d-%H.%M.%S", "%d%b%Y:%H:%M:%S"),
)
TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1)).map(
    lambda time: time.replace(microsecond=0)
)
SHORT = ("2024-13-01", "31.01.2024 25:00", "noon", "5")


@settings(max_examples=60, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=8), st.sampled_from(FORMS))
def test_any_form_is_read(times, form):
    # A day that can be no month, so that the order is known.
    times = [*times, datetime(2024, 12, 31, 23, 59, 58)]
    texts = pl.Series([time.strftime(form) for time in times])
    assert looks_like_time(texts)
    seconds, wrong = as_numbers(texts, time_reading(texts))
    assert not wrong.any()
    assert seconds.to_list() == [time.replace(tzinfo=UTC).timestamp() for time in times]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(TIMES.filter(lambda time: 2001 <= time.year < 2069), min_size=1, max_size=8),
    st.sampled_from([("YYMMDDHH", "%y%m%d%H"), ("YYYYMMDD", "%Y%m%d"), ("seconds", "")]),
)
def test_numbers_that_are_times(times, form):
    name, pattern = form
    stamps = [time.replace(tzinfo=UTC) for time in times]
    texts = [t.strftime(pattern) if pattern else str(int(t.timestamp())) for t in stamps]
    numbers = pl.Series(map(int, texts))
    assert recognise_number("hour", numbers) == name
    assert recognise_number("price", numbers) is None
    seconds = as_numbers(numbers, NumberReading(name, time=True))[0].to_list()
    unit = {"YYMMDDHH": 3600, "YYYYMMDD": 86_400, "seconds": 1}[name]
    assert seconds == [t.timestamp() // unit * unit for t in stamps]
    texts = as_numbers(numbers.cast(pl.String).str.zfill(8), NumberReading(name, time=True))[0]
    assert texts.to_list() == seconds


MONTHS = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre nov. diciembre",
    "kurz": "Jan. Feb. Mär. Apr. Mai Jun. Jul. Aug. Sept. Okt. Nov. Dez.",
    "court": "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
}
WRITTEN = (
    "{d}. {m} {y}",
    "{d} {m} {y}",
    "{d} de {m} de {y}",
    "Montag, {d}. {m} {y}",
    "{d}-{m}-{y}",
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dates(datetime(1980, 1, 1).date(), datetime(2090, 1, 1).date()), min_size=1),
    st.sampled_from(sorted(MONTHS)),
    st.sampled_from(WRITTEN),
    st.sampled_from(["", " 14:30", ", 14:30 Uhr", " 2:30 PM", " 2:30 p.m."]),
)
def test_months_in_other_languages(days, language, form, clock):
    names = MONTHS[language].split()
    texts = pl.Series([form.format(d=t.day, m=names[t.month - 1], y=t.year) + clock for t in days])
    assert looks_like_time(texts)
    seconds, wrong = as_numbers(texts, time_reading(texts))
    assert not wrong.any()
    clock_s = 52_200 if clock else 0
    midnights = [datetime(t.year, t.month, t.day, tzinfo=UTC).timestamp() for t in days]
    assert seconds.to_list() == [midnight + clock_s for midnight in midnights]


def test_words_that_begin_as_months_do_are_no_times():
    for text in ("Marketing dept", "may be", "March on", "Jan Müller", "5 sets of 3", "Dec"):
        assert not looks_like_time(pl.Series([text]))


def test_times_of_a_day_and_other_texts():
    clock = NumberReading(time=True)
    times = pl.Series(["23:59", "0:01:30", "11:59 PM", "0000-00-00"])
    assert as_numbers(times, clock)[0].to_list() == [86_340.0, 90.0, 86_340.0, None]
    for text in SHORT:
        assert as_numbers(pl.Series([text]), clock)[1].to_list() == [True]


def test_the_order_of_day_and_month_may_be_doubted():
    assert recognise_order(pl.Series(["01/02/2024"]))[0] == "month first"
    assert "AMBIGUOUS" in recognise_order(pl.Series(["01.02.2024"]))[1]
    assert recognise_order(pl.Series(["13/02/2024", "01/02/2024"])) == ("day first", "")


def visits(form: str = "%m/%d/%Y %I:%M %p") -> tuple[pl.DataFrame, list[datetime]]:
    rng = np.random.default_rng(0)
    start = datetime(2024, 1, 1)
    times = [start + timedelta(minutes=int(m)) for m in rng.integers(0, 50_000, 300)]
    texts = [time.strftime(form) for time in times]
    return pl.DataFrame({"when": texts, "label": [0, 1] * 150}), times


def test_a_time_becomes_hour_weekday_and_recency(tmp_path):
    frame, times = visits()
    made = prepare(frame, tmp_path / "out")
    assert [feature.name for feature in made.schema.dense] == ["when", "when recency"]
    assert made.schema.feature_names == ("when hour", "when weekday")
    features = Features.load(made.path)
    assert features.columns.column("when").format == "month first"
    encoded = encode_frame(features, frame)
    expected = [(time.hour, time.weekday()) for time in times]
    assert [tuple(row) for row in encoded.ids.tolist()] == expected
    newest = np.argsort([-time.timestamp() for time in times])
    assert (np.diff(encoded.dense[newest, 1]) >= 0).all()
    few = encode_frame(features, pl.DataFrame({"when": [None, "n/a"]}))
    assert few.ids.tolist() == [[24, 7]] * 2
    assert few.dense.tolist() == [[0.0, 0.0]] * 2
    assert features.vocabulary("when weekday").frame["value"][0] == "Monday"


def test_days_have_no_hour_and_hours_no_day(tmp_path):
    for form, names in (("%Y-%m-%d", ("when weekday",)), ("%H:%M", ("when hour",))):
        made = prepare(visits(form)[0], tmp_path / names[0])
        assert made.schema.feature_names == names


def test_the_format_of_a_time_is_in_the_schema(tmp_path):
    frame, _ = visits("%d/%m/%Y")
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    assert schema.column("when").format == "day first"
    made = with_schema(frame, tmp_path / "out", schema)
    assert Features.load(made.path).columns == schema
    with pytest.raises(ConfigError, match='unknown format of a time "first month"'):
        Features.load(made.path).columns.column("when").__class__(
            name="when", kind="number", time=True, format="first month"
        )


def test_numbers_of_another_unit_are_no_times(tmp_path):
    _, times = visits()
    frame = pl.DataFrame({"when": times, "label": [0, 1] * 150})
    features = Features.load(prepare(frame, tmp_path / "out").path)
    expected = encode_frame(features, frame)
    whole = frame.with_columns(when=pl.col("when").dt.epoch("s"))
    np.testing.assert_array_equal(encode_frame(features, whole).ids, expected.ids)
    for unit in ("ms", "us", "ns"):
        for rows in (3, 300):
            counted = frame.head(rows).with_columns(when=pl.col("when").dt.epoch(unit))
            with pytest.raises(InputError, match=r"row 1, column when: .* seconds since 1970"):
                encode_frame(features, counted)
    days = as_numbers(pl.Series([20_240_131, 0]), NumberReading("YYYYMMDD", time=True))
    assert [series.to_list() for series in days] == [[1_706_659_200.0, None], [False, False]]


def test_times_of_several_forms_are_no_lists_at_their_blanks(tmp_path):
    american, european = visits()[0], visits("%d.%m.%Y %H:%M")[0]
    frame = pl.concat([american, european]).with_columns(x=np.arange(600) / 7)
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    assert schema.column("when").kind == "ignore"
