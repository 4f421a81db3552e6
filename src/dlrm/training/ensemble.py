"""Several models whose scores are averaged, as one model and as one run.

    RUN/members/0, 1, ...    the members, each a run directory of its own

A mean of models is better than the mean model: what the members learned alike adds up, and what
each owes to the luck of its seed averages out. Members differ by seed and, where a recipe says so,
by model; the more they differ, the more the mean gains.

Source: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", arXiv 1612.01474.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.run import Run
from dlrm.training.config import TrainConfig

Mean = Literal["logits", "probabilities"]


class Ensemble(nn.Module):
    """The mean of several models.

    With z_k (B, K) the logits of member k of n, the logits are, of each label by itself,

        logits          (z_1 + ... + z_n) / n
        probabilities   log(p / (1 - p)), where p = (sigmoid(z_1) + ... + sigmoid(z_n)) / n

    Args:
        members: At least one.
        mean: Mean of `logits`, or of `probabilities`.

    """

    def __init__(self, members: Iterable[nn.Module], mean: Mean = "logits"):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mean = mean

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        z = torch.stack([member(batch).float() for member in self.members])
        if self.mean == "logits":
            return z.mean(dim=0)
        # Both sums lack the factor 1 / n, which cancels. By logarithms, because p rounds to 1.
        return F.logsigmoid(z).logsumexp(dim=0) - F.logsigmoid(-z).logsumexp(dim=0)


def members(config: TrainConfig) -> list[TrainConfig]:
    """Return the config of each member of an ensemble; that of a single model is its own."""
    if config.ensemble == 1:
        return [replace(config, ensemble_models=())]
    models = islice(cycle((config.model, *config.ensemble_models)), config.ensemble)
    return [
        replace(
            config,
            model=model,
            ensemble=1,
            ensemble_models=(),
            seed=config.seed + k,
            loader=replace(config.loader, seed=config.loader.seed + k),
            baseline=False,
            from_run=config.from_run and str(Path(config.from_run) / "members" / str(k)),
        )
        for k, model in enumerate(models)
    ]


def folder(run: Run, member: int) -> Path:
    """Return where the run directory of a member is."""
    return run.path / "members" / str(member)


def model_name(config: TrainConfig) -> str:
    """Return the name of the model of a run: `dlrm`, `dlrm x 5`, `dlrm x 3 + dcnv2 x 2`."""
    counts = Counter(member.model.name for member in members(config))
    return " + ".join(f"{name} x {n}" if n > 1 else name for name, n in counts.items())


def scores(run: Run, config: TrainConfig, split: str, label: str) -> list[dict[str, Any]]:
    """Return `model`, `seed` and `metrics` of a label of each member that was evaluated on a split.

    Of a single model it is nothing.
    """
    if config.ensemble == 1:
        return []
    scored = []
    for k, member in enumerate(members(config)):
        if evaluation := Run(folder(run, k)).evaluation(split):
            metrics = metrics_of(evaluation, label)
            scored.append({"model": member.model.name, "seed": member.seed, "metrics": metrics})
    return scored


def metrics_of(evaluation: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return the metrics of a label in an evaluation of one label or several."""
    return evaluation.get("labels", {}).get(label, evaluation)["metrics"]


def mean_of_members(
    scored: Sequence[Mapping[str, Any]], metrics: Iterable[str]
) -> dict[str, float | None]:
    """Return these metrics of what `scores` returned on average; None where one is undefined."""
    values = {name: [member["metrics"].get(name) for member in scored] for name in metrics}
    return {name: None if None in some else fmean(some) for name, some in values.items()}
