"""What `--data X` means: a prepared dataset, or raw files that are prepared first."""

import glob
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlrm.data import sources
from dlrm.data.features import toml
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import options_of, prepare
from dlrm.data.scoring import TABLES, table_files
from dlrm.data.sources.criteo import CriteoSource, is_criteo
from dlrm.data.sources.frame import FrameSource, is_frame
from dlrm.data.sources.source import Source
from dlrm.data.sources.table_files import TableFiles, in_folder
from dlrm.data.store import MANIFEST_FILE, VERSION, Dataset
from dlrm.errors import InputError, UsageError
from dlrm.terminal import say

CACHE = Path("prepared")


def resolve(
    data: Any,
    config: PrepareConfig | None = None,
    *,
    known: Known | None = None,
    cache: Path = CACHE,
) -> Dataset:
    """Open a prepared dataset, or prepare raw data and open the result.

    Args:
        data: A frame of pandas or Polars; a prepared dataset's folder; a raw log or a table: one
            path, several separated by commas, a glob pattern (its matches in natural order: day_2
            before day_10), or a folder with files named train, valid and test; or a generated
            log: `clicks`, `clicks:ROWS` or `clicks:ROWS:SEED`.
        config: How raw data are prepared; without meaning for a prepared dataset.
        known: Features of a run that encode raw data; None to fit some to them.
        cache: Where prepared datasets go: `<cache>/<stem>-<8 hex of data and options>`.

    Raises:
        InputError: A raw file is missing or bad.
        DatasetError: The folder is not a prepared dataset.

    """
    config = config or PrepareConfig()
    if is_frame(data):
        source, stem = FrameSource(data), "frame"
    elif (Path(data) / MANIFEST_FILE).exists():
        return Dataset.open(Path(data))
    else:
        source, stem = find_source(str(data), config, None if known is None else known.features)
    # What another release prepared, it may have read otherwise.
    made_of = [VERSION, source.fingerprint(), options_of(source, config, known)]
    text = json.dumps(made_of, sort_keys=True)
    out = cache / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    prepared = prepare(source, out, config, known=known)
    how = "found again" if prepared.reused else "prepared"
    path = prepared.dataset.path
    notes = prepared.dataset.manifest.get("division", ()) if prepared.reused else ()
    say((f"Dataset {how}: {path}", *notes))
    return prepared.dataset


def find_source(
    data: str, config: PrepareConfig, features: Features | None = None
) -> tuple[Source, str]:
    """Return the source that raw data have, and a name for what becomes of them.

    Files that look like raw Criteo text are that, unless a label is named: then they are a table.
    """
    folder = Path(data)
    if not folder.exists() and (log := sources.generated(data)) is not None:
        return log, log.name
    if folder.is_dir():
        return table_of(in_folder(folder), config), folder.resolve().name
    files = raw_files(data)
    stem = files[0].name.split(".")[0]
    if features is not None and features.source in TABLES:
        return table_files(features, files, config.bad_rows, config.reading), stem
    if not config.label and is_criteo(files[0]):
        return CriteoSource(files, bad_rows=config.bad_rows), stem
    return table_of(files, config), stem


def table_of(files: list[Path] | dict[str, list[Path]], config: PrepareConfig) -> TableFiles:
    """Return the table of some files, by split where that is known."""
    columns = toml.load(Path(config.schema)).labels if config.schema else config.label
    return TableFiles(files, reading=config.reading, columns=columns, bad_rows=config.bad_rows)


def raw_files(data: str) -> list[Path]:
    """Return the files that a path, a list with commas, or a glob pattern names.

    A file or a folder of exactly that name is never taken for a pattern, nor is the folder of one.

    Raises:
        InputError: A file does not exist, or a pattern matches none.

    """
    files: list[Path] = []
    for name in [data] if Path(data).exists() else data.split(","):
        if Path(name).exists():
            files.append(Path(name))
        elif glob.has_magic(name):
            matches = sorted(glob.glob(_pattern(name)), key=_natural)  # noqa: PTH207 - absolute, too
            if not matches:
                raise InputError("no file matches this pattern", file=name)
            files.extend(Path(path) for path in matches)
        else:
            problem = "there is no such file or folder, expected a prepared dataset, a raw log"
            raise InputError(f"{problem} or a table", file=name)
    return files


def example_file(data: str) -> Path | None:
    """Return one of the raw files that `--data` named, the last; None where there is none now."""
    folder = Path(data)
    try:
        if (folder / MANIFEST_FILE).exists():
            return None
        files = [f for part in in_folder(folder).values() for f in part] if folder.is_dir() else []
        return (files or raw_files(data))[-1]
    except InputError:
        return None


def named_files(names: Sequence[Path | str]) -> list[Path]:
    """Return the files that the words of a command line name, each as `raw_files` takes it.

    Raises:
        UsageError: There are no words.
        InputError: A file does not exist, or a pattern matches none.

    """
    if not names:
        raise UsageError("no file is named; expected one or more")
    return [file for name in names for file in raw_files(str(name))]


def _pattern(name: str) -> str:
    """Return a pattern in which folders that are there are meant as they are."""
    path = Path(name)
    folder = next(parent for parent in path.parents if parent.exists())
    return str(Path(glob.escape(str(folder)), *path.parts[len(folder.parts) :]))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which day_2 comes before day_10."""
    parts = re.findall(r"\d+|\D", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
