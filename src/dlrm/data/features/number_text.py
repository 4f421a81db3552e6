"""Texts as numbers, however a whole column writes them: `1,234.50`, `1.234,50 €`, `12%`, `(3)`.

A format is the number 1234.5 as the column writes it: `1,234.5`, `$1.234,5`, `1234.5%`; the empty
one is `1234.5`. The number of `12%` is 12.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from dlrm.data.features.missing import is_missing
from dlrm.errors import ConfigError

TRUTHS = "true"
"""The format of a column of `true` and `false`, whose numbers are 1 and 0."""
PYTHONS = "1234.5"
"""The format of what Python reads, beside which it reads `3-`, `(3)` and a sign of its own."""
_SAMPLE = re.compile(r"([^\d]*?)\s*1([ ',.]?)234([.,])5\s*([^\d]*)$")
_SEPARATORS = (("", "."), (",", "."), (".", ","), ("", ","), (" ", "."), (" ", ","), ("'", "."))
"""Thousands separator and decimal point, the likelier ones first."""
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|RUB|BRL|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|MXN|ZAR|KRW|SGD"
_UNIT = rf"(?:[A-Z]{{1,3}})?\p{{Sc}}|%|‰|{_CODES}|kr|zł|Kč|Rs\.?"
_PREFIX, _SUFFIX = rf"^[-+(]?\s*({_UNIT})\s*[-+]?\s*[\d.,]", rf"[\d.,)]\s*({_UNIT})\s*[)-]?$"
_SPACES = "[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]"
_PAIR = r"^\d+,(0|[1-9]\d*)$"
"""Two whole numbers, none of which has a leading zero, as fractions have."""
LEAST_SHARE = 0.95
"""Of the values of a column, this many are written in its format."""


@dataclass(frozen=True, slots=True)
class _Format:
    """How numbers are written."""

    thousands: str
    decimal: str
    prefix: str = ""
    suffix: str = ""

    @property
    def pattern(self) -> str:
        """The regular expression of a number without its unit."""
        point, mark = re.escape(self.decimal), re.escape(self.thousands)
        # Groups of two digits are India's.
        whole = rf"\d+|[1-9]\d{{0,2}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}" if mark else r"\d+"
        return rf"^[-+]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?$"

    def __str__(self) -> str:
        space = " " if len(self.suffix) > 1 or self.suffix not in ("", "%") else ""
        return f"{self.prefix}1{self.thousands}234{self.decimal}5{space}{self.suffix}"

    def read(self, texts: pl.Series) -> pl.Series:
        """Return the numbers (Float64), null where a text is none."""
        plain = self._signed(texts)
        valid = plain.str.contains(self.pattern).fill_null(value=False)
        if self.thousands:
            plain = plain.str.replace_all(self.thousands, "", literal=True)
        numbers = plain.str.replace(self.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        return numbers.set(~valid, None)

    def without_unit(self, texts: pl.Series) -> pl.Series:
        """Return texts without their unit."""
        for unit in filter(None, (self.prefix, self.suffix)):
            texts = texts.str.replace(unit, "", literal=True)
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
            f'"1,234.5", "1.234,5", "$1,234.5" or "1234,5 %"; or "{TRUTHS}" for true and false'
        )
    prefix, thousands, decimal, suffix = sample.groups()
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

    Args:
        texts: The values of a column, null where missing.

    Returns:
        Two empty texts where they are plain numbers, or none.

    """
    counts = texts.filter(~is_missing(texts)).rename("text").value_counts(name="count")
    values, weights = counts["text"], counts["count"]
    prefix, suffix = (_most(values.str.extract(unit, 1)) for unit in (_PREFIX, _SUFFIX))
    formats = [_Format(*separators, prefix, suffix) for separators in _SEPARATORS]
    shares = [_share(each, values, weights) for each in formats]
    best = max(shares)
    chosen = formats[shares.index(best)]
    if best < LEAST_SHARE or (str(chosen) == PYTHONS and _python_reads(values, weights) >= best):
        return "", ""
    if chosen.thousands == "," and shares[_SEPARATORS.index(("", ","))] == best:
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
    fits = tried.read(values).is_not_null() | is_missing(tried.without_unit(values))
    return float(weights.filter(fits).sum()) / max(1, int(weights.sum()))


def _python_reads(values: pl.Series, weights: pl.Series) -> float:
    known = values.cast(pl.Float64, strict=False).is_not_null() | is_missing(values)
    return float(weights.filter(known).sum()) / max(1, int(weights.sum()))


def _most(units: pl.Series) -> str:
    known = units.drop_nulls()
    return "" if known.is_empty() else str(known.mode().sort()[0])
