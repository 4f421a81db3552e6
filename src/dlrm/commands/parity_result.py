"""What `dlrm parity` found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.commands.curve import Curve, draw
from dlrm.reporting.parity import FLOOR, ROUNDING, among, conclusion
from dlrm.training.parity import Parity, Verdict
from dlrm.training.variant import Outcome

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
