"""Texts that are no CSV, turned into CSV line by line.

    psql, MySQL, Markdown     a | b  or  | a | b |, with a rule such as ---+--- below the names
    ARFF                      @attribute lines name the columns, and @data begins the rows
    a::b  and  a   b          several characters, or runs of blanks, between fields

A line that is no record becomes a blank one, so that errors name the line of the file.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from dlrm.data.sources.records import words
from dlrm.errors import InputError

AsCsv = Callable[[Iterable[str]], Iterable[str]]
"""Turns the lines of a text into as many lines of CSV."""
_RULE = re.compile(r"\s*[|+]?\s*:?-{2,}:?\s*([|+]\s*:?-{2,}:?\s*)*[|+]?\s*$")
_FOOTER = re.compile(r"\s*\(?\d+ (rows?|rows? in set.*)\)?\s*$")
_BAR = re.compile(r"(?<!\\)\|")
_BAR_OUTSIDE_QUOTES = re.compile(r'(?<!\\)\|(?=(?:[^"]*"[^"]*")*[^"]*$)')
_ATTRIBUTE = re.compile(r"""\s*@attribute\s+('(?:[^'\\]|\\.)*'|"[^"]*"|\S+)\s""", re.IGNORECASE)
_RECORD = re.compile(r"-\[ RECORD \d+ \]")
_LOOKED_AT = 8
"""Lines among which a rule is."""


class _Echo:
    def write(self, line: str) -> str:
        return line


_csv = csv.writer(_Echo(), lineterminator="\n").writerow


def printed(head: str, file: Path) -> tuple[str, AsCsv] | None:
    """Return what a text is, in words, and what makes CSV of it; None where it is no such table."""
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and _RECORD.match(lines[0]):
        problem = (
            "is what psql prints with \\x on, a line for each field: export it with "
            "\\copy (SELECT ...) TO 'FILE.csv' CSV HEADER"
        )
        raise InputError(problem, file=file, line=1)
    begin = next((line for line in lines if not line.lstrip().startswith("%")), "")
    if re.match(r"\s*@relation\b", begin, re.IGNORECASE):
        return "ARFF", partial(_of_arff, file)
    ruled = any("|" in rule or "+" in rule for rule in filter(_RULE.match, lines[:_LOOKED_AT]))
    if ruled and sum("|" in line for line in lines[:_LOOKED_AT]) > 1:
        return "a table with bars and rules, as psql prints it", partial(map, _of_bars)
    return None


def of_words(separator: str, comment: str | None) -> AsCsv:
    """Return what makes CSV of lines whose fields are separated by several characters or blanks."""

    def line_of(line: str) -> str:
        return "\n" if comment and line.startswith(comment) else _csv(words(line, separator))

    return partial(map, line_of)


def _of_bars(line: str) -> str:
    text = line.strip()
    if not text or _RULE.match(line) or _FOOTER.match(line):
        return "\n"
    if text.startswith("|") and text.endswith("|") and len(text) > 1:
        text = text[1:-1]
    bar = _BAR if text.count('"') % 2 else _BAR_OUTSIDE_QUOTES
    return _csv(_of_cell(cell.strip()) for cell in bar.split(text))


def _of_cell(cell: str) -> str:
    if len(cell) > 1 and cell.startswith('"') and cell.endswith('"'):
        return cell[1:-1].replace('""', '"')
    return cell.replace("\\|", "|")


def _of_arff(file: Path, lines: Iterable[str]) -> Iterator[str]:
    names: list[str] = []
    in_data = False
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if attribute := _ATTRIBUTE.match(line):
            names.append(attribute[1].strip("'\"").replace("\\", ""))
        if text.lower() == "@data":
            in_data = True
            yield _csv(names)
        elif not in_data or not text or text.startswith("%"):
            yield "\n"
        elif text.startswith("{"):
            problem = "is a sparse row of ARFF, which is not read: write it dense, or as libsvm"
            raise InputError(problem, file=file, line=number)
        else:
            fields = next(csv.reader([text], quotechar="'", escapechar="\\", skipinitialspace=True))
            yield _csv("" if field.strip() == "?" else field.strip() for field in fields)
    if not in_data:
        problem = "is ARFF, but has no line @data: expected one between the attributes and the rows"
        raise InputError(problem, file=file)
