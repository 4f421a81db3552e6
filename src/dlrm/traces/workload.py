"""A workload: a traffic model for each feature, as one JSON file that can be shared.

    {"format": "dlrm-workload", "version": 1, "dense": 13, "features": {NAME: model, ...}}

`load` also takes what others have: the original's distribution files, FBGEMM's `TBEDataConfig`, and
the name of a preset.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlrm.errors import ConfigError, InputError, unknown
from dlrm.json_file import parse_object, write_sealed
from dlrm.traces.hybrid import Hybrid
from dlrm.traces.popularity import HeavyHitters, Uniform, Zipf
from dlrm.traces.presets import PRESETS
from dlrm.traces.recency import LRUStack, TwoDIO
from dlrm.traces.traffic import Traffic

FORMAT, VERSION = "dlrm-workload", 1
MODELS: dict[str, type[Traffic]] = {
    kind.kind: kind for kind in (Hybrid, Uniform, Zipf, HeavyHitters, LRUStack, TwoDIO)
}
"""Kind of a traffic model -> its class: the hybrid, and the baselines that it is held against."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Traffic models by feature."""

    features: Mapping[str, Traffic]
    dense: int = 13
    """Dense features of a sample, whose values nothing is known of."""

    def save(self, path: Path) -> None:
        """Write the file, atomically."""
        features = {name: model.to_dict() for name, model in self.features.items()}
        write_sealed(
            path,
            {"format": FORMAT, "version": VERSION, "dense": self.dense, "features": features},
            indent=None,
        )


def load(name: Path | str) -> Workload:
    """Return a workload: of a file, or a preset by its name.

    Raises:
        InputError: The file is missing, of another format or version, or damaged.
        ConfigError: There is no such file and no such preset; lists the presets.

    """
    path = Path(name)
    if not path.exists():
        if str(name) in PRESETS:
            return Workload({"table_0": PRESETS[str(name)].traffic()})
        if path.suffix:
            raise InputError("there is no such file", file=path)
        raise unknown("file or preset of traffic", str(name), PRESETS)
    try:
        content = path.read_bytes()
        if not content.lstrip().startswith(b"{"):
            return Workload({path.name.split(".")[0]: _distribution(content.decode())})
        values = parse_object(content)
        if "indices_params" in values:
            return _of_fbgemm(values)
        if values.get("format") != FORMAT:
            raise ValueError(f'its format is {values.get("format")!r}, expected "{FORMAT}"')
        if values.get("version") != VERSION:
            raise ValueError(
                f"its version is {values.get('version')!r}, and this release reads {VERSION}: "
                "fit it again"
            )
        features = {name: _model(model) for name, model in values["features"].items()}
        return Workload(features, int(values["dense"]))
    except KeyError as error:
        raise InputError(f"no workload, or a damaged one: it has no {error}", file=path) from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"no workload, or a damaged one: {error}", file=path) from error


def to_fbgemm(model: HeavyHitters, *, batch_size: int, dim: int) -> dict[str, Any]:
    """Return a model of popularity as FBGEMM's `TBEDataConfig`, JSON-ready, of one table.

    Args:
        model: Model of the table.
        batch_size: Samples of a batch.
        dim: Numbers of a row.

    """
    lengths = np.array([0.0, 1.0]) if model.lengths is None else model.lengths
    mean = float(lengths @ np.arange(len(lengths)))
    variance = float(lengths @ (np.arange(len(lengths)) - mean) ** 2)
    return {
        "T": 1,
        "E": model.distinct,
        "D": dim,
        "mixed_dim": False,
        "weighted": False,
        "batch_params": {
            "B": batch_size,
            "sigma_B": None,
            "vbe_distribution": None,
            "vbe_num_ranks": None,
        },
        "indices_params": {
            "heavy_hitters": model.shares.tolist(),
            "zipf_q": model.q,
            "zipf_s": model.s,
            "index_dtype": "torch.int64",
            "offset_dtype": "torch.int64",
        },
        "pooling_params": {
            "L": max(1, round(mean)),
            "sigma_L": round(variance**0.5) if variance else None,
            "length_distribution": "normal" if variance else None,
        },
        "use_cpu": True,
    }


def _of_fbgemm(values: dict[str, Any]) -> Workload:
    indices, pooling = values["indices_params"], values["pooling_params"]
    model = HeavyHitters.of(
        {
            "distinct_ids": values["E"],
            "q": indices["zipf_q"],
            "s": indices["zipf_s"],
            "shares": indices["heavy_hitters"],
        }
    )
    mean, sigma = float(pooling["L"]), float(pooling.get("sigma_L") or 0.0)
    if mean < 1 or sigma < 0:
        raise ValueError(f"L is {mean:g} and sigma_L {sigma:g}, expected at least 1 and 0")
    if mean != 1 or sigma:
        places = np.arange(round(mean + 4 * sigma) + 1)
        model.lengths = np.exp(-0.5 * ((places - mean) / max(sigma, 1e-3)) ** 2)
        model.lengths /= model.lengths.sum()
    return Workload({f"table_{table}": model for table in range(int(values["T"]))})


def _model(values: dict[str, Any]) -> Traffic:
    kind = values["kind"]
    if kind not in MODELS:
        raise ConfigError(str(unknown("kind of traffic", kind, MODELS)))
    model = MODELS[kind].of(values)
    if "pooling" in values:
        model.lengths = np.array(values["pooling"], np.float64)
        if model.lengths.ndim != 1 or not model.lengths.sum() > 0 or model.lengths.min() < 0:
            raise ValueError("pooling is no row of shares")
    return model


def _distribution(text: str) -> LRUStack:
    """Return the traffic of a distribution file of the original: ids, distances, cumulated shares.

    Its distance 0 is an id never seen before, d the one that d - 1 others were accessed after.
    """
    lines = text.splitlines()
    if len(lines) < 3:
        raise ValueError(f"{len(lines)} lines, expected JSON, or 3 lines of a distribution file")
    reading: list[Callable[[str], float]] = [int, float]
    distances, cumulated = (
        [read(word) for word in line.split(",")]
        for read, line in zip(reading, lines[1:3], strict=True)
    )
    if len(distances) != len(cumulated) or sorted(set(distances)) != distances or distances[0] < 0:
        raise ValueError("line 2 holds no ascending distances, one for each share of line 3")
    shares = np.diff([0.0, *cumulated])
    if (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("line 3 holds no ascending shares")
    return LRUStack(np.array(distances, np.int64) - 1, shares / shares.sum())
