"""What `--data X` means: a prepared dataset, or raw files that are prepared first."""

import glob
import hashlib
import json
from pathlib import Path

from dlrm.data.criteo import CriteoSource
from dlrm.data.prepare import PrepareConfig, prepare_with
from dlrm.data.source import Source
from dlrm.data.store import MANIFEST_FILE, Dataset
from dlrm.errors import ConfigError, DatasetError, InputError
from dlrm.terminal import err

CACHE = Path("prepared")


def resolve(
    data: str | Path, config: PrepareConfig | None = None, *, cache: Path = CACHE
) -> Dataset:
    """Open a prepared dataset, or prepare raw data and open the result.

    Args:
        data: A prepared dataset's folder; raw Criteo text: one path, several separated by commas,
            or a glob pattern (its matches in natural order: day_2 before day_10); or the generated
            log: `clicks`, `clicks:ROWS` or `clicks:ROWS:SEED`.
        config: How raw data are prepared; without meaning for a prepared dataset.
        cache: Where prepared datasets go: `<cache>/<stem>-<8 hex of log and options>`.

    Raises:
        InputError: A raw file is missing or bad.
        DatasetError: The folder is not a prepared dataset.

    """
    config = config or PrepareConfig()
    folder = Path(data)
    if folder.is_dir():
        if not (folder / MANIFEST_FILE).exists():
            problem = f"{folder} is a folder, but not a prepared dataset (no {MANIFEST_FILE})"
            expected = f'for the raw files in it write "{folder}/*"'
            raise DatasetError(f"{problem}; {expected}")
        return Dataset.open(folder)
    if not folder.exists() and str(data).split(":", 1)[0] == "clicks":
        return open_or_prepare(_clicks(str(data)), "clicks", config, cache=cache)
    files = raw_files(str(data))
    source = CriteoSource(files, bad_rows=config.bad_rows)
    return open_or_prepare(source, files[0].name.split(".")[0], config, cache=cache)


def open_or_prepare(
    source: Source, stem: str, config: PrepareConfig, *, cache: Path = CACHE
) -> Dataset:
    """Prepare a source into the cache, or find it there again; says on the terminal where it is."""
    made_of = json.dumps([source.fingerprint(), config.options()], sort_keys=True)
    out = cache / f"{stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    made = prepare_with(source, out, config)
    said = "found again" if made.reused else "prepared"
    err.print(f"Dataset {said}: {out}", soft_wrap=True, highlight=False, markup=False)
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
            problem = "there is no such file or folder, expected a prepared dataset or raw text"
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
