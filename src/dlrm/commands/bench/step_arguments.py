"""What `dlrm bench train` and `dlrm bench infer` measure, from their command line."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from dlrm import recipes, terminal
from dlrm.bench import results, step
from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import Ids, batch_sizes
from dlrm.bench.cost import what_if
from dlrm.bench.cost.what_if import WhatIf
from dlrm.bench.machine.known import known
from dlrm.bench.subject import Subject
from dlrm.commands.bench.step_result import StepResult
from dlrm.commands.flags import parse, take_value
from dlrm.data.resolve import resolve
from dlrm.errors import ConfigError, unknown
from dlrm.models import another
from dlrm.planning.facts import last_level
from dlrm.planning.machine import Machine
from dlrm.training.config import TrainConfig

DEFAULT = "criteo-kaggle"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepArguments:
    """What both commands take."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    batch: str = ""
    """Batch sizes, separated by commas; those of the model if not given."""
    ids: Ids = "uniform"
    """How random ids are distributed: uniform, or zipf, by a power law."""
    pooling: int = 0
    """Random ids of a sample in each table; as the model has it if not given."""
    rows_scale: float = 1.0
    """Share of the rows of each random table, where memory is short."""
    rounds: int = 11
    """Timed rounds."""
    what_if: str = ""
    """Also say what another machine would take: bandwidth=2x,cores=4,cache=64MB,precision=int8.
    There are cores, bandwidth, flops, latency, cache, precision and rows."""
    out: Path | None = None
    """Rows of results are appended to this file, as JSON lines."""
    html: Path | None = None
    """They are drawn as one page into this file."""


def read(words: list[str], prog: str, kind: type[StepArguments]) -> tuple[StepArguments, str]:
    """Return the arguments of a command line, and the name of what it measures.

    Raises:
        ConfigError: There is no model or recipe of that name.

    """
    first, flags = recipes.first_word(words)
    if first == "own":
        name = first
    else:
        name = first or ("demo" if "--data" in {flag.split("=")[0] for flag in flags} else DEFAULT)
    config = default(name)
    if (model := take_value(flags, "--model")) is not None:
        config = replace(config, model=another(config.model, model), ensemble_models=())
    return parse(kind, flags, prog, default=kind(config=config)), name


def default(name: str) -> TrainConfig:
    """Return the config that is measured under a name where nothing else is said.

    Raises:
        ConfigError: There is no model or recipe of that name.

    """
    if name in ARCHS:
        known_recipe = recipes.find(name)() if name in recipes.RECIPES else TrainConfig()
        return replace(known_recipe, model=ARCHS[name].model)
    if name in recipes.RECIPES or ":" in name:
        return recipes.find(name)()
    raise unknown("model", name, [*ARCHS, *recipes.RECIPES, "module:function", "DATA"])


def subject(arguments: StepArguments, name: str) -> tuple[Subject, list[int]]:
    """Return what is measured, and the batch sizes.

    Raises:
        DlrmError: A setting has no meaning, or the data cannot be prepared.

    """
    config = arguments.config
    if arguments.rounds < 2:
        raise ConfigError(f"rounds is {arguments.rounds}, expected at least 2")
    if arguments.pooling < 0:
        raise ConfigError(f"pooling is {arguments.pooling}, expected at least 1")
    if name in ARCHS:
        arch = ARCHS[name]
        pooling = arguments.pooling or arch.pooling
        measured = Subject(
            name=name,
            config=config,
            schema=replace(arch, pooling=pooling).schema,
            ids=arguments.ids,
            pooling=pooling,
            varied=arch.varied and not arguments.pooling,
        )
        return measured.scaled(arguments.rows_scale), batch_sizes(arguments.batch or arch.batches)
    if arguments.pooling:
        raise ConfigError("pooling is of random batches; these are of prepared data")
    dataset = resolve(config.data, config.prepare)
    measured = Subject(name=name, config=config, schema=dataset.schema, dataset=dataset)
    sizes = batch_sizes(arguments.batch or str(config.loader.batch_size))
    return measured.scaled(arguments.rows_scale), sizes


def measure(arguments: StepArguments, name: str, *, train: bool) -> StepResult:
    """Measure what the arguments ask for.

    Raises:
        DlrmError: A setting has no meaning, it does not fit, or the data are too few.

    """
    of, sizes = subject(arguments, name)
    for size in sizes:
        of.check(size, train=train)
    before = torch.get_num_threads()
    if arguments.config.threads:
        # Before anything is measured or predicted: both are of so many threads.
        torch.set_num_threads(arguments.config.threads)
    try:
        return _measure(arguments, of, sizes, name, train=train)
    finally:
        torch.set_num_threads(before)


def _measure(
    arguments: StepArguments, of: Subject, sizes: list[int], name: str, *, train: bool
) -> StepResult:
    machine = known()
    change = _change(arguments.what_if, machine)
    measured = []
    with terminal.progress() as bar:
        task = bar.add_task(f"building {name}", total=len(sizes) * arguments.rounds)

        def tick() -> None:
            bar.update(task, advance=1, description="timing steps")

        for each in step.measure(
            of, sizes, machine, train=train, rounds=arguments.rounds, tick=tick
        ):
            measured.append(each)
    result = StepResult(
        subject=of,
        arch=ARCHS.get(name),
        rows_scale=arguments.rows_scale,
        train=train,
        machine=machine,
        measured=measured,
        change=change,
        html=arguments.html,
    )
    if arguments.out is not None:
        results.save(result.rows(), arguments.out)
    if arguments.html is not None:
        from dlrm.reporting import bench as page

        page.write(arguments.html, [result.machine_row(), *result.rows()])
    return result


def _change(text: str, machine: Machine) -> WhatIf | None:
    if not text:
        return None
    cache = last_level(machine.facts.caches)
    return what_if.read(
        text,
        cores=machine.ceilings.threads,
        copy=machine.ceilings.copy[machine.ceilings.threads],
        cache_bytes=cache.total_bytes if cache else 0,
    )
