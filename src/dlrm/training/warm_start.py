"""A run that goes on from another one: its model and optimizer, over tables that may have grown.

    rows of a table      before                  after
    known values         0 .. n-1                0 .. n-1, as they are
    new values           -                       n .. m-1, from the row of all others
    all other values     n                       m, as it is

What the optimizer keeps of new rows is fresh.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.errors import ConfigError, RunError
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.tables import tables_of
from dlrm.parallel.world import ALONE
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training import checkpoint
from dlrm.training.build import build, optimizer_of
from dlrm.training.config import TrainConfig, from_dict
from dlrm.training.draws import Draws
from dlrm.training.progress import Progress

Pairs = Sequence[tuple[Any, Any]]
"""Rows of a new tensor, and those of the old one that they begin as: as many, or one for all."""
Rows = dict[str, list[tuple[slice, slice]]]
_KEPT = (
    "model",
    "optim.name",
    *(f"prepare.{name}" for name in ("label", "positive", "task", "weight", "category", "missing")),
    *(f"prepare.{name}" for name in ("only_empty_missing", "schema", "features")),
)
"""Settings that the new run has from the old one: the model, its optimizer and its features."""
WHOLE: Pairs = ((..., ...),)


def warm_start(source: Run, config: TrainConfig, schema: Schema, folder: Path) -> None:
    """Write the best checkpoint of a run of one model as that of step 0 of another one.

    It is made on this process alone, and any number of them begin with it. The new run has its own
    config, schema and folder of checkpoints; its tables may have more rows.

    Raises:
        RunError: The run has no checkpoint, or its tables cannot become these.
        ConfigError: The new run has another model or optimizer.

    """
    before = from_dict(source.config)
    if [f.name for f in source.schema.features] != [f.name for f in schema.features]:
        raise RunError(f"{source.path}: {source.schema.difference(schema)}")
    for name in _KEPT:
        then, now = _setting(before, name), _setting(config, name)
        for setting, old_value, value in _differences(name, then, now):
            problem = f"{setting} {_shown(old_value)}, not {_shown(value)}"
            raise ConfigError(f"{source.path} has {problem}: a run goes on as it is")
    step = checkpoint.best_step(source)
    (old, old_optimizer), (new, optimizer) = _alone(before, source.schema), _alone(config, schema)
    checkpoint.load(checkpoint.folder(source), step, old, old_optimizer)
    try:
        rows = _rows(old, new, source.schema, schema)
    except _CannotGrowError as problem:
        raise RunError(
            f"{source.path}: {problem}, but tables with --model.tables.compression "
            f"{tables_of(config.model).compression} cannot grow. Train the first run with plain "
            "tables (--model.tables.storage bf16 halves them), or with hash_rows for the column"
        ) from None
    _copy(old, old_optimizer, new, optimizer, rows)
    checkpoint.save(folder, new, optimizer, Progress(), keep=1)


class _CannotGrowError(Exception):
    """A table has new values that it cannot take up."""


def _alone(config: TrainConfig, schema: Schema) -> tuple[nn.Module, Optimizer]:
    """Return a fresh model on the CPU and its optimizer, whole on this process."""
    with Draws().lent():
        plain = replace(config, engine="dlrm")
        built = build(plain, schema, ALONE, device=torch.device("cpu"))
        return built.model, optimizer_of(plain, built)


@torch.no_grad()
def _copy(
    old: nn.Module, old_optimizer: Optimizer, new: nn.Module, optimizer: Optimizer, rows: Rows
) -> None:
    """Copy all tensors of a model, the rows of grown ones by name, and its optimizer's state."""
    stored, parameters = dict(old.named_parameters()), dict(new.named_parameters())
    before = old.state_dict()
    for name, tensor in new.state_dict().items():
        for place, source in rows.get(name, WHOLE):
            tensor[place] = before[name][source]
        if name not in parameters:
            continue
        old_state = old_optimizer.state[stored[name]]
        for key, value in optimizer.state[parameters[name]].items():
            alike = value.shape == old_state[key].shape
            for place, source in WHOLE if alike else _known(rows[name]):
                value[place] = old_state[key][source]


def _rows(old: nn.Module, new: nn.Module, before: Schema, now: Schema) -> Rows:
    """Return by the name of a weight of tables what its rows begin as.

    Raises:
        _CannotGrowError: Tables have grown that cannot.

    """
    if before.tables == now.tables:
        return {}
    modules, rows = dict(old.named_modules()), {}
    sizes, grown = (
        {table.name: table.num_embeddings for table in schema.tables} for schema in (before, now)
    )
    larger = ", ".join(name for name in grown if grown[name] > sizes[name])
    for name, module in new.named_modules():
        if not isinstance(module, EmbeddingCollection):
            continue
        former = modules.get(name)
        names = [table.name for table in module.layout.tables]
        if (
            not isinstance(former, EmbeddingCollection)
            or former.dim != module.dim
            or [table.name for table in former.layout.tables] != names
        ):
            raise _CannotGrowError(f"{larger} has new values")
        pairs = rows[f"{name}.weight" if name else "weight"] = []
        for place, table in enumerate(module.layout.tables):
            had, has = former.layout.sizes[place], table.num_embeddings
            start, first = module.starts[place], former.starts[place]
            if sizes[table.name] == grown[table.name] and had == has:
                pairs.append((slice(start, start + has), slice(first, first + had)))
                continue
            if (had, has) != (sizes[table.name], grown[table.name]):
                raise _CannotGrowError(f"{table.name} has new values")
            other = slice(first + had - 1, first + had)
            pairs += [
                (slice(start, start + had - 1), slice(first, first + had - 1)),
                (slice(start + had - 1, start + has), other),
            ]
    stored = old.state_dict()
    for name, tensor in new.state_dict().items():
        if name not in stored or (name not in rows and stored[name].shape != tensor.shape):
            raise _CannotGrowError(f"{larger} has new values")
    return rows


def _known(pairs: Pairs) -> Pairs:
    """Return the rows that were there before: of new ones an optimizer keeps nothing yet."""
    known = []
    for place, source in pairs:
        count = source.stop - source.start
        known.append((slice(place.stop - count, place.stop), source))
    return known


def _differences(name: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names and the two values of settings that differ."""
    if type(then) is type(now) and is_dataclass(then):
        for part in fields(then):
            mine, other = getattr(then, part.name), getattr(now, part.name)
            yield from _differences(f"{name}.{part.name}", mine, other)
    elif then != now:
        yield name, then, now


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(getattr(value, "name", value))


def _setting(config: TrainConfig, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    # Flags that may be given several times are added to those of the run.
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value
