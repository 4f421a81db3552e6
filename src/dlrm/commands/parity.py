"""`dlrm parity`: whether several processes learn what one learns, loss by loss."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import tyro

from dlrm import optim, recipes, terminal
from dlrm.commands.flags import parse, take_value
from dlrm.commands.parity_result import ParityResult
from dlrm.commands.run_config import recipe_config, with_model
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted, WorldError, unknown
from dlrm.files import write_json
from dlrm.parallel import launch_env
from dlrm.parallel.config import Engine
from dlrm.parallel.launch import launch
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.torchrec.probe import probe
from dlrm.parallel.world import ALONE, World
from dlrm.planning.placement import Kind, Sharding
from dlrm.reporting.page import save
from dlrm.reporting.parity import page, processes
from dlrm.training import reordered, variant
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.device import resolve_device
from dlrm.training.parity import Losses, Parity
from dlrm.training.run_data import check_batch, open_data
from dlrm.training.variant import Outcome, Variant, outcome_of

T = TypeVar("T", bound=str)

SHARDINGS: tuple[Sharding, ...] = ("auto", *get_args(Kind))
SAMPLES = 128
"""Of a batch, at most: the fewer inputs ReLUs have, the more seldom one of them is 0 but for
rounding."""
ORDERS = (8, 24)
"""In which one process takes the samples of its batches, where losses are off: in each step that
rounding can turn, most likely one of the first turns it too. Where they do not, so many follow."""
WORK = "work.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train a recipe on one process and on several, and compare the losses step by step.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here; precision
    is fp32 and a batch has at most 128 samples unless said. `--engine dlrm,torchrec` tries both
    engines. Every combination is trained on its own, for a few steps; nothing of it is kept.

    Where a loss is off by more than the tolerance, one process also takes the samples of its
    batches in other orders, which shows what rounding does; the exit status is 1 where rounding
    does not explain it.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    procs: str = "1,2,4"
    """Numbers of processes, separated by commas; 1 is what the others are compared with."""
    steps: int = 50
    """Steps of each training."""
    sharding: str = "auto,table,row,column,replicate"
    """How tables are spread, separated by commas."""
    optim: str = "sgd,adagrad,rowwise_adagrad"
    """Optimizers, separated by commas; module:Class for one of your own."""
    tolerance: float = 1e-6
    """Largest difference of a loss that counts as equal."""
    html: Path | None = None
    """Also write a page with curves."""


def main(words: list[str], prog: str) -> ParityResult | None:
    """Parse `[RECIPE | DATA] [--FLAG VALUE ...]` and compare.

    Returns:
        None on processes that train for the one that compares.

    """
    if launch_env.by_us():
        _train_all(Path(words[0]))
        return None
    recipe, flags = recipes.first_word(words)
    name = recipe or "demo"
    engines = take_value(flags, "--engine") or "dlrm"
    config = with_model(default(name, flags), flags)
    arguments = parse(Arguments, flags, prog, default=Arguments(config=config))
    return parity(
        name,
        arguments.config,
        procs=[int(p) if p.isdecimal() else 0 for p in _words(arguments.procs)],
        steps=arguments.steps,
        shardings=_choices("sharding", arguments.sharding, SHARDINGS),
        optimizers=_optimizers(arguments.optim),
        engines=_choices("engine", engines, get_args(Engine)),
        tolerance=arguments.tolerance,
        lr=arguments.config.optim.lr if _given("--optim.lr", flags) else None,
        html=arguments.html,
    )


def _given(name: str, flags: Sequence[str]) -> bool:
    return any(flag.partition("=")[0] == name for flag in flags)


def _rate(config: TrainConfig, optimizer: str) -> float:
    """Return the recipe's learning rate for its own optimizer, and one that suits any other."""
    if optimizer == config.optim.name:
        return config.optim.lr
    return optim.RATES.get(optimizer, config.optim.lr)


def default(recipe: str, flags: Sequence[str] = ()) -> TrainConfig:
    """Return the config of a recipe as it is compared where nothing else is said."""
    config = recipe_config(recipe, list(flags))
    small = replace(config.loader, batch_size=min(SAMPLES, config.loader.batch_size))
    return replace(config, precision="fp32", loader=small)


