"""Files as the bytes of their text: plain, or compressed by gzip, bzip2, zip or Zstandard.

Content decides, and a name must not say otherwise. Whatever is read is read in pieces; a text that
is compressed by Zstandard lies unpacked in a temporary file meanwhile.
"""

import bz2
import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import polars as pl

from dlrm.errors import InputError

Compression = Literal["gzip", "bzip2", "zip", "Zstandard"]
_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
SUFFIXES: dict[str, Compression] = {
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".zip": "zip",
    ".zst": "Zstandard",
    ".zstd": "Zstandard",
}
"""Last part of a file's name -> what it is compressed by."""
DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, OSError)
"""What readers raise at damaged bytes; an OSError that has a number is the system's, though."""


def compression_of(file: Path) -> Compression | None:
    """Return what a file is compressed by; None for a plain one."""
    with file.open("rb") as stream:
        begin = stream.read(4)
    compression: Compression | None = None
    for magic, name in _MAGIC.items():
        if begin.startswith(magic):
            compression = name
    named = SUFFIXES.get(file.suffix)
    if named is not None and named != compression:
        problem = f"is named {file.suffix} but is not a {named} file; rename or compress it"
        raise InputError(problem, file=file)
    return compression


def text_name(file: Path) -> str:
    """Return the name of the text in a file: its own, without the end that says compressed."""
    return file.stem if file.suffix in SUFFIXES else file.name


@contextmanager
def open_bytes(file: Path, *, lines: int | None = None) -> Iterator[BufferedIOBase]:
    """Open the text of a file, of which perhaps no more than some lines are needed."""
    match compression_of(file):
        case None:
            with file.open("rb") as stream:
                yield stream
        case "gzip":
            with gzip.open(file) as stream:
                yield stream
        case "bzip2":
            with bz2.open(file) as stream:
                yield stream
        case "zip":
            with _archive(file) as archive, archive.open(_member(archive, file)) as stream:
                yield cast(BufferedIOBase, stream)
        case "Zstandard":
            with TemporaryDirectory(prefix="dlrm-") as folder:
                _unpack_zstandard(file, plain := Path(folder) / "text", lines)
                with plain.open("rb") as stream:
                    yield stream


def unpack(file: Path, plain: Path) -> None:
    """Write the text of a compressed file to another one.

    Raises:
        InputError: It is damaged.

    """
    if compression_of(file) == "Zstandard":
        _unpack_zstandard(file, plain, None)
        return
    lines = 1
    with explained(file, lambda: lines), open_bytes(file) as stream, plain.open("wb") as out:
        while piece := stream.read(1 << 20):
            out.write(piece)
            lines += piece.count(b"\n")


@contextmanager
def explained(file: Path, line: Callable[[], int | None] = lambda: None) -> Iterator[None]:
    """Turn what readers say of damaged bytes into an InputError."""
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problem = f"the {compression_of(file)} file is damaged or truncated here"
        problem += "; copy or download it again"
        raise InputError(problem, file=file, line=line()) from error


def text_bytes_of(file: Path) -> float:
    """Return about how many bytes the text of a compressed file has."""
    if compression_of(file) == "zip":
        with _archive(file) as archive:
            return _member(archive, file).file_size
    # Click logs shrink to a fifth or so.
    return 5 * file.stat().st_size


@contextmanager
def _archive(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"cannot be unzipped: {error}", file=file) from error


def _member(archive: zipfile.ZipFile, file: Path) -> zipfile.ZipInfo:
    """Return the one file of an archive."""
    names = [entry for entry in archive.infolist() if not entry.is_dir()]
    if any(entry.filename == "[Content_Types].xml" for entry in names):
        raise InputError("is an Excel file, expected a text: save it as CSV (UTF-8)", file=file)
    # What a Mac adds is no data.
    names = [entry for entry in names if not entry.filename.startswith("__MACOSX/")]
    if len(names) != 1:
        problem = f"holds {len(names)} files, expected one: unzip it, and name the files in it"
        raise InputError(problem, file=file)
    return names[0]


def _unpack_zstandard(file: Path, plain: Path, lines: int | None) -> None:
    """Write the lines of a text that is compressed by Zstandard, which only Polars reads."""
    try:
        _lines(file, lines).sink_csv(plain, include_header=False, quote_style="never")
    except pl.exceptions.PolarsError as error:
        if "utf" in str(error).lower():
            number = _lines(file, lines, lossy=True).with_row_index("line number", offset=1)
            odd = number.filter(pl.col("line").str.contains("\ufffd", literal=True)).head(1)
            problem = "is not UTF-8 text; if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"
            raise InputError(problem, file=file, line=odd.collect()["line number"][0]) from error
        problem = "the Zstandard file is damaged or truncated; copy or download it again"
        raise InputError(problem, file=file) from error


def _lines(file: Path, lines: int | None, *, lossy: bool = False) -> pl.LazyFrame:
    # A separator that no text has, and no quotes: each row is a line as it is.
    return pl.scan_csv(
        file,
        glob=False,
        has_header=False,
        separator="\0",
        quote_char=None,
        schema={"line": pl.String},
        encoding="utf8-lossy" if lossy else "utf8",
        n_rows=lines,
    )
