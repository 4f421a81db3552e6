"""Tables as programs print them, and ARFF: as CSV with the same number of lines.

    psql, MySQL, Markdown     a | b  or  | a | b |, with a rule such as ---+--- below the names
    ARFF                      @attribute lines name the columns, and @data begins the rows

A line that is no record becomes a blank one, so that errors name the line of the file.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from dlrm.errors import InputError

Kind = Literal["printed", "arff"]
_RULE = re.compile(r"\s*[|+]?\s*:?-{2,}:?\s*([|+]\s*:?-{2,}:?\s*)*[|+]?\s*$")
_FOOTER = re.compile(r"\s*\(?\d+ (rows?|rows? in set.*)\)?\s*$")
_BAR = re.compile(r"(?<!\\)\|")
_ATTRIBUTE = re.compile(r"""\s*@attribute\s+('(?:[^'\\]|\\.)*'|"[^"]*"|\S+)\s""", re.IGNORECASE)
_RECORD = re.compile(r"-\[ RECORD \d+ \]")
_LOOKED_AT = 8
"""Lines among which a rule is."""


def printed_kind(head: str, file: Path) -> Kind | None:
    """Return what a text is, if it is such a table."""
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and _RECORD.match(lines[0]):
        problem = (
            "is what psql prints with \\x on, a line for each field: export it with "
            "\\copy (SELECT ...) TO 'FILE.csv' CSV HEADER"
        )
        raise InputError(problem, file=file, line=1)
    begin = next((line for line in lines if not line.lstrip().startswith("%")), "")
    if re.match(r"\s*@relation\b", begin, re.IGNORECASE):
        return "arff"
    ruled = any("|" in rule or "+" in rule for rule in filter(_RULE.match, lines[:_LOOKED_AT]))
    return "printed" if ruled and sum("|" in line for line in lines[:_LOOKED_AT]) > 1 else None


def as_csv(kind: Kind, lines: Iterable[str], file: Path) -> Iterator[str]:
    """Yield a line of CSV for each line of such a table."""
    return _of_arff(lines, file) if kind == "arff" else map(_of_bars, lines)


def _of_bars(line: str) -> str:
    text = line.strip()
    if not text or _RULE.match(line) or _FOOTER.match(line):
        return "\n"
    if text.startswith("|") and text.endswith("|") and len(text) > 1:
        text = text[1:-1]
    return _csv(cell.strip().replace("\\|", "|") for cell in _BAR.split(text))


def _of_arff(lines: Iterable[str], file: Path) -> Iterator[str]:
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


def _csv(fields: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()
