"""What `dlrm trace` takes for a source: files of traces, columns of a dataset, a workload."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlrm.data.resolve import resolve
from dlrm.data.sources.criteo import is_criteo
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, unknown
from dlrm.traces import formats, workload
from dlrm.traces.presets import PRESETS
from dlrm.traces.trace import Trace
from dlrm.traces.traffic import Traffic

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".txt", ".log", ".trace")
"""How the names of files of traces end, before a `.gz`."""


def open_traces(
    source: str, features: Sequence[str] = (), *, split: str = "train", accesses: int = 0
) -> list[Trace]:
    """Return the traces of a source.

    Args:
        source: A file of traces (`dlrm.traces.formats`); a workload or a preset, which is
            generated; or a prepared dataset or raw data, as `--data` takes them.
        features: Names of the features; empty for all that have ids.
        split: Split of a dataset.
        accesses: Accesses of a workload; 0 for as many as its source had, where it says so, or a
            million.

    Raises:
        InputError: The source is missing, damaged, or holds no trace.
        ConfigError: There is no such feature, split or preset; lists the choices.

    """
    path = Path(source)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if models := models_of(source):
        traces = [
            model.generate(accesses or getattr(model, "accesses", 1_000_000), number, name)
            for number, (name, model) in enumerate(models.items())
        ]
    elif path.is_file() and suffix in SUFFIXES and not (suffix == ".txt" and is_criteo(path)):
        traces = formats.read(path)
    else:
        traces = traces_of(resolve(source), split)
    names = [trace.name for trace in traces]
    for name in features:
        if name not in names:
            raise unknown("feature", name, names)
    return [trace for trace in traces if not features or trace.name in features]


def models_of(source: str) -> Mapping[str, Traffic]:
    """Return the models by feature of a workload or a preset; none of any other source."""
    path = Path(source)
    if source in PRESETS or (path.is_file() and path.suffix == ".json"):
        return workload.load(source).features
    return {}


def traces_of(dataset: Dataset, split: str = "train") -> list[Trace]:
    """Return the ids that each feature of a dataset looks up, in the order of the rows.

    Raises:
        ConfigError: There is no such split, or it has no rows, or there are no features with ids.

    """
    samples, schema = dataset.split(split), dataset.schema
    traces = [
        Trace.of(feature.name, np.asarray(samples.ids[:, number]), file=dataset.path)
        for number, feature in enumerate(schema.one_hot_features)
        if len(samples)
    ]
    if samples.lists is not None:
        count = len(schema.list_features)
        offsets = np.asarray(samples.lists.offsets)
        lengths = np.diff(offsets).reshape(-1, count)
        owners = np.repeat(np.arange(lengths.size) % count, lengths.ravel())
        ids = np.asarray(samples.lists.ids)
        traces += [
            Trace.of(feature.name, ids[owners == number], lengths[:, number], file=dataset.path)
            for number, feature in enumerate(schema.list_features)
            if lengths[:, number].any()
        ]
    if not traces:
        raise ConfigError(f"{dataset.path}: the split {split} has no ids to trace")
    return traces
