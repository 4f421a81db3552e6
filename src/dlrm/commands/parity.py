"""`dlrm parity`: whether several processes learn what one learns, loss by loss."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log10
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import tyro
from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import optim, recipes, terminal
from dlrm.commands.curve import Curve, draw
from dlrm.commands.flags import Counts, Names, parse_with_config, take_value
from dlrm.commands.run_config import recipe_config, with_model
from dlrm.errors import ConfigError, unknown
from dlrm.parallel import launch_env
from dlrm.parallel.config import Engine
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.torchrec.probe import probe
from dlrm.planning.placement import Kind, Sharding
from dlrm.reporting.page import save
from dlrm.reporting.parity import FLOOR, ROUNDING, among, conclusion, page
from dlrm.training.config import TrainConfig
from dlrm.training.parity import Parity, Verdict, compare
from dlrm.training.run_data import check_batch, open_data
from dlrm.training.variant import Outcome, train_all

T = TypeVar("T", bound=str)

SHARDINGS: tuple[Sharding, ...] = ("auto", *get_args(Kind))
SAMPLES = 128
"""Samples of a batch, at most: the fewer inputs ReLUs have, the more seldom one is 0 but for
rounding."""
VERDICTS: dict[Verdict, str] = {
    "equal": "green", "rounding": "yellow", "different": "bold red", "refused": "yellow",
    "diverged": "yellow",
}  # fmt: skip
"""How each is coloured."""
STYLES = ("cyan", "yellow", "magenta", "green")


@dataclass(frozen=True, slots=True)
class ParityResult:
    """How the losses of several processes differ from those of one."""

    parity: Parity
    page: Path | None

    @property
    def status(self) -> int:
        """Exit status of the command: 1 where losses are off by more than rounding explains."""
        return 0 if self.parity.holds else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        parity = self.parity
        return {
            "recipe": parity.recipe,
            "data": parity.config.data,
            "model": parity.config.model.name,
            "precision": parity.config.precision,
            "batch_size": parity.config.loader.batch_size,
            "steps": parity.steps,
            "tolerance": parity.tolerance,
            "max_abs_diff": parity.max_abs_diff,
            "holds": parity.holds,
            "reordered_max_abs_diff": parity.reordered_max_abs_diff,
            "rows": [self._row(outcome) for outcome in parity.outcomes],
            "losses": {name: list(losses) for name, losses in parity.alone.items()},
            "page": str(self.page) if self.page else None,
        }

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        parity, row = self.parity, asdict(outcome.variant)
        if outcome.refused is not None:
            return row | {"verdict": "refused", "refused": outcome.refused}
        largest, step = parity.worst(outcome)
        return row | {
            "max_abs_diff": largest,
            "step": step,
            "loss": outcome.losses[-1],
            "verdict": parity.verdict(outcome),
            "diffs": parity.differences(outcome),
        }

    def __rich__(self) -> RenderableType:
        parity = self.parity
        grid = terminal.table(
            f"{parity.recipe}, {parity.steps} steps, beside one process",
            "", "procs", "largest diff", "in step", "last loss", "verdict",
        )  # fmt: skip
        lines: list[RenderableType] = [grid]
        for name, losses in parity.alone.items():
            grid.add_row(name, "1", "", "", f"{losses[-1]:.6f}", "")
            for outcome in parity.outcomes:
                if outcome.variant.optimizer == name:
                    grid.add_row(*self._cells(outcome))
        for why in dict.fromkeys(filter(None, (outcome.refused for outcome in parity.outcomes))):
            lines.append(f"refused: {why}")
        lines += [*self._curves(), "", conclusion(parity), ROUNDING]
        if self.page:
            lines.append(f"Page: {self.page}")
        return Group(*lines)

    def _cells(self, outcome: Outcome) -> list[RenderableType]:
        variant, engines = outcome.variant, {o.variant.engine for o in self.parity.outcomes}
        engine = f", {variant.engine}" if len(engines) > 1 or variant.engine != "dlrm" else ""
        names: list[RenderableType] = [f"  {variant.sharding}{engine}", str(variant.procs)]
        judged = self.parity.verdict(outcome)
        verdict = Text(judged, VERDICTS[judged])
        if outcome.refused is not None:
            return [*names, "", "", "", verdict]
        largest, step = self.parity.worst(outcome)
        return [*names, f"{largest:.1e}", str(step), f"{outcome.losses[-1]:.6f}", verdict]

    def _curves(self) -> list[RenderableType]:
        """Return the loss of one process, and below it how far off the others are."""
        parity = self.parity
        colors = dict(zip(parity.alone, STYLES, strict=False))
        values = [loss for losses in parity.alone.values() for loss in losses]
        least, most = min(values), max(values)
        pad = 0.05 * (most - least) or 0.01
        above = draw(
            [Curve(losses, colors[name]) for name, losses in parity.alone.items()],
            least - pad, most + pad, shown=lambda value: f"{value:.4f}",
        )  # fmt: skip
        worlds = sorted({outcome.variant.procs for outcome in parity.compared})
        tints = {world: STYLES[at % len(STYLES)] for at, world in enumerate(worlds)}
        below = draw(
            [
                Curve([log10(max(FLOOR, d)) for d in parity.envelope(world)], tints[world])
                for world in worlds
            ],
            log10(FLOOR),
            # Even powers of ten, so that the middle has one too.
            max(-4.0, 2 * -(-log10(max(parity.max_abs_diff, parity.tolerance, FLOOR)) // 2)),
            shown=lambda power: f"1e{power:+03.0f}" if 10**power > 1.5 * FLOOR else "0",
            level=log10(max(FLOOR, parity.tolerance)),
        )
        return [
            "",
            _legend("Loss of one process", colors),
            above,
            _legend(
                "Largest difference to it", {among(parity, w): tints[w] for w in worlds},
                f"dashed: the tolerance, {parity.tolerance:g}",
            ),
            below,
            Text(f"steps 1 to {parity.steps}", "dim"),
        ]  # fmt: skip


def _legend(title: str, styles: Mapping[str, str], more: str = "") -> Text:
    keys = [Text(f"● {name}", style) for name, style in styles.items()]
    return Text("  ").join([Text(title, "bold"), *keys, Text(more, "dim")])


def default(recipe: str, flags: Sequence[str] = ()) -> TrainConfig:
    """Return the config of a recipe as it is compared where nothing else is said."""
    config = recipe_config(recipe, list(flags))
    small = replace(config.loader, batch_size=min(SAMPLES, config.loader.batch_size))
    return replace(config, precision="fp32", loader=small)


def parity(
    recipe: str = "demo",
    config: TrainConfig | None = None,
    *,
    procs: Counts = (1, 2, 4),
    steps: int = 50,
    shardings: Annotated[Names, tyro.conf.arg(name="sharding")] = SHARDINGS,
    optimizers: Annotated[Names, tyro.conf.arg(name="optim")] = (
        "sgd",
        "adagrad",
        "rowwise_adagrad",
    ),
    engines: Annotated[Names, tyro.conf.Suppress] = ("dlrm",),
    tolerance: float = 1e-6,
    lr: Annotated[float | None, tyro.conf.Suppress] = None,
    html: Path | None = None,
) -> ParityResult:
    """Train a recipe on one process and on several, and compare the losses step by step.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here; precision
    is fp32 and a batch has at most 128 samples unless said. `--engine dlrm,torchrec` tries both
    engines. Every combination is trained on its own, for a few steps; nothing of it is kept.

    Where a loss is off by more than the tolerance, one process also takes the samples of its
    batches in other orders, which shows what rounding does; the exit status is 1 where rounding
    does not explain it.

    Args:
        recipe: Its name.
        config: Config of the recipe, changed or not; None for its `default`.
        procs: Numbers of processes, separated by commas; 1 is what the others are compared with.
        steps: Steps of each training.
        shardings: How tables are spread, separated by commas.
        optimizers: Optimizers, separated by commas; module:Class for one of your own.
        engines: Engines: dlrm, torchrec.
        tolerance: Largest difference of a loss that counts as equal.
        lr: Learning rate of every optimizer; None for the recipe's with its own optimizer, and one
            that suits each other.
        html: Also write a page with curves.

    Raises:
        ConfigError: There is nothing to compare, or nothing that could be trained.
        DlrmError: See `dlrm.errors`.

    """  # fmt: skip
    if config is None:
        config = default(recipe)
    worlds = sorted(set(procs) - {1})
    if not worlds or worlds[0] < 1 or steps < 1 or not tolerance >= 0:
        raise ConfigError(
            f"procs is {','.join(map(str, procs))}, steps {steps} and tolerance {tolerance:g}: "
            "needed are two processes or more, a step or more, and no negative tolerance"
        )
    chosen: list[Sharding] = _choices("sharding", shardings, SHARDINGS)
    asked: list[Engine] = _choices("engine", engines, get_args(Engine))
    for name in optimizers:
        optim.find(name)
    if not optimizers:
        raise ConfigError(f"optim is empty; choose from: {', '.join(optim.OPTIMIZERS)}")
    if LaunchEnv.read() is not None:
        raise ConfigError("dlrm parity starts its processes itself: run it without torchrun")
    if "torchrec" in asked:
        probe()
    check_batch(config, worlds[-1])
    dataset = open_data(config)
    with tempfile.TemporaryDirectory(prefix="dlrm-parity-") as folder:
        compared = compare(
            recipe, config, dataset, Path(folder), procs=procs, steps=steps, shardings=chosen,
            optimizers=list(dict.fromkeys(optimizers)), engines=asked, tolerance=tolerance, lr=lr,
        )  # fmt: skip
    if not compared.compared:
        raise ConfigError(str(compared.outcomes[0].refused))
    if html is not None:
        save(page(compared), html)
    return ParityResult(compared, html)


def main(words: list[str], prog: str) -> ParityResult | None:
    """Parse `[RECIPE | DATA] [--FLAG VALUE ...]` and compare.

    Returns:
        None on processes that train for the one that compares.

    """
    if launch_env.by_us():
        train_all(Path(words[0]))
        return None
    recipe, flags = recipes.first_word(words)
    name = recipe or "demo"
    engines = take_value(flags, "--engine")
    config = with_model(default(name, flags), flags)
    own_rate = any(flag.partition("=")[0] == "--optim.lr" for flag in flags)
    config, given = parse_with_config(parity, config, flags, prog)
    given["engines"] = ("dlrm",) if engines is None else engines.split(",")
    given["lr"] = config.optim.lr if own_rate else None
    return parity(name, config, **given)


def _choices(kind: str, words: Sequence[str], choices: tuple[T, ...]) -> list[T]:
    """Return words, each once, all of them known."""
    for word in words:
        if word not in choices:
            raise unknown(kind, word, choices)
    if not words:
        raise ConfigError(f"{kind} is empty; choose from: {', '.join(choices)}")
    known: dict[str, T] = {choice: choice for choice in choices}
    return [known[word] for word in dict.fromkeys(words)]
