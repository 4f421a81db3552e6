"""Texts and numbers as times, in seconds since 1970, or since midnight where there is no day.

A format is empty (`2024-01-31`, `2024-01-31 12:00:00`, `2024-01-31T12:00:00+01:00`, `23:59`,
`31 Dec 2024`, `3. März 2024`), `month first` (12/31/2024 11:59 PM), `day first` (31/12/2024),
digits such as `YYMMDDHH`, or the unit of a number that counts from 1970: `seconds`, ...
"""

import re
from typing import Any
from unicodedata import normalize

import polars as pl

from dlrm.errors import unknown

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
DIGITS = {
    "YYYYMMDD": "%Y%m%d",
    "YYMMDDHH": "%y%m%d%H",
    "YYYYMMDDHH": "%Y%m%d%H",
    "YYYYMMDDHHMM": "%Y%m%d%H%M",
    "YYYYMMDDHHMMSS": "%Y%m%d%H%M%S",
}
ORDERS = ("month first", "day first")
TIME_FORMATS = ("", *ORDERS, *DIGITS, *UNITS)
_YEAR_10000 = 253_402_300_800.0
"""What is later is no time, but milliseconds, say, where seconds are expected."""
_FIRST, _LAST = 315_532_800.0, 4_102_444_800.0
"""The years 1980 and 2100, between which a number that counts seconds is taken for a time."""
_NAME = re.compile(
    r"(^|[_\W\d])(time|times|date|hour|day|datetime|timestamp|ts|epoch|when|at|created|updated)"
    r"($|[_\W\d])|(?i:time$|date$|timestamp)|(?<=[a-z])At$",
    re.IGNORECASE,
)
_CLOCKS = ("%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
_FORMS = (*(f"%Y-%m-%dT{clock}" for clock in _CLOCKS), *(f"%Y-%m-%dT{c}%#z" for c in _CLOCKS[:2]))
_MONTHS = (
    *("jan|ene|gen", "feb|fev", "mar|mrt|mrz", "apr|avr|abr", "mai|may|mag|mei", "jun|juin|giu"),
    *("jul|juil|lug", "aug|aou|ago", "sep|set", "oct|okt|out|ott", "nov", "dec|dez|dic|des"),
)
"""How words for months begin in English, German, French, Spanish and their neighbours, plainly."""
_ACCENTS = {"a": "[aä]", "e": "[eé]", "u": "[uû]"}
_MONTH = (
    "(?i:("
    + "|".join("".join(_ACCENTS.get(letter, letter) for letter in name) for name in _MONTHS)
    + r")[a-zà-ÿ]*)\.?"
)
_ORDINAL = r"(?:\.|er|º|st|nd|rd|th)?"
_TIME = (
    r"^\d{1,4}[-/.]\d{1,2}[-/.]\d|^\d{8}T\d{4}|^\d{1,2}:\d\d|^\d{1,2} ?(?i:[ap]\.? ?m\b)"
    rf"|^([A-Za-zà-ÿ]{{3,10}}\.?,? )?(\d{{1,2}}{_ORDINAL}[-/ ]+(?:de )?)?{_MONTH}[-/ ,]+(?:de )?\d"
    rf"|^\d{{1,2}}{_MONTH}\d{{4}}"
)
_DAY_AND_MONTH = r"^(\d{1,2})[-/.](\d{1,2})[-/.]"
_NO_DAY = r"^0{1,4}[-/.]0{1,2}[-/.]0{1,4}([T ][0:.]+)?Z?$"


def seconds_of(values: pl.Series) -> pl.Series:
    """Return times and durations of a file's own types in seconds."""
    if values.dtype == pl.Date:
        return values.to_physical().cast(pl.Float64) * 86_400
    per_second = {"ms": 1e3, "us": 1e6, "ns": 1e9}[getattr(values.dtype, "time_unit", "ns")]
    return values.to_physical().cast(pl.Float64) / per_second


def read_numeric_times(numbers: pl.Series, time_format: str) -> pl.Series:
    """Return numbers that are times in seconds, null where one is none."""
    if time_format in DIGITS:
        digits = numbers.cast(pl.Int64, strict=False).cast(pl.String)
        return _digits(digits.str.zfill(len(time_format)), time_format)
    seconds = numbers.cast(pl.Float64) / UNITS.get(time_format, 1.0)
    return seconds.set(seconds.abs() >= _YEAR_10000, None)


def read_times(texts: pl.Series, time_format: str = "") -> pl.Series:
    """Return texts as seconds, null where one is no time."""
    if time_format in DIGITS:
        return _digits(texts, time_format)
    if time_format in UNITS:
        return read_numeric_times(texts.cast(pl.Float64, strict=False), time_format)
    plain = _iso(texts, time_format)
    read = (
        plain.str.to_date("%Y-%m-%d", strict=False),
        *(plain.str.to_datetime(form, strict=False, time_unit="us") for form in _FORMS),
        *(plain.str.to_time(clock, strict=False) for clock in _CLOCKS),
    )
    return pl.select(pl.coalesce(*map(seconds_of, read)).alias(texts.name)).to_series()


def no_day(texts: pl.Series) -> pl.Series:
    """Return a mask of `0000-00-00`, as databases write a missing day."""
    return texts.str.contains(_NO_DAY).fill_null(value=False)


def looks_like_time(texts: pl.Series) -> bool:
    """Whether nearly all texts, none of them null, begin as times do."""
    return len(texts) > 0 and float(texts.str.contains(_TIME).mean()) >= 0.95  # pyright: ignore[reportArgumentType]


def recognise_order(texts: pl.Series) -> tuple[str, str]:
    """Return which of day and month comes first in texts, and what may be doubted of that.

    Returns:
        Two empty texts where the year comes first, or the month is a word.

    """
    pairs = texts.str.extract_groups(r"^(\d{1,2})([-/.])(\d{1,2})[-/.]\d{2,4}\b").struct.unnest()
    first, second = (pairs[name].cast(pl.Int64).drop_nulls() for name in ("1", "3"))
    if first.is_empty():
        return "", ""
    highest: tuple[Any, Any] = first.max(), second.max()
    if max(highest) > 12:
        return ORDERS[highest[0] > 12], ""
    chosen = ORDERS[pairs["2"].drop_nulls()[0] != "/"]
    other = ORDERS[chosen == ORDERS[0]]
    return chosen, f'AMBIGUOUS: taken for {chosen}; else set format = "{other}"'


def recognise_number(name: str, numbers: pl.Series) -> str | None:
    """Return the format of whole numbers that are times by name and value; None for others."""
    if not _NAME.search(name) or numbers.is_empty():
        return None
    low, high = float(numbers.min()), float(numbers.max())  # pyright: ignore[reportArgumentType]
    for unit, per_second in UNITS.items():
        if _FIRST * per_second <= low and high <= _LAST * per_second:
            return unit
    if low < 0 or high >= 10**14 or not bool((numbers == numbers.round()).all()):
        return None
    for form in DIGITS:
        # A year before 2010 has a leading zero, which a number has lost.
        least = len(form) - (form == "YYMMDDHH")
        if not 10 ** (least - 1) <= low <= high < 10 ** len(form):
            continue
        seconds = read_numeric_times(numbers.unique(), form)
        if not seconds.null_count() and _FIRST <= float(seconds.min()) <= _LAST:  # pyright: ignore[reportArgumentType]
            return form
    return None


def check_time_format(text: str) -> None:
    """Raise a ConfigError unless a text is the format of a time."""
    if text not in TIME_FORMATS:
        raise unknown("format of a time", text, TIME_FORMATS)


def _digits(texts: pl.Series, form: str) -> pl.Series:
    valid = texts.str.contains(rf"^\d{{{len(form)}}}$").fill_null(value=False)
    digits, pattern = texts.set(~valid, None), DIGITS[form]
    if "H" not in form:
        return seconds_of(digits.str.to_date(pattern, strict=False))
    if form.endswith("HH"):
        # Polars reads no hour without minutes.
        digits, pattern = digits + "00", f"{pattern}%M"
    return seconds_of(digits.str.to_datetime(pattern, strict=False, time_unit="us"))


def _iso(texts: pl.Series, order: str) -> pl.Series:
    """Return texts whose year comes first and whose zone is a number."""
    plain = texts.str.replace(r"\s*\(?(?:UTC|GMT|Z)\)?$", "+00:00").str.replace(r",? Uhr$", "")
    plain = plain.str.replace(r"(\d)\s*(?i:([ap])\.?\s?m)\.?$", "$1 ${2}m")
    plain = plain.str.replace(r"\s+([-+]\d\d:?\d\d)$", "$1")
    if plain.str.contains("[A-Za-zà-ÿ]{3}").any():
        plain = _numbered_months(plain)
    if order:
        day, month = (2, 1) if order == "month first" else (1, 2)
        plain = plain.str.replace(rf"{_DAY_AND_MONTH}(\d\d)(\D|$)", "${1}/${2}/20${3}${4}")
        year_first = f"${{3}}-${{{month}}}-${{{day}}}"
        plain = plain.str.replace(rf"{_DAY_AND_MONTH}(\d{{4}})", year_first)
    # ISO's short form, and DB2's.
    plain = plain.str.replace(r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)", "${1}-${2}-${3}T${4}:${5}:")
    plain = plain.str.replace(r"T(\d\d:\d\d):($|[-+])", "T${1}${2}")
    plain = plain.str.replace(r"^(\d{4}-\d\d-\d\d)-(\d\d)\.(\d\d)\.", "${1}T${2}:${3}:")
    plain = plain.str.replace(r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", "${1}-${2}-${3}")
    plain = plain.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})(?:T|,?\s+|:)(\d)", "${1}T${2}")
    # Polars reads no hour without minutes.
    plain = plain.str.replace(r"(^|T)(\d{1,2}) ([ap]m)$", "${1}${2}:00 ${3}")
    return plain.str.replace(r"T(\d\d)$", "T${1}:00")


