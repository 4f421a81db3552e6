"""The verdict of a step: where the time goes, what holds it up, what would help most."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlrm.bench.cost.fit import OTHER
from dlrm.bench.cost.what_if import WhatIf

LEAST_GAIN = 1.03
NAMED = 2
"""Changes in the sentence."""
MACHINES = {
    "twice the cores": WhatIf(cores=2.0),
    "twice the memory bandwidth": WhatIf(bandwidth=2.0),
    "half the memory latency": WhatIf(latency=0.5),
    "four times the last-level cache": WhatIf(cache=4.0),
    "twice the arithmetic of a core": WhatIf(flops=2.0),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and what the model says it would bring."""

    what: str
    how: str
    """The flag; `hardware` where it takes another machine."""
    gain: float
    """1.3 is 1.3 times as many samples a second."""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def machines(row: Mapping[str, Any]) -> list[Change]:
    """Return what other machines would bring for the step of a row."""
    now = WhatIf().step_ms(row)
    return [
        Change(what, "hardware", now / change.step_ms(row)) for what, change in MACHINES.items()
    ]


def more_threads(row: Mapping[str, Any], threads: int, cores: int) -> list[Change]:
    """Return what all cores would bring for the step of a row; calls take as long on any number."""
    if threads >= cores:
        return []
    gain = WhatIf().step_ms(row) / WhatIf(cores=cores / threads).step_ms(row)
    return [Change(f"all {cores} cores", f"--threads {cores}", gain)]


def best(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that help at all, the best first."""
    found = [change for change in changes if change.gain >= LEAST_GAIN]
    return sorted(found, key=lambda change: -change.gain)


def off(error: float, here: float) -> str:
    """Say how far off the model is: in the median, and where it can be compared."""
    return f"by a model that is {error:.0%} off in the median, {here:.0%} here"


def sentence(row: Mapping[str, Any], changes: Sequence[Change], error: float) -> str:
    """Return the verdict in a sentence or two.

    Args:
        row: With `step_ms`, `predicted_ms` and `operators`.
        changes: The best first.
        error: Median relative error of the model.

    """
    here = abs(row["predicted_ms"] / row["step_ms"] - 1)
    operators = sorted(row["operators"], key=lambda each: -each["ms"])
    said = []
    for each in operators[:NAMED]:
        if each["name"] == OTHER:
            said.append(f"{each['share']:.0%} passes beside the operators")
            continue
        of = f"{each['name']} takes {each['share']:.0%}, bound by {each['bound']}"
        share = each["roofline_share"]
        if each["bound"] != "calls" and share:
            of += f" ({share:.0%} of its roofline)"
        said.append(of)
    first = f"A step of {row['batch_size']:,} takes {row['step_ms']:.3g} ms: {'; '.join(said)}."
    if not changes:
        return f"{first} No single change predicts more than {LEAST_GAIN - 1:.0%}."
    gains = " and ".join(
        f"{change.gain:.2f}x by {change.what}"
        + ("" if change.how == "hardware" else f" ({change.how})")
        for change in changes[:NAMED]
    )
    return f"{first} What would help most: {gains}, predicted {off(error, here)}."
