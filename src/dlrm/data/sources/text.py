"""Raw text in: a plain or compressed file, read as chunks of whole lines.

Goes in: one file, with LF or CRLF ends, with or without a newline (or blank lines) at its end.
Comes out: chunks of some megabytes, each ending in a newline, all ends LF. Memory is a few chunks.
"""

import zlib
from collections.abc import Generator
from pathlib import Path

from dlrm.data.sources.compressed import compression_of, explained, open_bytes, text_bytes_of
from dlrm.errors import InputError

LONGEST_LINE_BYTES = 1 << 20
LOOKED_AT_LINES = 4096
"""Lines that are enough to tell what a text is."""
_READ_BYTES = 1 << 20


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
                kept = len(text) + 1 if text else 0
                body, rest = body[:kept], body[kept:] + rest
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
    compression, size = compression_of(file), file.stat().st_size
    try:
        with explained(file), open_bytes(file, lines=LOOKED_AT_LINES) as stream:
            piece = stream.read(_READ_BYTES)
    except InputError:
        # Whoever reads it says what is wrong with it.
        return 1
    if compression == "gzip":
        # As much of it makes this megabyte as the same compression leaves of it.
        text_bytes = len(piece) * size / max(len(zlib.compress(piece)), 1)
    else:
        text_bytes = size if compression is None else text_bytes_of(file)
    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    return max(1, round(lines * text_bytes / max(len(piece), 1)))