def _numbered_months(texts: pl.Series) -> pl.Series:
    """Return texts with words for months, such as `31 Dec 2024` or `3. März 2024`, year first."""
    texts = texts.str.replace(
        rf"^[A-Za-zà-ÿ]+\.?,?\s+(\d{{1,2}}\S*\s+(?:de )?{_MONTH}|{_MONTH})", "$1"
    )
    texts = texts.str.replace(
        rf"^(\d{{1,2}}){_ORDINAL}\s*(?:de )?[-/ ]?{_MONTH}[-/, ]*(?:de )?(\d{{4}})",
        "${3}-${2}-${1}",
    )
    texts = texts.str.replace(rf"^(\d{{1,2}})\.?[-/ ]+{_MONTH}[-/, ]+(\d\d)\b", "20${3}-${2}-${1}")
    texts = texts.str.replace(
        rf"^{_MONTH}\s+(\d{{1,2}})\s+([\d:]+)\s+(\d{{4}})$", "${4}-${1}-${2} ${3}"
    )
    texts = texts.str.replace(
        rf"^{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})", "${3}-${1}-${2}"
    )
    names = texts.str.extract(r"^\d{4}-([^\d\W]+)-", 1)
    if names.null_count() == len(names):
        return texts
    numbers = {name: _month(name) for name in names.drop_nulls().unique()}
    months = names.replace_strict(numbers, default=None, return_dtype=pl.String)
    parts = texts.str.extract_groups(r"^(\d{4}-)[^\d\W]+(-.*)$").struct.unnest()
    return pl.select(pl.coalesce(parts["1"] + months + parts["2"], texts)).to_series()


def _month(name: str) -> str | None:
    """Return the number of a word for a month, whose accents do not count."""
    plain = normalize("NFD", name.lower()).encode("ascii", "ignore").decode()
    known = (number for number, begins in enumerate(_MONTHS, 1) if re.match(begins, plain))
    number = next(known, None)
    return None if number is None else f"{number:02}"
