"""`dlrm trace fit SOURCE --out FILE`: a model of the traffic that can be shared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text
from tyro.conf import Positional

from dlrm import terminal
from dlrm.data.streams import open_traces
from dlrm.errors import ConfigError
from dlrm.files import write_json
from dlrm.terminal import human_bytes
from dlrm.traces.card import LIMITS, Card, compare
from dlrm.traces.measures import Measures
from dlrm.traces.popularity import HeavyHitters
from dlrm.traces.workload import MODELS, Workload, to_fbgemm

Kind = Literal["hybrid", "uniform", "zipf", "heavy-hitters", "lru-stack", "2dio"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """A fitted workload, and how faithful what it generates is."""

    out: Path
    size_bytes: int
    kind: str
    cards: Mapping[str, Card]
    """Feature -> the card of a generated trace of the same length."""

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "out": str(self.out),
            "size_bytes": self.size_bytes,
            "kind": self.kind,
            "cards": {name: card.to_dict() for name, card in self.cards.items()},
            "faithful": all(card.faithful for card in self.cards.values()),
        }

    def __rich__(self) -> RenderableType:
        return Group(
            cards_table(self.cards),
            f"{self.out}  {human_bytes(self.size_bytes)}; it holds no id of its source",
            f"Next: dlrm bench train --data trace:{self.out}",
        )


def cards_table(cards: Mapping[str, Card]) -> RenderableType:
    """Return cards as a table, a row each."""
    grid = terminal.table(None, "", *(name.replace("_", " ") for name in LIMITS), "verdict")
    for name, card in cards.items():
        values = [
            Text(f"{getattr(card, measure):.4f}", style="bold" if measure in card.failing else "")
            for measure in LIMITS
        ]
        grid.add_row(name, *values, "faithful" if card.faithful else "off")
    grid.add_row("at most", *(f"{limit}" for limit in LIMITS.values()), "", style="dim")
    return grid


def trace_fit(
    source: Positional[str],
    *,
    out: Path,
    model: Kind = "hybrid",
    features: tuple[str, ...] = (),
    split: str = "train",
    dense: int = 13,
    fbgemm: Path | None = None,
) -> FitResult:
    """Fit a model to the traffic of each feature, and say how faithful what it generates is.

    The file holds counts, spans and gaps, and no id: it can be shared where the data cannot. What
    a reader learns from it is said in the guide.

    Args:
        source: As for dlrm trace profile.
        out: The file to write, JSON.
        model: What to fit; the others than hybrid are baselines.
        features: Features to fit, all with ids if not given.
        split: Which rows of a dataset.
        dense: Dense features that samples of this workload have.
        fbgemm: Also write the popularity of the feature as FBGEMM's TBEDataConfig, a JSON file.

    Raises:
        InputError: The source is missing, damaged, or says something it must not.
        ConfigError: A trace is too short, or there is no such feature.

    """
    traces = open_traces(source, features, split=split)
    if fbgemm is not None and len(traces) > 1:
        names = ", ".join(trace.name for trace in traces)
        raise ConfigError(f"--fbgemm describes one feature: name one with --features, of {names}")
    fitted, cards = {}, {}
    with terminal.progress() as bar:
        task = bar.add_task("Fitting", total=len(traces))
        for trace in traces:
            fitted[trace.name] = MODELS[model].fitted(trace)
            generated = fitted[trace.name].generate(len(trace), seed=1)
            cards[trace.name] = compare(Measures(trace), Measures(generated))
            bar.advance(task)
    Workload(fitted, dense).save(out)
    if fbgemm is not None:
        hitters = HeavyHitters.fitted(traces[0])
        write_json(fbgemm, to_fbgemm(hitters, batch_size=2048, dim=64))
    return FitResult(out=out, size_bytes=out.stat().st_size, kind=model, cards=cards)
