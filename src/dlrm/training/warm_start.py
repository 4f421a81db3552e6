"""A run that goes on from another one: its model and optimizer, over tables that may have grown.

    rows of a table      before                  after
    known values         0 .. n-1                0 .. n-1, as they are
    new values           -                       n .. m-1, from the row of all others
    all other values     n                       m, as it is

What the optimizer keeps of new rows is fresh.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.errors import ConfigError, RunError
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.parallel.world import ALONE
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training import checkpoint
from dlrm.training.build import build, optimizer_of
from dlrm.training.config import TrainConfig, from_dict
from dlrm.training.device import device_of
from dlrm.training.draws import Draws

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


def warm_start(
    source: Run, config: TrainConfig, schema: Schema, model: nn.Module, optimizer: Optimizer
) -> None:
    """Put the best checkpoint of a run into a fresh model and its optimizer.

    Args:
        source: A finished run of one model.
        config: Of the new run.
        schema: Of its data.
        model: Of the same config; its tables may have more rows.
        optimizer: Of its parameters.

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
    steps = checkpoint.steps(checkpoint.folder(source))
    if not steps:
        raise RunError(f"{source.path} has no checkpoint yet")
    best = checkpoint.read_progress(checkpoint.folder(source), steps[-1])["best_step"]
    with Draws().lent():
        old = build(before, source.schema, ALONE, device=device_of(model))
    old_optimizer = optimizer_of(before, old)
    step = steps[-1] if best is None else best
    checkpoint.load(checkpoint.folder(source), step, old.model, old_optimizer)
    rows = _rows(old.model, model, source.schema, schema)
    _copy(old.model, old_optimizer, model, optimizer, rows)


@torch.no_grad()
def _copy(
    old: nn.Module, old_optimizer: Optimizer, new: nn.Module, optimizer: Optimizer, rows: Rows
) -> None:
    """Copy all tensors of a model and what its optimizer keeps of them.

    Args:
        old: The model that goes on.
        old_optimizer: Of its parameters.
        new: Gets them.
        optimizer: Gets the state.
        rows: By the name of a weight, what its rows begin as.

    """
    stored, parameters = dict(old.named_parameters()), dict(new.named_parameters())
    before = old.state_dict()
    for name, tensor in new.state_dict().items():
        for place, one in rows.get(name, WHOLE):
            tensor[place] = before[name][one]
        if name not in parameters:
            continue
        kept = old_optimizer.state[stored[name]]
        for key, value in optimizer.state[parameters[name]].items():
            alike = value.shape == kept[key].shape
            for place, one in WHOLE if alike else _known(rows[name]):
                value[place] = kept[key][one]


def _rows(old: nn.Module, new: nn.Module, before: Schema, now: Schema) -> Rows:
    """Return by the name of a weight of tables what its rows begin as.

    Raises:
        RunError: Tables have grown that cannot.

    """
    if before.tables == now.tables:
        return {}
    modules, rows = dict(old.named_modules()), {}
    sizes, grown = (
        {table.name: table.num_embeddings for table in schema.tables} for schema in (before, now)
    )
    for name, module in new.named_modules():
        if not isinstance(module, EmbeddingCollection):
            continue
        former = modules[name]
        assert isinstance(former, EmbeddingCollection)
        pairs = rows[f"{name}.weight" if name else "weight"] = []
        for place, table in enumerate(module.layout.tables):
            had, has = former.layout.sizes[place], table.num_embeddings
            if (had, has) != (sizes[table.name], grown[table.name]):
                raise RunError(
                    f"the tables of the run are compressed: {table.name} cannot take up new values"
                )
            start, first = module.starts[place], former.starts[place]
            other = slice(first + had - 1, first + had)
            pairs += [
                (slice(start, start + had - 1), slice(first, first + had - 1)),
                (slice(start + had - 1, start + has), other),
            ]
    return rows


def _known(pairs: Pairs) -> Pairs:
    """Return the rows that were there before: of new ones an optimizer keeps nothing yet."""
    known = []
    for place, one in pairs:
        count = one.stop - one.start
        known.append((slice(place.stop - count, place.stop), one))
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
