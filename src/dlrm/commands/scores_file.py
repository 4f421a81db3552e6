"""A file of scores that is written block by block, and is whole or not there."""

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Self

import polars as pl

from dlrm.errors import ConfigError
from dlrm.files import sync_file, sync_folder

STANDARD_OUTPUT = Path("-")
_FORMATS = (".parquet", ".csv")


class ScoresFile:
    """A file that frames with the same columns are written to, in their order.

    Args:
        out: A file, .parquet or .csv; or `STANDARD_OUTPUT`, which gets CSV.

    Raises:
        ConfigError: It is of another format, or its folder is not there.

    """

    def __init__(self, out: Path):
        self._out, self._opened, self._written = out, ExitStack(), 0
        if out == STANDARD_OUTPUT:
            return
        if out.suffix not in _FORMATS:
            raise ConfigError(f"{out}: scores are written as {' or '.join(_FORMATS)}")
        if not out.parent.is_dir():
            raise ConfigError(f"{out}: there is no folder {out.parent}")

    def __enter__(self) -> Self:
        if self._out == STANDARD_OUTPUT:
            self._stream: IO[bytes] = sys.stdout.buffer
        else:
            # Beside the file, so that it can be renamed; a name that nobody can guess.
            folder = TemporaryDirectory(prefix=f".{self._out.name}.", dir=self._out.parent)
            self._folder = Path(self._opened.enter_context(folder))
            if self._out.suffix == ".csv":
                self._stream = self._opened.enter_context((self._folder / "scores").open("wb"))
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Write some rows.

        Raises:
            ConfigError: The format holds no column of that type.

        """
        if self._out.suffix == ".parquet":
            frame.write_parquet(self._folder / f"{self._written:06}")
        else:
            if nested := [name for name, dtype in frame.schema.items() if dtype.is_nested()]:
                problem = f"column {nested[0]} holds {frame.schema[nested[0]]}, and CSV no lists"
                raise ConfigError(f"{self._out}: {problem}: write the scores as .parquet")
            frame.write_csv(self._stream, include_header=not self._written)
        self._written += 1

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with self._opened:
            if self._out == STANDARD_OUTPUT:
                self._stream.flush()
                return
            if failure is not None:
                return
            whole = self._folder / "scores"
            if self._out.suffix == ".parquet":
                parts = sorted(self._folder.iterdir())
                pl.scan_parquet(parts, glob=False).sink_parquet(whole)
            else:
                self._stream.close()
            sync_file(whole)
            whole.replace(self._out)
            sync_folder(self._out.parent)
