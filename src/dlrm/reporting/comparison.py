"""The page of a comparison: which model is the best, and whether that is more than luck."""

from pathlib import Path

from dlrm.files import write_bytes
from dlrm.reporting import charts
from dlrm.reporting.document import document
from dlrm.reporting.figures import figure, key
from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.tables import fold, table
from dlrm.reporting.verdict import DIRECTIONS
from dlrm.reporting.words import METRICS, UNKNOWN, duration, in_sentence, number
from dlrm.schema import Task
from dlrm.training.comparison import TREES, Candidate, Comparison
from dlrm.training.significance import LEVEL

PLAIN = ("lr", TREES)
"""What a deep model has to beat."""

SHOWN = {"classification": ("auc", "log_loss"), "regression": ("rmse", "mae")}
"""By task, the metrics that models are shown by."""


def task_of(compared: Comparison) -> Task:
    """Return what the labels are."""
    return "regression" if compared.best.values("rmse") else "classification"


def _rival(compared: Comparison, name: str) -> str:
    """Return the name of a plain model in words."""
    linear = "linear regression" if task_of(compared) == "regression" else "logistic regression"
    return {"lr": linear, TREES: "gradient-boosted trees"}[name]


def beside(compared: Comparison, candidate: Candidate) -> tuple[str, str]:
    """Return how far a candidate is from the best, and how often seeds alone make that."""
    mean, best = candidate.mean(compared.metric), compared.best.mean(compared.metric)
    if candidate is compared.best or mean is None or best is None:
        first = "the best" if compared.winner else "first"
        return (first if candidate is compared.best else UNKNOWN), ""
    chance, off = compared.chance(compared.best, candidate), f"{mean - best:+.4f}"
    if chance is None:
        return off, "few seeds"
    return off, f"{chance:.3f}"


def conclusion(compared: Comparison) -> str:
    """Return what came out, in a sentence or three."""
    best, metric = compared.best, compared.metric
    name = in_sentence(metric)
    mean = best.mean(metric)
    if mean is None:
        return f"The {name} is undefined: the {compared.split} rows hold one class only."
    said = f"{name} {number(mean)} on the {compared.split} rows."
    sentences = [
        f"{best.name} is the best, with {said}"
        if compared.winner or len(compared.candidates) == 1
        else f"No model is told to be the best; {best.name} comes first, with {said}"
    ]
    others = [
        candidate for candidate in compared.candidates[1:] if candidate.mean(metric) is not None
    ]
    chances = {candidate.name: compared.chance(best, candidate) for candidate in others}
    if others and any(chance is None for chance in chances.values()):
        sentences.append("With so few seeds no difference can be told from their noise: take four.")
    elif others:
        alike = [
            candidate
            for candidate, chance in chances.items()
            if chance is not None and chance >= LEVEL
        ]
        sentences.append(
            f"Not told from it by seed noise: {', '.join(alike)}."
            if alike
            else "It differs from every other by more than the noise of the seeds."
        )
    return " ".join([*sentences, *_worth(compared, name)])


def _worth(compared: Comparison, name: str) -> list[str]:
    """Say whether a deep model is worth it, where there is something plain to compare with."""
    metric = compared.metric
    known = [candidate for candidate in compared.candidates if candidate.mean(metric) is not None]
    plain = next((candidate for candidate in known if candidate.name in PLAIN), None)
    deep = next((candidate for candidate in known if candidate.name not in PLAIN), None)
    if plain is None or deep is None:
        return []
    gain = DIRECTIONS.get(metric, 1) * ((deep.mean(metric) or 0) - (plain.mean(metric) or 0))
    rival, chance = _rival(compared, plain.name), compared.chance(plain, deep)
    if chance is None:
        return []
    if chance >= LEVEL:
        return [f"{deep.name} and {rival} are not told apart: the simpler one will do."]
    if gain > 0:
        return [f"{deep.name} is worth it: {number(gain)} {name} better than {rival}."]
    return [f"No deep model is worth it here: {rival} is {number(-gain)} {name} better."]


