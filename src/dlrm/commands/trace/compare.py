"""`dlrm trace compare SOURCE OTHER`: the fidelity card of a trace, beside those of baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from tyro.conf import Positional

from dlrm import terminal
from dlrm.commands.trace.fit import cards_table
from dlrm.data.streams import models_of, open_traces
from dlrm.errors import ConfigError
from dlrm.reporting.page import save
from dlrm.reporting.trace import Compared, page
from dlrm.traces.card import Card
from dlrm.traces.card import compare as card_of
from dlrm.traces.measures import Measures
from dlrm.traces.trace import Trace
from dlrm.traces.workload import MODELS

BASELINES = tuple(kind for kind in MODELS if kind != "hybrid")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareTraceResult:
    """Cards by feature, and the page that draws them."""

    cards: Mapping[str, Mapping[str, Card]]
    """Feature -> `trace` or the kind of a baseline -> its card."""
    html: Path | None

    @property
    def status(self) -> int:
        """The exit status: 1 where a trace is not faithful."""
        return 0 if all(cards["trace"].faithful for cards in self.cards.values()) else 1

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "cards": {
                feature: {name: card.to_dict() for name, card in cards.items()}
                for feature, cards in self.cards.items()
            },
            "faithful": self.status == 0,
            "html": None if self.html is None else str(self.html),
        }

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = []
        for feature, cards in self.cards.items():
            lines += [f"{feature}: {cards['trace'].verdict}", cards_table(cards)]
        if self.html is not None:
            lines.append(f"{self.html}")
        return Group(*lines)


def trace_compare(
    source: Positional[str],
    other: Positional[str],
    *,
    features: tuple[str, ...] = (),
    split: str = "train",
    baselines: bool = True,
    html: Path | None = None,
) -> CompareTraceResult:
    """Say how far a trace is from its source: the fidelity card, beside those of baselines.

    A trace is faithful where its miss ratios are off by .01 at most on average, and popularity,
    reuse, unique ids of batches and pooling by .02 at most. Exits with 1 where one is not.

    Args:
        source: As for dlrm trace profile.
        other: A trace of the same features; or a workload, of which one is generated.
        features: Features to compare, all that both have if not given.
        split: Which rows of a dataset.
        baselines: Whether to fit and show baselines: uniform, Zipf, heavy hitters as FBGEMM has
            them, the original's stack distances, 2DIO.
        html: A page to write: miss ratios, popularity, reuse, pooling and drift of both.

    Raises:
        InputError: A source is missing, damaged, or says something it must not.
        ConfigError: They have no feature in common.
        MissingExtraError: matplotlib is not installed, and a page is asked for.

    """
    sources = {trace.name: trace for trace in open_traces(source, features, split=split)}
    most = max(len(trace) for trace in sources.values())
    others = {trace.name: trace for trace in open_traces(other, split=split, accesses=most)}
    pairs = paired(sources, others)
    cards: dict[str, dict[str, Card]] = {}
    compared: dict[str, Compared] = {}
    models = models_of(other)
    with terminal.progress() as bar:
        kinds = BASELINES if baselines else ()
        task = bar.add_task("Comparing", total=len(pairs) * (1 + len(kinds)))
        for name, (one, two) in pairs.items():
            one_measured, two_measured = Measures(one), Measures(two)
            cards[name] = {"trace": card_of(one_measured, two_measured)}
            bar.advance(task)
            for kind in kinds:
                generated = MODELS[kind].fitted(one).generate(len(one), seed=1)
                cards[name][kind] = card_of(one_measured, Measures(generated))
                bar.advance(task)
            compared[name] = Compared(
                source=one_measured,
                other=two_measured,
                cards=cards[name],
                parameters=models[two.name].to_dict() if two.name in models else {},
            )
    if html is not None:
        save(page(source, other, compared), html)
    return CompareTraceResult(cards=cards, html=html)


def paired(
    sources: Mapping[str, Trace], others: Mapping[str, Trace]
) -> dict[str, tuple[Trace, Trace]]:
    """Return the features that both have, or the only one of each whatever its name."""
    if len(sources) == len(others) == 1:
        (name, one), (two,) = *sources.items(), others.values()
        return {name: (one, two)}
    both = {name: (trace, others[name]) for name, trace in sources.items() if name in others}
    if not both:
        raise ConfigError(f"no feature in common: {', '.join(sources)}, and {', '.join(others)}")
    return both
