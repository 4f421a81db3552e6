"""Texts as numbers, however a whole column writes them: `1,234.50`, `1.234,50 €`, `12 kg`, `(3)`.

A format is the number 1234.5 as the column writes it: `1,234.5`, `$1.234,5`, `1234.5 kg`; the
empty one is `1234.5`. The number of `12%` is 12. Where thousands and the like stand before the
unit, it is `1.2345 k`, as of 3k and 1.2M, or `1.2345 ks`, as of 10ms and 2s, which are seconds.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from dlrm.data.threads import check_pool
from dlrm.errors import ConfigError

_EXCEL = ("#n/a", "#n/a n/a", "#na", "#value!", "#div/0!", "#null!", "#ref!", "#name?", "#num!")
_PANDAS_AND_R = ("na", "n/a", "n.a.", "<na>", "nan", "-nan", "nat", "none", "<none>")
_DATABASES = ("null", "<null>", "(null)", "[null]", "\\n", "nil")
_C = ("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1.#snan", "-1.#snan")
_SIGNS = ("", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "?", ".", "..")
MISSING_TEXTS = frozenset((*_EXCEL, *_PANDAS_AND_R, *_DATABASES, *_C, *_SIGNS))
"""What numbers, times and labels hold where they are missing, in lower case."""
CLASSES = frozenset(("-", "none"))
"""Texts of missing values that are as often one of the two values of a label."""


def is_missing(texts: pl.Series) -> pl.Series:
    """Return a mask of the texts that usually mean missing; true where a text is null."""
    return texts.is_null() | texts.str.strip_chars().str.to_lowercase().is_in(list(MISSING_TEXTS))


def without(frame: pl.DataFrame, tokens: Collection[str]) -> pl.DataFrame:
    """Return a frame whose texts are null where they are one of some tokens."""
    if not tokens:
        return frame
    check_pool()
    columns = []
    for column in frame.iter_columns():
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            # Methods of a series take its name for a pattern where it looks like one.
            values = column.alias("").cast(pl.String).str.strip_chars()
            missing = values.is_in(list(tokens)).fill_null(value=False)
            columns.append(column.alias("").set(missing, None).alias(column.name))
    return frame.with_columns(columns)


TRUTHS = "true"
"""The format of a column of `true` and `false`, whose numbers are 1 and 0."""
PYTHONS = "1234.5"
"""The format of what Python reads, beside which it reads `3-`, `(3)` and a sign of its own."""
_SAMPLE = re.compile(r"([^\d]*?)\s*1(?:([ ',.]?)234([.,])5|([.,])2345)\s*([^\d]*)$")
_SEPARATORS = (("", "."), (",", "."), (".", ","), ("", ","), (" ", "."), (" ", ","), ("'", "."))
"""Thousands separator and decimal point, the likelier ones first."""
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|RUB|BRL|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|MXN|ZAR|KRW|SGD"
_CURRENCY = rf"(?:[A-Z]{{1,3}})?\p{{Sc}}|{_CODES}|kr|zł|Kč|Rs\.?"
_PREFIX = rf"^[-+(]?\s*({_CURRENCY})\s*[-+]?\s*[\d.,]"
_SUFFIX = r"[\d.,)]\s*([\p{L}\p{Sc}%‰°µ″′][^\d\s,;:|()]{0,11}(?: [^\d\s,;:|()]{1,11})?)\s*[)-]?$"
_NUMBER = rf"^[-+(−]?\s*(?:{_CURRENCY})?\s*[-+]?\s*\.?\d[\d.,'’\s]*(?:[eE][-+]?\d+)?"
"""How a number begins in any format: where this fails, nothing else needs to be tried."""
_SCALES = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "K": 1e3, "c": 1e-2, "m": 1e-3, "µ": 1e-6}
_SCALES |= {"u": 1e-6, "n": 1e-9, "": 1.0}
"""What may stand before a unit, as in `kB` and `ms`."""
_COUNTS = {
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "m": 1e6,
    "B": 1e9,
    "b": 1e9,
    "bn": 1e9,
    "T": 1e12,
    "": 1.0,
}
"""What stands behind a number that has no unit, as in `3k` and `1.2M`."""
_SURE_COUNTS = ("k", "K", "M", "bn")
"""Suffixes of counts that are no units themselves."""
_SPACES = "[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]"
_PAIR = r"^\d+,(0|[1-9]\d*)$"
"""Two whole numbers, none of which has a leading zero, as fractions have."""
LEAST_SHARE = 0.95
"""Least share of the values of a column that are written in its format."""


@dataclass(frozen=True, slots=True)
class _Format:
    thousands: str
    decimal: str
    prefix: str = ""
    suffix: str = ""
    scaled: bool = False
    """Whether the suffix is a unit before which thousands and the like may stand: `3k`, `10 ms`."""

    @property
    def pattern(self) -> str:
        """The regular expression of a number without its unit."""
        point, mark = re.escape(self.decimal), re.escape(self.thousands)
        # Groups of two digits are India's.
        whole = rf"\d+|[1-9]\d{{0,2}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}" if mark else r"\d+"
        return rf"^[-+]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?$"

    def __str__(self) -> str:
        if self.scaled:
            return f"{self.prefix}1{self.decimal}2345 k{self.suffix}"
        space = " " if len(self.suffix) > 1 or self.suffix not in ("", "%") else ""
        return f"{self.prefix}1{self.thousands}234{self.decimal}5{space}{self.suffix}"

    def read(self, texts: pl.Series) -> pl.Series:
        """Return the numbers (Float64), null where a text is none."""
        plain, factors = self._signed(texts), None
        if self.scaled:
            scales = _SCALES if self.suffix else _COUNTS
            before = plain.str.extract(r"[\d.,]\s*(\p{L}*)$", 1).fill_null("")
            factors = before.replace_strict(scales, default=None, return_dtype=pl.Float64)
            plain = plain.str.replace(r"\s*\p{L}*$", "").set(factors.is_null(), None)
        valid = plain.str.contains(self.pattern).fill_null(value=False)
        if self.thousands:
            plain = plain.str.replace_all(self.thousands, "", literal=True)
        numbers = plain.str.replace(self.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        numbers = numbers.set(~valid, None)
        return numbers if factors is None else numbers * factors

    def without_unit(self, texts: pl.Series) -> pl.Series:
        """Return texts without their unit."""
        if self.prefix:
            texts = texts.str.replace(self.prefix, "", literal=True)
        if self.suffix:
            # One day and two days; accountants' signs may follow.
            many = len(self.suffix) > 2 and self.suffix[-1].isalpha()
            unit = (
                re.escape(self.suffix.removesuffix("s")) + "s?" if many else re.escape(self.suffix)
            )
            end = rf"(^|[\d.,)\s]|\p{{L}})\s*{unit}\s*([)-]?)$"
            texts = texts.str.replace(end, "${1}${2}")
        return texts.str.strip_chars()

    def _signed(self, texts: pl.Series) -> pl.Series:
        """Return texts without their unit, and a minus sign before each negative one."""
        texts = self.without_unit(texts.str.replace_all("\N{MINUS SIGN}", "-", literal=True))
        if self.thousands == " ":
            texts = texts.str.replace_all(_SPACES, " ")
        elif self.thousands == "'":
            texts = texts.str.replace_all("\N{RIGHT SINGLE QUOTATION MARK}", "'", literal=True)
        # Accountants write (3), and some programs 3-.
        return texts.str.replace(r"^\(\s*(.*?)\s*\)$|^(.*\d)\s*-$|^-\s+(.*)$", "-$1$2$3")


@lru_cache
def _format(text: str) -> _Format:
    sample = _SAMPLE.match(text)
    if sample is None:
        raise ConfigError(
            f'the format of a number is "{text}", expected 1234.5 as the column writes it, such as '
            f'"1,234.5", "1.234,5", "$1,234.5", "1234.5 kg" or "1.2345 k" for 3k and 1.2M; or '
            f'"{TRUTHS}" for true and false'
        )
    prefix, thousands, decimal, scaled_decimal, suffix = sample.groups()
    if scaled_decimal:
        if not suffix.startswith("k"):
            raise ConfigError(f'the format "{text}" does not end in "k", or in a unit behind it')
        return _Format("", scaled_decimal, prefix, suffix[1:], scaled=True)
    if thousands == decimal:
        raise ConfigError(f'the format "{text}" has one sign for thousands and decimals')
    return _Format(thousands, decimal, prefix, suffix)


def check_format(text: str) -> None:
    """Raise a ConfigError unless a text is the format of a number."""
    if text and text != TRUTHS:
        _format(text)


def read_numbers(texts: pl.Series, text_format: str = "") -> tuple[pl.Series, pl.Series]:
    """Return texts as Float64, null where one is none; and the texts without their unit."""
    if not text_format:
        return texts.cast(pl.Float64, strict=False), texts
    if text_format == TRUTHS:
        lower = texts.str.to_lowercase()
        truths = lower.replace_strict({"true": 1.0, "false": 0.0}, default=None)
        return truths.cast(pl.Float64), texts
    known = _format(text_format)
    return known.read(texts), known.without_unit(texts)


def recognise(texts: pl.Series) -> tuple[str, str]:
    """Return the format of nearly all texts, and what may be doubted of it, in words.

    Returns:
        Two empty texts where they are plain numbers, or none.

    """
    counts = texts.filter(~is_missing(texts)).rename("text").value_counts(name="count")
    values, weights = counts["text"], counts["count"]
    units = [values.str.extract(unit, 1) for unit in (_PREFIX, _SUFFIX)]
    prefix, suffix = map(_most, units)
    if suffix and values.str.contains(rf"^0\d+\s*{re.escape(suffix)}$").any():
        # Codes have leading zeros.
        return "", ""
    others = values.str.contains(r"\d") & ~values.str.contains(_NUMBER)
    if _weighed(others, weights) > 1 - LEAST_SHARE or not values.str.contains(_NUMBER).any():
        return "", ""
    formats = [_Format(*separators, prefix, suffix) for separators in _SEPARATORS]
    if (scaled := _scaled_unit(units[1])) is not None:
        formats += [_Format("", decimal, prefix, scaled, scaled=True) for decimal in ".,"]
        # Where all are thousands, other values may come with another letter.
        formats = formats[-2:] + formats if suffix in _SURE_COUNTS else formats
    shares = [_share(form, values, weights) for form in formats]
    best = max(shares)
    chosen = formats[shares.index(best)]
    if best < LEAST_SHARE or (str(chosen) == PYTHONS and _python_reads(values, weights) >= best):
        return "", ""
    if chosen.thousands == "," and shares[formats.index(_Format("", ",", prefix, suffix))] == best:
        other = _Format("", ",", prefix, suffix)
        doubt = f'if its commas are decimal commas, set format = "{other}"'
        return str(chosen), f"AMBIGUOUS: {doubt}"
    # Fractions of one length are rounded numbers.
    lengths = values.str.extract(_PAIR, 1).str.len_chars()
    if (chosen.thousands, chosen.decimal) == (".", ",") and 1 < lengths.n_unique() == (
        lengths.drop_nulls().n_unique()
    ):
        return str(chosen), "AMBIGUOUS: if these are pairs of numbers, make it a list in a schema"
    return str(chosen), ""


def doubted_point(texts: pl.Series) -> str:
    """Say that a point in texts may separate thousands; empty where it cannot."""
    pointed = texts.filter(texts.str.contains(".", literal=True)).drop_nulls()
    if pointed.is_empty() or not pointed.str.contains(r"^-?[1-9]\d{0,2}\.\d{3}$").all():
        return ""
    other = _Format(".", ",")
    return f'AMBIGUOUS: if its points separate thousands, set format = "{other}"'


def _share(tried: _Format, values: pl.Series, weights: pl.Series) -> float:
    return _weighed(
        tried.read(values).is_not_null() | is_missing(tried.without_unit(values)), weights
    )


def _python_reads(values: pl.Series, weights: pl.Series) -> float:
    return _weighed(values.cast(pl.Float64, strict=False).is_not_null(), weights)


def _weighed(mask: pl.Series, weights: pl.Series) -> float:
    return float(weights.filter(mask).sum()) / max(1, int(weights.sum()))


def _most(units: pl.Series) -> str:
    known = units.drop_nulls()
    return "" if known.is_empty() else str(known.mode().sort()[0])


def _scaled_unit(suffixes: pl.Series) -> str | None:
    """Return the unit of suffixes such as `ms` and `s`; None where they have none in common."""
    ends = suffixes.drop_nulls().unique().to_list()
    if not ends or len(ends) > len(_SCALES):
        return None
    if all(end in _COUNTS for end in ends):
        return ""
    for unit in (min(ends, key=len), min(ends, key=len)[1:]):
        if (
            len(ends) > 1
            and unit
            and all(end.endswith(unit) and end.removesuffix(unit) in _SCALES for end in ends)
        ):
            return unit
    return None