def render(compared: Comparison, title: str) -> str:
    """Return the page; equal comparisons give equal pages."""
    seeds = max(len(candidate.seeds) for candidate in compared.candidates)
    about = f"{compared.data} · {compared.split} rows · {seeds} seed{'s' if seeds > 1 else ''}"
    return document(
        f"{title}: dlrm comparison",
        element(
            "header",
            bar("dlrm comparison"),
            element("h1", title),
            element("p", about, class_="made"),
            element("p", conclusion(compared), class_="verdict"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Beside each other"),
                element(
                    "div", *(_chart(compared, name) for name in _shown(compared)), class_="grid"
                ),
            ),
            element("section", element("h2", "In numbers"), _numbers(compared), _runs(compared)),
        ),
    )


def write(folder: Path, compared: Comparison) -> Path:
    """Write compare.html into the folder of a comparison and return where it is.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    target = folder / "compare.html"
    write_bytes(target, render(compared, folder.name).encode("utf-8", "replace"))
    return target


def _shown(compared: Comparison) -> tuple[str, ...]:
    return SHOWN[task_of(compared)]


def _chart(compared: Comparison, metric: str) -> Html | None:
    known = [candidate for candidate in compared.candidates if candidate.values(metric)]
    if not known:
        return None
    rows = [
        charts.Row(
            candidate.name,
            tuple(candidate.values(metric)),
            "baseline" if candidate.name in PLAIN else "model",
        )
        for candidate in known
    ]
    level = (compared.optimum or {}).get(metric)
    better = "higher is better" if DIRECTIONS.get(metric, 1) > 0 else "lower is better"
    title = f"{METRICS[metric]}, {better}"
    drawing = charts.rows(metric.replace("_", "-"), title, rows, level, x_label=METRICS[metric])
    legend = [key("a run", "model", dot=True)]
    if any(row.role == "baseline" for row in rows):
        legend.append(key("a plain model's run", "baseline", dot=True))
    if level is not None:
        legend.append(key(f"best possible {number(level)}", "optimum"))
    return figure(title, legend, drawing, "The diamond is the mean of the seeds.")


def _numbers(compared: Comparison) -> Html:
    shown = [METRICS[name] for name in _shown(compared)]
    heads = ["Model", "Parameters", "Rate", *shown, "Beside the best", "p"]
    rows = []
    for candidate in compared.candidates:
        times = [seed.elapsed_s for seed in candidate.seeds if seed.elapsed_s is not None]
        cells = [
            UNKNOWN if candidate.parameters is None else f"{candidate.parameters:,}",
            UNKNOWN if candidate.lr is None else f"{candidate.lr:g}",
            *(_mean(candidate, name) for name in _shown(compared)),
            *beside(compared, candidate),
            duration(sum(times) / len(times)) if times else UNKNOWN,
        ]
        rows.append(
            element(
                "tr",
                element("th", candidate.name, scope="row"),
                *(element("td", cell, class_="n") for cell in cells),
            )
        )
    heads.append("Training")
    caption = (
        "Mean ± standard deviation over the seeds. p: how often seeds alone make as much of a "
        f"difference from the best; below {LEVEL} it is real"
    )
    return table(heads, rows, numbers=heads[1:], caption=caption)


def _runs(compared: Comparison) -> Html:
    names = [*_shown(compared), "bias" if task_of(compared) == "regression" else "calibration"]
    rows = [
        element(
            "tr",
            element("th", candidate.name, scope="row"),
            element("td", str(seed.seed), class_="n"),
            *(element("td", number(seed.metrics.get(name)), class_="n") for name in names),
            element("td", seed.run or UNKNOWN),
        )
        for candidate in compared.candidates
        for seed in candidate.seeds
    ]
    heads = ["Model", "Seed", *(METRICS[name] for name in names), "Run"]
    return fold(f"{len(rows)} runs", table(heads, rows, numbers=heads[1:5]))


def _mean(candidate: Candidate, metric: str) -> str:
    mean, spread = candidate.mean(metric), candidate.spread(metric)
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"
