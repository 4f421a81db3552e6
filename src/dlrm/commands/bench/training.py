"""`dlrm bench train`: where the time of a training step goes."""

from dataclasses import dataclass

from dlrm.commands.bench.step_arguments import StepArguments, measure, read
from dlrm.commands.bench.step_result import StepResult


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
