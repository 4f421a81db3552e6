"""`dlrm bench infer`: where the time of scoring goes."""

from dataclasses import dataclass

from dlrm.commands.bench.step_arguments import StepArguments, measure, read
from dlrm.commands.bench.step_result import StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments(StepArguments):
    """Show where the time of scoring a batch goes, and what would change it.

    The first word names a model: criteo-kaggle (the default), criteo-terabyte, original-random,
    figure6; or a recipe or data, as in `dlrm train`, whose flags also hold here:
    dlrm bench infer criteo-kaggle --batch 1,64,1024 --precision bf16.

    A step is the forward pass and the probabilities, without gradients, on batches in memory that
    rotate past the last-level cache. Nothing else may compute meanwhile.
    """


def main(words: list[str], prog: str) -> StepResult:
    """Parse `[MODEL | RECIPE | DATA] [--FLAG VALUE ...]` and measure."""
    arguments, name = read(words, prog, Arguments)
    return measure(arguments, name, train=False)