def parity(
    recipe: str = "demo",
    config: TrainConfig | None = None,
    *,
    procs: Sequence[int] = (1, 2, 4),
    steps: int = 50,
    shardings: Sequence[Sharding] = ("auto", "table", "row", "column", "replicate"),
    optimizers: Sequence[str] = ("sgd", "adagrad", "rowwise_adagrad"),
    engines: Sequence[Engine] = ("dlrm",),
    tolerance: float = 1e-6,
    lr: float | None = None,
    html: Path | None = None,
) -> ParityResult:
    """Train a recipe on one process and on several, and compare the losses step by step.

    Args:
        recipe: Its name.
        config: Of the recipe, changed or not; None for its `default`.
        procs: Numbers of processes beside one.
        steps: Of each training.
        shardings: How tables are spread.
        optimizers: Which.
        engines: Which.
        tolerance: Largest difference of a loss that counts as equal.
        lr: Learning rate of every optimizer; None for the recipe's with its own optimizer, and one
            that suits each other.
        html: Where to write a page; None for none.

    Raises:
        ConfigError: There is nothing to compare, or nothing that could be trained.
        DlrmError: See `dlrm.errors`.

    """
    if config is None:
        config = default(recipe)
    worlds = sorted(set(procs) - {1})
    if not worlds or worlds[0] < 1 or steps < 1 or not tolerance >= 0:
        raise ConfigError(
            f"procs is {','.join(map(str, procs))}, steps {steps} and tolerance {tolerance:g}: "
            "needed are two processes or more, a step or more, and no negative tolerance"
        )
    if LaunchEnv.read() is not None:
        raise ConfigError("dlrm parity starts its processes itself: run it without torchrun")
    if "torchrec" in engines:
        probe()
    check_batch(config, worlds[-1])
    dataset = open_data(config)
    with tempfile.TemporaryDirectory(prefix="dlrm-parity-") as temporary:
        folder = Path(temporary)
        rates = {o: _rate(config, o) if lr is None else lr for o in optimizers}
        plain = {o: Variant(o, lr=rates[o]) for o in optimizers}
        alone = {o: _alone(config, way, steps, dataset, folder) for o, way in plain.items()}
        outcomes: list[Outcome] = []
        for world in ([1] if 1 in procs and "torchrec" in engines else []) + worlds:
            # The tables of another engine are other ones on one process too.
            ways = [
                Variant(optimizer, engine, sharding, world, rates[optimizer])
                for optimizer in optimizers
                for engine in (engines if world > 1 else ("torchrec",))
                for sharding in (shardings if world > 1 else ("auto",))
            ]
            outcomes += _launch(folder, config, ways, steps, dataset)
        compared = Parity(
            recipe=recipe, config=config, steps=steps, tolerance=tolerance, alone=alone,
            reordered={}, outcomes=tuple(outcomes),
        )  # fmt: skip
        seeds = iter(range(sum(ORDERS)))
        for more in ORDERS:
            off = {outcome.variant.optimizer for outcome in compared.with_verdict("different")}
            others = [
                replace(config, model=reordered.config_of(config.model, seed))
                for seed in islice(seeds, more)
            ]
            for optimizer in off:
                compared.reordered[optimizer] = (
                    *compared.reordered.get(optimizer, ()),
                    *(_alone(o, plain[optimizer], steps, dataset, folder) for o in others),
                )
    if not compared.compared:
        raise ConfigError(str(outcomes[0].refused))
    if html is not None:
        save(page(compared), html)
    return ParityResult(compared, html)


def _alone(config: TrainConfig, way: Variant, steps: int, dataset: Dataset, folder: Path) -> Losses:
    """Return the losses of one process, this one."""
    with terminal.quiet():
        outcome = outcome_of(config, way, steps, dataset, folder, ALONE)
    if outcome.refused is not None:
        raise ConfigError(outcome.refused)
    return outcome.losses


def _launch(
    folder: Path, config: TrainConfig, ways: list[Variant], steps: int, dataset: Dataset
) -> list[Outcome]:
    """Train in several ways on one number of processes, which are started once for all of them."""
    work = {
        "config": to_dict(config),
        "variants": variant.to_dict([Outcome(way) for way in ways]),
        "steps": steps,
        "dataset": str(dataset.path.resolve()),
    }
    write_json(folder / WORK, work)
    status = launch(ways[0].procs, ["parity", str(folder)])
    if status == 130:
        raise Interrupted("")
    if status:
        raise WorldError(f"the training on {ways[0].procs} processes has failed")
    return variant.from_dict(json.loads((folder / f"{ways[0].procs}.json").read_text()))


def _train_all(folder: Path) -> None:
    """Train what `_launch` asked for, as one of its processes."""
    work = json.loads((folder / WORK).read_text())
    config = from_dict(work["config"])
    backend, timeout_s = config.parallel.backend, config.parallel.timeout_s
    device = partial(resolve_device, config.device)
    with World.from_environment(backend, timeout_s, device=device) as world:
        if not world.first:
            terminal.silence()
        dataset = Dataset.open(Path(work["dataset"]))
        ways = [outcome.variant for outcome in variant.from_dict(work["variants"])]
        outcomes = []
        with terminal.progress() as bar:
            for way in bar.track(ways, description=processes(world.size)):
                with terminal.quiet():
                    outcomes.append(outcome_of(config, way, work["steps"], dataset, folder, world))
        if world.first:
            write_json(folder / f"{world.size}.json", variant.to_dict(outcomes))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _optimizers(text: str) -> list[str]:
    """Return the names of a list with commas, all of them optimizers."""
    names = list(dict.fromkeys(_words(text)))
    for name in names:
        optim.find(name)
    if not names:
        raise ConfigError(f"optim is empty; choose from: {', '.join(optim.OPTIMIZERS)}")
    return names


def _choices(kind: str, text: str, choices: tuple[T, ...]) -> list[T]:
    """Return the words of a list with commas, all of them known."""
    chosen = []
    for word in dict.fromkeys(_words(text)):
        if word not in choices:
            raise unknown(kind, word, choices)
        chosen.append(choices[choices.index(word)])
    if not chosen:
        raise ConfigError(f"{kind} is empty; choose from: {', '.join(choices)}")
    return chosen
