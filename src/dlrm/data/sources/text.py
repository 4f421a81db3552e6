"""Raw text in: a plain or compressed file, read as chunks of whole lines.

Goes in: one file, with LF or CRLF ends, with or without a newline (or blank lines) at its end.
Comes out: chunks of some megabytes, each ending in a newline, all ends LF. Memory is a few chunks.
"""

import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

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


def _inflate(stream: BinaryIO, piece_bytes: int) -> Iterator[bytes]:
    """Yield the content of a gzip stream of one or more members, at most `piece_bytes` at a time.

    Raises:
        EOFError: The stream ends inside a member.
        zlib.error: The stream is damaged.

    """
    inflater, ended, compressed = zlib.decompressobj(wbits=31), False, b""
    while True:
        if not compressed:
            compressed = stream.read(_READ_BYTES)
        if ended:
            # Zero padding may follow the last member, as tape and tar leave it.
            compressed = compressed.lstrip(b"\0")
            if compressed:
                inflater, ended = zlib.decompressobj(wbits=31), False
            elif not (compressed := stream.read(_READ_BYTES)):
                return
            continue
        piece = inflater.decompress(compressed, piece_bytes)
        if not compressed and not piece and not inflater.eof:
            raise EOFError
        compressed = inflater.unconsumed_tail
        if inflater.eof:
            compressed, ended = inflater.unused_data, True
        if piece:
            yield piece


def _plain(stream: BinaryIO, piece_bytes: int) -> Iterator[bytes]:
    """Yield the content of a plain stream, at most `piece_bytes` at a time."""
    while piece := stream.read(piece_bytes):
        yield piece


def first_line(file: Path) -> bytes:
    """Return the first line of a file, without its end.

    Raises:
        InputError: The file is missing, empty or damaged.

    """
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
    compression = compression_of(file)
    gzip = compression == "gzip"

    def reached() -> int:
        return line + b"".join(pieces).count(b"\n")

    with (
        explained(file, reached),
        file.open("rb") if gzip else open_bytes(file) as stream,
    ):
        source = (_inflate if gzip else _plain)(stream, chunk_bytes)
        for piece in source:
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
        with explained(file):
            if compression == "gzip":
                with file.open("rb") as stream:
                    piece = next(_inflate(stream, _READ_BYTES), b"")
                # Compressed bytes behind this megabyte of text, by trying again with less input.
                text_bytes = len(piece) * size / max(_compressed_bytes(file, len(piece)), 1)
            else:
                with open_bytes(file, lines=LOOKED_AT_LINES) as stream:
                    piece = stream.read(_READ_BYTES)
                text_bytes = size if compression is None else text_bytes_of(file)
    except InputError:
        # Whoever reads it says what is wrong with it.
        return 1
    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    return max(1, round(lines * text_bytes / max(len(piece), 1)))


def _compressed_bytes(file: Path, text_bytes: int) -> int:
    """Return how many compressed bytes at the head of a gzip file make `text_bytes` of text."""
    inflater, used, inflated = zlib.decompressobj(wbits=31), 0, 0
    with file.open("rb") as stream:
        while inflated < text_bytes and (compressed := stream.read(1 << 14)):
            inflated += len(inflater.decompress(compressed))
            used += len(compressed)
    return used
