"""The page of a comparison: which model is the best, and whether that is more than luck."""

from dlrm.metrics import HIGHER_IS_BETTER
from dlrm.reporting.charts.drawing import COLOR, Figure, Key, drawing, labels, level, name_rows
from dlrm.reporting.page import Page
from dlrm.reporting.words import LINEAR, METRICS, UNKNOWN, in_sentence, number
from dlrm.training.comparison import TREES, Candidate, Comparison
from dlrm.training.significance import LEVEL

PLAIN = ("lr", TREES)
"""What a deep model has to beat."""

SHOWN = {"classification": ("auc", "log_loss"), "regression": ("rmse", "mae")}
"""Task -> the metrics that models are shown by."""


def beside(compared: Comparison, candidate: Candidate) -> tuple[str, str]:
    """Return how far a candidate is from the best, and how often seeds alone make that."""
    mean, best = candidate.mean(compared.metric), compared.best.mean(compared.metric)
    if candidate is compared.best:
        return "the best" if compared.winner else "first", ""
    if mean is None or best is None:
        return UNKNOWN, ""
    chance = compared.chance(compared.best, candidate)
    return f"{mean - best:+.4f}", "few seeds" if chance is None else f"{chance:.3f}"


def mean_of(candidate: Candidate, metric: str) -> str:
    """Return mean and standard deviation over the seeds, in words."""
    mean, spread = candidate.mean(metric), candidate.spread(metric)
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def conclusion(compared: Comparison) -> str:
    """Return what came out, in a sentence or three."""
    best, metric = compared.best, compared.metric
    name, mean = in_sentence(metric), best.mean(metric)
    if mean is None:
        return f"The {name} is undefined: the {compared.split} rows hold one class only."
    first = (
        f"{best.name} is the best, with"
        if compared.winner or len(compared.candidates) == 1
        else f"No model is told to be the best; {best.name} comes first, with"
    )
    sentences = [f"{first} {name} {number(mean)} on the {compared.split} rows."]
    others = [other for other in compared.candidates[1:] if other.mean(metric) is not None]
    chances = {other.name: compared.chance(best, other) for other in others}
    if others and None in chances.values():
        sentences.append("With so few seeds no difference can be told from their noise: take four.")
    elif others:
        alike = ", ".join(other for other, chance in chances.items() if (chance or 0) >= LEVEL)
        sentences.append(
            f"Not told from it by seed noise: {alike}."
            if alike
            else "It differs from every other by more than the noise of the seeds."
        )
    return " ".join([*sentences, _worth(compared, name)]).rstrip()


def _worth(compared: Comparison, name: str) -> str:
    """Say whether a deep model is worth it, where there is something plain to compare with."""
    metric = compared.metric
    known = [candidate for candidate in compared.candidates if candidate.mean(metric) is not None]
    plain = next((candidate for candidate in known if candidate.name in PLAIN), None)
    deep = next((candidate for candidate in known if candidate.name not in PLAIN), None)
    if plain is None or deep is None or (chance := compared.chance(plain, deep)) is None:
        return ""
    rival = {"lr": LINEAR[compared.task], TREES: "gradient-boosted trees"}[plain.name]
    gain = (deep.mean(metric) or 0) - (plain.mean(metric) or 0)
    gain = gain if metric in HIGHER_IS_BETTER else -gain
    if chance >= LEVEL:
        return f"{deep.name} and {rival} are not told apart: the simpler one will do."
    if gain > 0:
        return f"{deep.name} is worth it: {number(gain)} {name} better than {rival}."
    return f"No deep model is worth it here: {rival} is {number(-gain)} {name} better."


def page(compared: Comparison, title: str) -> Page:
    """Return the page of a comparison."""
    seeds = max(len(candidate.seeds) for candidate in compared.candidates)
    task = compared.task
    charts = (_chart(compared, name) for name in SHOWN[task])
    return Page(
        kind="dlrm comparison",
        title=title,
        about=f"{compared.data} · {compared.split} rows · {seeds} seed{'s' if seeds > 1 else ''}",
        verdict=conclusion(compared),
        template="comparison.html",
        shown={
            "compared": compared,
            "charts": [figure for figure in charts if figure],
            "metrics": [*SHOWN[task], "bias" if task == "regression" else "calibration"],
            "level": LEVEL,
            "mean_of": mean_of,
            "beside": beside,
        },
    )


def _chart(compared: Comparison, metric: str) -> Figure | None:
    """Draw a line for each model, a dot on it for each run, and a diamond at their mean."""
    known = [(c.name, values) for c in compared.candidates if (values := c.values(metric))]
    if not known:
        return None
    optimum = (compared.optimum or {}).get(metric)
    better = "higher is better" if metric in HIGHER_IS_BETTER else "lower is better"
    title, height = f"{METRICS[metric]}, {better}", 0.34 * len(known) + 0.85
    with drawing(metric, title, height, grid="x") as (figure, ax):
        if optimum is not None:
            level(ax, optimum, "optimum", vertical=True)
        for y, (name, values) in enumerate(known):
            color, mean = COLOR["baseline" if name in PLAIN else "model"], sum(values) / len(values)
            ax.plot([min(values), max(values)], [y, y], color=color, lw=1.2, alpha=0.5)
            ax.plot(values, [y] * len(values), "o", color=color, ms=4, alpha=0.45, mew=0)
            ax.plot([mean], [y], "d", color=color, ms=7, mec=COLOR["surface"], mew=0.8)
        name_rows(ax, [name for name, _ in known])
        labels(ax, METRICS[metric], "")
    figure.note = "The diamond is the mean of the seeds."
    figure.legend = [Key("a run", "model", "dot")]
    if any(name in PLAIN for name, _ in known):
        figure.legend.append(Key("a plain model's run", "baseline", "dot"))
    if optimum is not None:
        figure.legend.append(Key(f"best possible {number(optimum)}", "optimum", dashes="5 2.5"))
    return figure
