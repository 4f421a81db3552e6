"""`dlrm bench train`: where the time of a training step goes."""

from dataclasses import dataclass
from pathlib import Path

from dlrm.bench.batches import Ids
from dlrm.commands.bench.step_arguments import DEFAULT, StepArguments, default, measure, read
from dlrm.commands.bench.step_result import StepResult
from dlrm.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments(StepArguments):
    """Show where the time of a training step goes, and what would change it.

    The first word names a model: criteo-kaggle (the paper's, and the default), criteo-terabyte
    (MLPerf's), original-random (the random model of the original's benchmark), figure6 (the model
    that the paper profiles); or a recipe or data, as in `dlrm train`, whose flags also hold here:
    dlrm bench train figure6 --model.dim 32 --batch 1024,4096.

    A step is forward, loss, backward and update, on batches in memory that rotate past the
    last-level cache. Each operator is timed within real steps and set beside this machine's limits,
    which are measured once (`dlrm bench machine`) and kept. Nothing else may compute meanwhile.
    """


def main(words: list[str], prog: str) -> StepResult:
    """Parse `[MODEL | RECIPE | DATA] [--FLAG VALUE ...]` and measure."""
    arguments, name = read(words, prog, Arguments)
    return measure(arguments, name, train=True)


def bench_train(
    name: str = DEFAULT,
    config: TrainConfig | None = None,
    *,
    batch: str = "",
    ids: Ids = "uniform",
    pooling: int = 0,
    rows_scale: float = 1.0,
    rounds: int = 11,
    what_if: str = "",
    out: Path | None = None,
    html: Path | None = None,
) -> StepResult:
    """Show where the time of a training step goes, and what would change it.

    Args:
        name: criteo-kaggle, criteo-terabyte, original-random or figure6; or a recipe.
        config: What is measured, changed or not; None for what the name stands for.
        batch: Batch sizes, separated by commas; those of the model where empty.
        ids: How random ids are distributed.
        pooling: Random ids of a sample in each table; 0 as the model has it.
        rows_scale: Share of the rows of each random table.
        rounds: Timed rounds.
        what_if: Also say what another machine would take, such as bandwidth=2x,cores=4.
        out: A file that rows of results are appended to.
        html: Where to draw them as a page.

    Raises:
        DlrmError: A setting has no meaning, it does not fit, or the data are too few.

    """
    arguments = Arguments(
        config=config or default(name),
        batch=batch,
        ids=ids,
        pooling=pooling,
        rows_scale=rows_scale,
        rounds=rounds,
        what_if=what_if,
        out=out,
        html=html,
    )
    return measure(arguments, name, train=True)
