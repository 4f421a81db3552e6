"""What `--data X` means: a prepared dataset, or raw files that are prepared first."""

import glob
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from dlrm.data.bad_rows import OnBadRow
from dlrm.data.criteo import CriteoSource
from dlrm.data.prepare import FRACTIONS, prepare, prepare_options
from dlrm.data.source import Source
from dlrm.data.split import Protocol
from dlrm.data.store import MANIFEST_FILE, Dataset
from dlrm.data.vocabulary import IdOrder
from dlrm.errors import DatasetError, InputError
from dlrm.terminal import err

CACHE = Path("prepared")


def resolve(
    data: str | Path,
    *,
    split: Protocol = "kaggle",
    fractions: Sequence[float] | None = None,
    seed: int = 0,
    ids: IdOrder = "appearance",
    min_count: int = 1,
    max_rows_per_table: int | None = None,
    bad_rows: OnBadRow = "error",
    cache: Path = CACHE,
) -> Dataset:
    """Open a prepared dataset, or prepare raw Criteo text and open the result.

    Args:
        data: A prepared dataset's folder, or raw files: one path, several separated by commas, or
            a glob pattern (its matches in natural order: day_2 before day_10).
        split: Protocol of the split, as for `prepare`; like the rest, for raw files only.
        fractions: Train, validation and test; None is 0.8, 0.1, 0.1.
        seed: Seed of the random split.
        ids: Order of ids.
        min_count: Rarer values share a row.
        max_rows_per_table: Values are taken modulo this.
        bad_rows: `error`, or `skip` to count them and go on.
        cache: Where prepared datasets go: `<cache>/<stem>-<8 hex of log and options>`.

    Raises:
        InputError: A raw file is missing or bad.
        DatasetError: The folder is not a prepared dataset.

    """
    folder = Path(data)
    if folder.is_dir():
        if not (folder / MANIFEST_FILE).exists():
            problem = f"{folder} is a folder, but not a prepared dataset (no {MANIFEST_FILE})"
            expected = f'for the raw files in it write "{folder}/*"'
            raise DatasetError(f"{problem}; {expected}")
        return Dataset.open(folder)
    files = raw_files(str(data))
    return open_or_prepare(
        CriteoSource(files, bad_rows=bad_rows),
        stem=files[0].name.split(".")[0],
        split=split,
        fractions=FRACTIONS if fractions is None else fractions,
        seed=seed,
        ids=ids,
        min_count=min_count,
        max_rows_per_table=max_rows_per_table,
        cache=cache,
    )


def open_or_prepare(
    source: Source,
    *,
    stem: str,
    split: Protocol = "kaggle",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    ids: IdOrder = "appearance",
    min_count: int = 1,
    max_rows_per_table: int | None = None,
    cache: Path = CACHE,
) -> Dataset:
    """Prepare a source into the cache, or find it there again; says on the terminal where it is."""
    options = prepare_options(split, fractions, seed, ids, min_count, max_rows_per_table)
    said = json.dumps([source.fingerprint(), options], sort_keys=True)
    out = cache / f"{stem}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    made = prepare(
        source,
        out,
        split=split,
        fractions=fractions,
        seed=seed,
        ids=ids,
        min_count=min_count,
        max_rows_per_table=max_rows_per_table,
    )
    said = "found again" if made.reused else "prepared"
    err.print(f"Dataset {said}: {out}", soft_wrap=True, highlight=False, markup=False)
    return made.dataset


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
