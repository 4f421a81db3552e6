"""Files of traces: read with distrust, and written.

.npy            (L,) ids of one feature, or (n, T) of T features with one id a sample
.npz            of each feature `NAME.ids` (L,), and where samples have several `NAME.lengths`
.txt .log ...   a line for each sample, its ids separated by commas or spaces; a single line is
                a stream of ids, as in the original's trace files
.pt .pt.gz      facebookresearch/dlrm_datasets: indices (L,), offsets (T*B + 1,), lengths (T, B)
"""

import gzip
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import InputError
from dlrm.files import replacing
from dlrm.traces.torch_file import PICKLE, read_tensors
from dlrm.traces.trace import Trace


def read(path: Path) -> list[Trace]:
    """Return the traces that a file holds, one of each feature.

    Raises:
        InputError: It is missing, of another format, damaged, or says something it must not.

    """
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".npy"):
            return _read_npy(path)
        if name.endswith(".npz"):
            return _read_npz(path)
        if name.endswith((".pt", ".pth")):
            return _read_tensors(path)
        return _read_text(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        problem = f"no trace, or a damaged one ({error})"
        if "pickle" in str(error).lower():
            problem = f"no array of integers; if it is a pickle: {PICKLE}"
        raise InputError(problem, file=path) from error


def write(path: Path, traces: Sequence[Trace]) -> None:
    """Write traces: `.npy` (each sample one id), `.npz`, or text (one feature).

    Raises:
        InputError: The format cannot hold these traces; says which can.

    """
    bags = any(trace.lengths is not None for trace in traces)
    sizes = {trace.samples for trace in traces}
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".npy":
            if bags or len(sizes) > 1:
                problem = "samples have several ids, or features differ in length: write .npz"
                raise InputError(problem, file=path)
            columns = np.stack([trace.ids for trace in traces], axis=1)
            np.save(file, columns[:, 0] if len(traces) == 1 else columns, allow_pickle=False)
        elif path.suffix == ".npz":
            arrays: dict[str, NDArray[np.int64]] = {}
            for trace in traces:
                arrays[f"{trace.name}.ids"] = trace.ids
                if trace.lengths is not None:
                    arrays[f"{trace.name}.lengths"] = trace.lengths
            np.savez_compressed(file, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
        else:
            if len(traces) > 1:
                raise InputError("text holds one feature: write .npz", file=path)
            (trace,) = traces
            words = trace.ids.astype(str)
            if trace.lengths is None:
                file.write(("\n".join(words) + "\n").encode())
            else:
                for bag in np.split(words, np.cumsum(trace.lengths)[:-1]):
                    file.write((" ".join(bag) + "\n").encode())


def _read_npy(path: Path) -> list[Trace]:
    array = np.lib.format.open_memmap(path, mode="r")
    if array.ndim == 2:
        return [Trace.of(f"table_{t}", array[:, t], file=path) for t in range(array.shape[1])]
    return [Trace.of(_stem(path), array, file=path)]


def _read_npz(path: Path) -> list[Trace]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        names = [name.removesuffix(".ids") for name in arrays.files if name.endswith(".ids")]
        if not names:
            raise InputError("it has no array NAME.ids", file=path)
        lengths = {name: f"{name}.lengths" for name in names if f"{name}.lengths" in arrays.files}
        return [
            Trace.of(
                name,
                arrays[f"{name}.ids"],
                arrays[lengths[name]] if name in lengths else None,
                file=path,
            )
            for name in names
        ]


def _read_text(path: Path) -> list[Trace]:
    ids: list[int] = []
    lengths: list[int] = []
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line, text in enumerate(file, 1):
            words = re.split(rb"[,\s]+", text.strip(b", \t\r\n"))
            values = []
            for word in words if words != [b""] else []:
                if not word.isdigit():
                    what = (
                        "a pickle"
                        if text.startswith(b"\x80")
                        else ascii(word.decode("latin-1")[:40])
                    )
                    problem = f"found {what}, expected ids: integers from 0"
                    raise InputError(problem, file=path, line=line)
                values.append(int(word))
            ids += values
            lengths.append(len(values))
    if sum(length > 0 for length in lengths) == 1:
        lengths = [1] * len(ids)
    return [Trace.of(_stem(path), np.array(ids, np.int64), np.array(lengths, np.int64), file=path)]


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _read_tensors(path: Path) -> list[Trace]:
    """Return the features of a file of facebookresearch/dlrm_datasets."""
    packed = path.read_bytes()
    tensors = read_tensors(gzip.decompress(packed) if path.suffix == ".gz" else packed, path)
    if len(tensors) < 2:
        problem = f"{len(tensors)} tensors of integers, expected indices, offsets and lengths"
        raise InputError(problem, file=path)
    indices, offsets = tensors[0].reshape(-1), tensors[1].reshape(-1).astype(np.int64)
    tables = tensors[2].shape[0] if len(tensors) > 2 and tensors[2].ndim == 2 else 1
    if (np.diff(offsets) < 0).any() or not len(offsets) or offsets[0] != 0:
        row = int(np.argmax(np.diff(offsets) < 0)) + 2
        raise InputError("offsets must begin with 0 and not decrease", file=path, row=row)
    if offsets[-1] > len(indices):
        problem = f"offsets end at {offsets[-1]:,}, past the {len(indices):,} indices"
        raise InputError(problem, file=path)
    if (len(offsets) - 1) % tables:
        raise InputError(f"{len(offsets) - 1} bags are not {tables} tables", file=path)
    batch = (len(offsets) - 1) // tables
    traces = []
    for table in range(tables):
        bounds = offsets[table * batch : (table + 1) * batch + 1]
        # Some published tables were never looked up.
        if bounds[-1] > bounds[0]:
            ids = indices[bounds[0] : bounds[-1]]
            traces.append(Trace.of(f"table_{table}", ids, np.diff(bounds), file=path))
    return traces
