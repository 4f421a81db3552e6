"""What `--data X` means: a prepared dataset, or raw files that are prepared first."""

import glob
import hashlib
import json
from pathlib import Path
from typing import Any

from dlrm.data.criteo import CriteoSource, is_criteo
from dlrm.data.options import PrepareConfig, Prepared
from dlrm.data.prepare import prepare_with
from dlrm.data.source import Source
from dlrm.data.store import MANIFEST_FILE, Dataset
from dlrm.data.tabular import toml
from dlrm.data.tabular.prepare import prepare_table
from dlrm.data.tabular.source import FileTable, SourceTable, Table, in_folder
from dlrm.errors import ConfigError, InputError
from dlrm.terminal import err

CACHE = Path("prepared")


def resolve(
    data: str | Path, config: PrepareConfig | None = None, *, cache: Path = CACHE
) -> Dataset:
    """Open a prepared dataset, or prepare raw data and open the result.

    Args:
        data: A prepared dataset's folder; a raw log or a table: one path, several separated by
            commas, a glob pattern (its matches in natural order: day_2 before day_10), or a folder
            with files named train, valid and test; or the generated log: `clicks`, `clicks:ROWS` or
            `clicks:ROWS:SEED`.
        config: How raw data are prepared; without meaning for a prepared dataset.
        cache: Where prepared datasets go: `<cache>/<stem>-<8 hex of data and options>`.

    Raises:
        InputError: A raw file is missing or bad.
        DatasetError: The folder is not a prepared dataset.

    """
    config = config or PrepareConfig()
    folder = Path(data)
    if (folder / MANIFEST_FILE).exists():
        return Dataset.open(folder)
    if not folder.exists() and str(data).split(":", 1)[0] == "clicks":
        return open_or_prepare(_clicks(str(data)), "clicks", config, cache=cache)
    found = in_folder(folder) if folder.is_dir() else raw_files(str(data))
    first = next(iter(found.values()))[0] if isinstance(found, dict) else found[0]
    stem = folder.resolve().name if folder.is_dir() else first.name.split(".")[0]
    if isinstance(found, list) and config.label is None and is_criteo(first):
        source = CriteoSource(found, bad_rows=config.bad_rows)
        return open_or_prepare(source, stem, config, cache=cache)
    return table_or_prepare(FileTable(found), stem, config, cache=cache)


def open_or_prepare(
    source: Source, stem: str, config: PrepareConfig, *, cache: Path = CACHE
) -> Dataset:
    """Prepare a log into the cache, or find it there again; says on the terminal where it is."""
    if not config.features.unset:
        return table_or_prepare(SourceTable(source), stem, config, cache=cache)
    made_of = [source.fingerprint(), config.options()]
    return _said(prepare_with(source, _place(cache, stem, made_of), config))


def table_or_prepare(
    table: Table, stem: str, config: PrepareConfig, *, cache: Path = CACHE
) -> Dataset:
    """Prepare a table into the cache, or find it there again; says on the terminal where it is."""
    schema = toml.to_dict(toml.load(Path(config.schema))) if config.schema else None
    made_of = [table.fingerprint(), config.table_options(), schema]
    return _said(prepare_table(table, _place(cache, stem, made_of), config))


def _place(cache: Path, stem: str, made_of: list[Any]) -> Path:
    text = json.dumps(made_of, sort_keys=True)
    return cache / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _said(made: Prepared) -> Dataset:
    said = "found again" if made.reused else "prepared"
    err.print(f"Dataset {said}: {made.dataset.path}", soft_wrap=True, highlight=False, markup=False)
    return made.dataset


def _clicks(data: str) -> Source:
    """Return the generated log that `clicks[:ROWS[:SEED]]` asks for."""
    from dlrm.data.clicks import ClicksSource

    numbers = data.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f'data is "{data}", expected clicks, clicks:ROWS or clicks:ROWS:SEED')
    return ClicksSource(**dict(zip(("rows", "seed"), map(int, numbers), strict=False)))


def raw_files(data: str) -> list[Path]:
    """Return the files that a path, a list with commas, or a glob pattern names.

    Raises:
        InputError: A file does not exist, or a pattern matches none.

    """
    files: list[Path] = []
    for name in [data] if Path(data).exists() else data.split(","):
        if Path(name).exists():
            files.append(Path(name))
        elif glob.has_magic(name):
            found = sorted(glob.glob(name), key=_natural)  # noqa: PTH207 - absolute patterns too
            if not found:
                raise InputError("no file matches this pattern", file=name)
            files.extend(Path(path) for path in found)
        else:
            problem = (
                "there is no such file or folder, expected a prepared dataset, a raw log or a table"
            )
            raise InputError(problem, file=name)
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which day_2 comes before day_10."""
    digits, parts = "", []
    for letter in name + "\0":
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
