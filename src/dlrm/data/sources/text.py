"""Raw text in: a plain or compressed file, read as bytes, or as chunks of whole lines.

Content decides whether it is compressed by gzip, bzip2, zip or Zstandard, and a name must not say
otherwise. A text that is compressed by Zstandard lies unpacked in a temporary file meanwhile.

Lines end in LF or CRLF, the last one perhaps in none, and blank ones may follow it. Chunks of some
megabytes come out, each ending in a newline, all ends LF. Memory is a few chunks.
"""

import bz2
import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import polars as pl

from dlrm.errors import InputError

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
SUFFIXES = {
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".zip": "zip",
    ".zst": "Zstandard",
    ".zstd": "Zstandard",
}
"""Last part of a file's name -> what it is compressed by."""
DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, OSError)
"""What readers raise at damaged bytes; an OSError that has a number is the system's, though."""


def compression_of(file: Path) -> str | None:
    """Return what a file is compressed by, gzip, bzip2, zip or Zstandard; None for a plain one."""
    with file.open("rb") as stream:
        begin = stream.read(4)
    compression = next((name for magic, name in _MAGIC.items() if begin.startswith(magic)), None)
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
    compression = compression_of(file)
    if compression == "zip":
        with _archive(file) as (archive, member), archive.open(member) as stream:
            yield cast(BufferedIOBase, stream)
    elif compression == "Zstandard":
        with TemporaryDirectory(prefix="dlrm-") as folder:
            _unpack_zstandard(file, plain := Path(folder) / "text", lines)
            with plain.open("rb") as stream:
                yield stream
    else:
        opened = {None: open, "gzip": gzip.open, "bzip2": bz2.open}[compression]
        with opened(file, "rb") as stream:
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


@contextmanager
def _archive(file: Path) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """Open a zip file, and find the only file in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
            if any(entry.filename == "[Content_Types].xml" for entry in members):
                problem = "is an Excel file, expected a text: save it as CSV (UTF-8)"
                raise InputError(problem, file=file)
            # What a Mac adds is no data.
            members = [entry for entry in members if not entry.filename.startswith("__MACOSX/")]
            if len(members) != 1:
                problem = f"holds {len(members)} files, expected one: unzip it, and name the files"
                raise InputError(f"{problem} in it", file=file)
            yield archive, members[0]
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"cannot be unzipped: {error}", file=file) from error


def scan_lines(file: Path, **settings: Any) -> pl.LazyFrame:
    """Return the lines of a text as a column `line`, null where blank; `settings` of `scan_csv`."""
    # A separator that no text has, and no quotes.
    plain = {"glob": False, "has_header": False, "separator": "\0", "quote_char": None}
    return pl.scan_csv(file, **plain, schema={"line": pl.String}, **settings)


def _unpack_zstandard(file: Path, plain: Path, lines: int | None) -> None:
    """Write the lines of a text that is compressed by Zstandard, which only Polars reads."""
    try:
        scan_lines(file, n_rows=lines).sink_csv(plain, include_header=False, quote_style="never")
    except pl.exceptions.PolarsError as error:
        if "utf" in str(error).lower():
            numbered = scan_lines(file, n_rows=lines, encoding="utf8-lossy")
            numbered = numbered.with_row_index("line number", offset=1)
            odd = numbered.filter(pl.col("line").str.contains("\ufffd", literal=True)).head(1)
            problem = "is not UTF-8 text; if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"
            raise InputError(problem, file=file, line=odd.collect()["line number"][0]) from error
        problem = "the Zstandard file is damaged or truncated; copy or download it again"
        raise InputError(problem, file=file) from error


LONGEST_LINE_BYTES = 1 << 20
LOOKED_AT_LINES = 4096
"""Lines that are enough to tell what a text is."""
_READ_BYTES = 1 << 20
_WHOLE_BYTES = 16 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def check_file(file: Path) -> None:
    """Raise an InputError unless `file` can be opened for reading and has something in it."""
    if file.is_dir():
        raise InputError("is a folder, expected a file: name the files in it, in order", file=file)
    if file.exists() and not file.is_file():
        # A log is looked at before it is read, which a pipe does not allow.
        raise InputError("is a pipe or a device, expected a file: write the text to one", file=file)
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError("the file is empty, expected one sample a line", file=file)
    except FileNotFoundError:
        raise InputError("there is no such file", file=file) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error


def first_line(file: Path) -> bytes:
    """Return the first line of a file, without its end."""
    check_file(file)
    with explained(file, lambda: 1), open_bytes(file, lines=1) as stream:
        return stream.readline(LONGEST_LINE_BYTES).rstrip(b"\r\n")


def chunks(file: Path, chunk_bytes: int) -> Generator[bytes, None, None]:
    """Yield a file as chunks of whole lines of about `chunk_bytes`, each ending in a newline.

    Blank lines at the end of the file are left out; blank lines before its end are kept.

    Raises:
        InputError: The file is missing, empty, truncated or damaged; names the line reached.

    """
    check_file(file)
    pieces: list[bytes] = []
    held, line, any_line = 0, 1, False

    def reached() -> int:
        return line + b"".join(pieces).count(b"\n")

    with explained(file, reached), open_bytes(file) as stream:
        while piece := stream.read1(chunk_bytes):
            pieces.append(piece)
            held += len(piece)
            if held < chunk_bytes:
                continue
            buffer = b"".join(pieces)
            cut = buffer.rfind(b"\n") + 1
            if cut == 0 and held > LONGEST_LINE_BYTES:
                problem = f"is longer than {LONGEST_LINE_BYTES} bytes; this is not a text log"
                raise InputError(problem, file=file, line=line)
            body, rest = _lines(buffer[:cut]), buffer[cut:]
            if body.endswith(b"\n\n") or body == b"\n":
                # Blank lines may be the last ones: hold them back until more is known.
                text = body.rstrip(b"\n")
                whole = len(text) + 1 if text else 0
                body, rest = body[:whole], body[whole:] + rest
            if body:
                line += body.count(b"\n")
                any_line = True
                yield body
            pieces, held = [rest], len(rest)
    chunk = _lines(b"".join(pieces)).rstrip(b"\r\n")
    if chunk:
        yield chunk + b"\n"
    elif not any_line:
        raise InputError("the file is empty, expected one sample a line", file=file)


def _lines(text: bytes) -> bytes:
    """Return a text whose lines end in LF."""
    # One byte is found several times faster than two.
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def estimate_lines(file: Path) -> int:
    """Return about how many lines a file holds, from its first megabyte."""
    try:
        with explained(file), open_bytes(file, lines=LOOKED_AT_LINES) as stream:
            piece = stream.read(_READ_BYTES)
    except InputError:
        # Whoever reads it says what is wrong with it.
        return 1
    text_bytes = file.stat().st_size
    if compression_of(file):
        # It shrinks about as much as its beginning does.
        sample = piece[:_SAMPLE_BYTES]
        text_bytes *= len(sample) / max(len(zlib.compress(sample)), 1)
    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    return max(1, round(lines * text_bytes / max(len(piece), 1)))


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return size and hash of a file: the whole of it, or 64 places evenly over it."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            digest.update(stream.read())
        else:
            for sample in range(_SAMPLES):
                stream.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return {"size_bytes": size, "sha256": digest.hexdigest()}
