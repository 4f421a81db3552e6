"""A model of a whole click log: what can be shared of a table where the table cannot.

    Dataset ──fit──> ClickModel ──to_dict──> JSON ──of──> ClickModel ──frames(rows, seed)──> frames

Each column becomes codes: bins of a number, and of a category its most frequent values one by one
and the others by how frequent they are. Codes are joined by the tree of most mutual information
(Chow and Liu 1968): a column is drawn given its parent. Labels are drawn from a logistic regression
on the codes and on products of low rank between them. What fewer than `threshold` rows have is in
no table of the model. Names of values, and the values themselves, are made up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrm.data.features.category import Category
from dlrm.data.features.features import Features
from dlrm.data.features.number import Number
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, InputError
from dlrm.traces.traffic import shared_out

FORMAT, VERSION = "dlrm-click-model", 1
THRESHOLD = 10
"""Rows that must share a value, or a pair of values, for the model to hold it."""
NUMBER_BINS, FREQUENT = 32, 48
"""Bins of a number; values of a category that have a code of their own."""
RANK = 4
"""Rank of the products between codes that a label depends on."""
BATCH, STEPS = 4096, 300
"""Rows of a step of the fit of labels, and steps, at least."""
LEAST = 200
"""Training rows that a fit needs."""
CHUNK = 2**16

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodedColumn:
    """A column and what its codes mean."""

    name: str
    kind: str
    """`number` or `category`"""
    position: int
    """Place among the columns of the log"""
    missing: int
    """The code of a missing value; -1 where none is missing"""
    edges: tuple[float, ...] = ()
    """number: (bins + 1,) where bins begin and the last one ends, rounded"""
    whole: bool = False
    """number: whether all are whole"""
    ids: tuple[int, ...] = ()
    """category: how many values each code stands for, the most frequent first"""

    @property
    def codes(self) -> int:
        """Number of codes, that of missing values included."""
        values = len(self.edges) - 1 if self.kind == "number" else len(self.ids)
        return values + (self.missing >= 0)

    def draw(
        self, codes: Codes, rng: np.random.Generator, values: pl.Series | None = None
    ) -> pl.Series:
        """Return values (n,) for codes.

        Args:
            codes: (n,)
            rng: Where values within a code come from.
            values: The values of a category, the most frequent first; None makes names up.

        """
        missing = codes == self.missing
        known = np.where(missing, 0, codes)
        if self.kind == "category":
            # Values of a code follow one another, and no two codes share any.
            value = np.empty(len(codes), np.int64)
            for code, (first, count) in enumerate(
                zip(np.cumsum([0, *self.ids]), self.ids, strict=False)
            ):
                chosen = np.flatnonzero(known == code)
                # Each about as often as any other, so that no value of a few rows is left out.
                rounds = range(-(-len(chosen) // count))
                drawn = [rng.permutation(count) for _ in rounds] or [np.empty(0, np.int64)]
                value[chosen] = first + np.concatenate(drawn)[: len(chosen)]
            names = pl.Series(np.char.add("v", value.astype(str)))
            series = names if values is None else values.gather(value)
            return series.alias(self.name).set(pl.Series(missing), None)
        edges = np.array(self.edges)
        drawn = edges[known] + rng.random(len(codes)) * (edges[known + 1] - edges[known])
        if self.whole:
            drawn = np.floor(drawn)
        series = pl.Series(self.name, drawn).set(pl.Series(missing), None)
        return series.cast(pl.Int64) if self.whole else series


@dataclass(frozen=True, slots=True)
class ClickModel:
    """A synthetic click log."""

    label: str
    columns: tuple[CodedColumn, ...]
    parents: tuple[int, ...]
    """Place of the column that each is drawn given; -1 for none. Parents come before."""
    tables: tuple[NDArray[np.float64], ...]
    """(codes of the parent, or 1, own codes) shares of each column, by its parent's code"""
    bias: float
    weights: tuple[NDArray[np.float64], ...]
    """(codes, 1 + RANK) of each column: its logit, and its factors"""

    @classmethod
    def fit(cls, dataset: Dataset, threshold: int = THRESHOLD, seed: int = 0) -> "ClickModel":
        """Return the model of the training rows of a dataset.

        Args:
            dataset: With one label of clicks, and columns that are numbers or categories; others
                are left out.
            threshold: Rows that something must be seen in to be told.
            seed: Seed of the fit of the labels.

        Raises:
            ConfigError: There is more than one label, it is no click, or there are too few rows.

        """
        split = dataset.split("train")
        if dataset.schema.task != "classification" or dataset.schema.num_labels != 1:
            raise ConfigError(f"{dataset.path}: a click model has one label, of clicks")
        if len(split) < max(LEAST, 2 * threshold):
            need = max(LEAST, 2 * threshold)
            raise ConfigError(
                f"{dataset.path}: {len(split):,} training rows, a fit needs {need:,} or more"
            )
        columns, codes = coded(dataset, threshold)
        order, parents = _tree(codes, [column.codes for column in columns])
        columns, codes = [columns[place] for place in order], codes[:, order]
        tables = []
        for place, parent in enumerate(parents):
            counts = np.bincount(codes[:, place], minlength=columns[place].codes).astype(np.float64)
            if parent < 0:
                tables.append(counts[None] / counts.sum())
                continue
            shape = (columns[parent].codes, columns[place].codes)
            joint = _counts(codes[:, parent], codes[:, place], shape)
            tables.append(_rounded_rows(_without_rare(joint, threshold)))
        bias, weights = _label_weights(
            codes, np.asarray(split.labels[:, 0], np.float32), columns, threshold, seed
        )
        label = dataset.schema.labels[0]
        model = cls(label, tuple(columns), tuple(parents), tuple(tables), bias, tuple(weights))
        return model._calibrated(float(np.mean(split.labels[:, 0])), seed)

    def _calibrated(self, click_rate: float, seed: int) -> "ClickModel":
        """Return the model with the bias that gives its rows this click rate."""
        _, logits = self._draw(CHUNK, np.random.default_rng(seed))
        low, high = -20.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            more = float((1 / (1 + np.exp(-logits - middle))).mean()) > click_rate
            low, high = (low, middle) if more else (middle, high)
        return replace(self, bias=self.bias + (low + high) / 2)

    def frames(
        self, rows: int, seed: int = 0, values: Mapping[str, pl.Series] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield so many rows, with the label first, `CHUNK` at a time.

        Args:
            rows: How many.
            seed: Seed of the random numbers.
            values: The values of each category, as of `real_values`; None makes names up.

        """
        for start in range(0, rows, CHUNK):
            rng = np.random.default_rng((seed, start))
            codes, logits = self._draw(min(CHUNK, rows - start), rng)
            clicks = rng.random(len(logits)) < 1 / (1 + np.exp(-logits))
            columns = [pl.Series(self.label, clicks).cast(pl.UInt8)]
            drawn = {
                column.position: column.draw(codes[:, place], rng, (values or {}).get(column.name))
                for place, column in enumerate(self.columns)
            }
            yield pl.DataFrame([*columns, *(drawn[position] for position in sorted(drawn))])

    def _draw(self, rows: int, rng: np.random.Generator) -> tuple[Codes, NDArray[np.float64]]:
        codes = np.empty((rows, len(self.columns)), np.int64)
        for place, (parent, table) in enumerate(zip(self.parents, self.tables, strict=True)):
            if parent < 0:
                codes[:, place] = shared_out(table[0], rows, rng)
                continue
            for value, shares in enumerate(table):
                chosen = np.flatnonzero(codes[:, parent] == value)
                if len(chosen):
                    codes[chosen, place] = shared_out(shares, len(chosen), rng)
        drawn = [weights[codes[:, place]] for place, weights in enumerate(self.weights)]
        summed = np.sum(drawn, axis=0)
        squares = np.sum([row[:, 1:] ** 2 for row in drawn], axis=0)
        products = (summed[:, 1:] ** 2 - squares).sum(axis=1) / 2
        return codes, self.bias + summed[:, 0] + products

    def to_dict(self) -> dict[str, Any]:
        """Return the model JSON-ready."""
        columns = []
        for column, parent, table, weights in zip(
            self.columns, self.parents, self.tables, self.weights, strict=True
        ):
            columns.append(
                {
                    "name": column.name,
                    "kind": column.kind,
                    "position": column.position,
                    "missing": column.missing,
                    "edges": list(column.edges),
                    "whole": column.whole,
                    "ids": list(column.ids),
                    "parent": parent,
                    "table": np.round(table, 5).tolist(),
                    "weights": np.round(weights, 4).tolist(),
                }
            )
        return {
            "format": FORMAT,
            "version": VERSION,
            "label": self.label,
            "bias": round(self.bias, 5),
            "columns": columns,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], file: Any) -> "ClickModel":
        """Return the model that a file holds.

        Raises:
            InputError: It holds none, or one of another version.

        """
        try:
            if values["format"] != FORMAT or values["version"] != VERSION:
                problem = f"{values['format']} version {values['version']}"
                raise InputError(f"{problem}, expected {FORMAT} version {VERSION}", file=file)
            columns, parents, tables, weights = [], [], [], []
            for place, column in enumerate(values["columns"]):
                known = CodedColumn(
                    name=str(column["name"]),
                    kind=column["kind"],
                    position=int(column["position"]),
                    missing=int(column["missing"]),
                    edges=tuple(map(float, column["edges"])),
                    whole=bool(column["whole"]),
                    ids=tuple(map(int, column["ids"])),
                )
                parent = int(column["parent"])
                above = columns[parent].codes if 0 <= parent < place else 1
                table = np.array(column["table"], np.float64)
                column_weights = np.array(column["weights"], np.float64)
                if (
                    known.kind not in ("number", "category")
                    or table.shape != (above, known.codes)
                    or column_weights.shape != (known.codes, 1 + RANK)
                    or not (table.sum(axis=1) > 0).all()
                    or table.min() < 0
                    or min(known.ids, default=1) < 1
                ):
                    raise ValueError(f"the column {known.name} does not fit")
                columns.append(known)
                parents.append(parent)
                tables.append(table)
                weights.append(column_weights)
            bias = float(values["bias"])
            return cls(
                str(values["label"]), tuple(columns), tuple(parents), tuple(tables), bias,
                tuple(weights),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"no click model, or a damaged one: {error!r}", file=file) from error


def coded(dataset: Dataset, threshold: int) -> tuple[list[CodedColumn], Codes]:
    """Return the columns of a dataset, and their codes (n, C) in the training rows."""
    features, split = Features.load(dataset.path), dataset.split("train")
    columns, codes, dense_place, ids_place = [], [], -1, -1
    for feature, model_input in features.inputs:
        is_number = model_input.num_embeddings is None
        dense_place += is_number
        ids_place += not is_number and model_input.kind == "one_hot"
        if isinstance(feature, Number) and is_number and model_input.name == feature.name:
            raw = raw_numbers(dataset, features, feature.name, split.dense[:, dense_place])
            column, column_codes = _coded_number(feature.name, len(columns), raw, threshold)
        elif isinstance(feature, Category) and model_input.name in feature.columns:
            values = np.asarray(split.ids[:, ids_place], np.int64)
            nothing = _missing_id(features, model_input.name)
            place = len(columns)
            column, column_codes = _coded_category(
                model_input.name, place, values, nothing, threshold
            )
        else:
            continue
        columns.append(column)
        codes.append(column_codes)
    if not columns:
        raise ConfigError(f"{dataset.path} has no column that is a number or a category")
    return columns, np.stack(codes, axis=1)


def raw_numbers(
    dataset: Dataset, features: Features, name: str, inputs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return a number as the raw data have it, NaN where missing.

    As an input a missing number may be 0 as others are: so many of those are taken for missing as
    the dataset says there are.
    """
    inputs = np.asarray(inputs)
    raw = features.raw(name, inputs)
    # float32 forgot the last digits of whole numbers, whose logarithm it holds.
    nearest = np.rint(raw)
    raw = np.where(np.abs(raw - nearest) < 1e-4 + 3e-6 * np.abs(raw), nearest, raw)
    known = {one["name"]: one.get("missing", 0) for one in dataset.manifest["features"]}
    share = known.get(name, 0) / max(int(dataset.manifest["rows"]), 1)
    candidates = np.flatnonzero((inputs == 0) & ~np.isnan(raw))
    already = np.isnan(raw).mean()
    wanted = round(max(share - already, 0.0) * len(raw))
    chosen = np.random.default_rng(0).permutation(candidates)[:wanted]
    raw[chosen] = np.nan
    return raw


def _coded_number(
    name: str, position: int, values: NDArray[np.float64], threshold: int
) -> tuple[CodedColumn, Codes]:
    """Return a number as bins of at least `threshold` rows, with rounded ends."""
    missing = np.isnan(values)
    known = values[~missing]
    whole = bool(len(known)) and bool((known == np.rint(known)).all())
    bins = max(1, min(NUMBER_BINS, len(known) // max(threshold, 1)))
    quantiles = np.quantile(known, np.linspace(0, 1, bins + 1)) if len(known) else np.zeros(2)
    if len(known) >= 2 * threshold:
        # The ends are means of the outermost rows, so that no row's number is one.
        ordered = np.sort(known)
        quantiles[0], quantiles[-1] = ordered[:threshold].mean(), ordered[-threshold:].mean()
    ends = np.unique(_two_digits(quantiles, whole=whole))
    if whole:
        # A frequent whole number is a bin of its own.
        ends = np.unique(np.concatenate([np.floor(ends), np.floor(ends) + 1]))
    if len(ends) < 2:
        ends = np.array([ends[0], ends[0] + (1.0 if whole else 0.0)])
    codes = np.zeros(len(values), np.int64)
    codes[~missing] = np.clip(np.searchsorted(ends, known, side="right") - 1, 0, len(ends) - 2)
    column = CodedColumn(
        name=name,
        kind="number",
        position=position,
        missing=len(ends) - 1 if missing.sum() >= threshold else -1,
        edges=tuple(ends.tolist()),
        whole=whole,
    )
    codes[missing] = max(column.missing, 0)
    return column, codes


def _two_digits(values: NDArray[np.float64], *, whole: bool) -> NDArray[np.float64]:
    """Return numbers rounded to three digits; whole ones below 1,000 as they are."""
    with np.errstate(divide="ignore"):
        digits = np.floor(np.log10(np.abs(values), where=values != 0, out=np.zeros_like(values)))
    unit = 10.0 ** (digits - 2)
    rounded = np.rint(values / unit) * unit
    return np.where(np.abs(values) < 1000, np.rint(values), rounded) if whole else rounded


def real_values(dataset: Dataset) -> dict[str, pl.Series]:
    """Return the values of each category of a dataset, the most frequent first, as it has them."""
    features, split = Features.load(dataset.path), dataset.split("train")
    values = {}
    for place, feature in enumerate(dataset.schema.one_hot_features):
        counts = np.bincount(np.asarray(split.ids[:, place]))
        counts = _without(counts, _missing_id(features, feature.name))
        known = features.vocabulary(feature.name).frame["value"]
        # The last id is of all others, which any new value is.
        known = known.extend_constant(known.dtype.max() if known.dtype.is_integer() else "other", 1)  # pyright: ignore[reportAttributeAccessIssue]
        values[feature.name] = known.gather(np.argsort(-counts, kind="stable"))
    return values


def _missing_id(features: Features, name: str) -> int:
    """Return the id of a missing value; -1 where the training rows have none."""
    missing = features.vocabulary(name).frame["value"].is_null().to_numpy()
    return int(np.argmax(missing)) if missing.any() else -1


def _without(counts: Codes, missing: int) -> Codes:
    """Return counts by id without those of the missing value."""
    if 0 <= missing < len(counts):
        counts[missing] = 0
    return counts


def _coded_category(
    name: str, position: int, ids: Codes, nothing: int, threshold: int
) -> tuple[CodedColumn, Codes]:
    """Return a category as its most frequent values, and the others by frequency.

    Values with fewer rows than `threshold` are one code, however many rows each has.
    """
    missing = ids == nothing
    counts = _without(np.bincount(ids), nothing)
    order = np.argsort(-counts, kind="stable")
    ranked = counts[order]
    frequent = int(min((ranked >= threshold).sum(), FREQUENT))
    rare = int((ranked >= threshold).sum())
    ends = [*range(1, frequent + 1)]
    while ends and ends[-1] < rare:
        ends.append(min(2 * ends[-1], rare))
    if (ranked[rare:] > 0).any():
        ends.append(int((ranked > 0).sum()))
    if not ends:
        ends = [1]
    code_of = np.zeros(len(counts), np.int64)
    code_of[order] = np.minimum(
        np.searchsorted(ends, np.arange(len(counts)), side="right"), len(ends) - 1
    )
    column = CodedColumn(
        name=name,
        kind="category",
        position=position,
        missing=len(ends) if missing.sum() >= threshold else -1,
        ids=tuple(np.diff([0, *ends]).tolist()),
    )
    return column, np.where(missing, max(column.missing, 0), code_of[ids])


def _counts(a: Codes, b: Codes, shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1]).reshape(shape).astype(float)


def _without_rare(joint: NDArray[np.float64], threshold: int) -> NDArray[np.float64]:
    """Return counts of pairs in which those below the threshold are not told.

    They share what is left of the rows of their values, as evenly as that can be (by iterative
    proportional fitting); of sums below the threshold nothing is left.
    """
    rare = joint < threshold
    left = np.where(rare, joint, 0.0)
    rows, columns = (left.sum(axis=axis) for axis in (1, 0))
    rows, columns = (np.where(sums < threshold, 0.0, sums) for sums in (rows, columns))
    filled = np.where(rare, rows[:, None] * columns, 0.0)
    for _ in range(50):
        for axis, sums in ((1, rows), (0, columns)):
            present = filled.sum(axis=axis)
            factor = np.divide(sums, present, out=np.zeros_like(present), where=present > 0)
            filled = filled * np.expand_dims(factor, axis)
    return np.where(rare, filled, joint)


def _rounded_rows(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows that sum to 1; one that nothing is in is even."""
    table = np.where(table.sum(axis=1, keepdims=True) > 0, table, 1.0)
    return table / table.sum(axis=1, keepdims=True)


def information(joint: NDArray[np.float64]) -> float:
    """Return the mutual information of a table of counts, less what chance makes of it, in nats."""
    total = joint.sum()
    shares = joint / total
    apart = shares.sum(axis=1, keepdims=True) * shares.sum(axis=0, keepdims=True)
    known = shares > 0
    nats = float((shares[known] * np.log(shares[known] / apart[known])).sum())
    rows, columns = ((shares.sum(axis=axis) > 0).sum() for axis in (1, 0))
    return max(0.0, nats - (rows - 1) * (columns - 1) / (2 * total))


def _tree(codes: Codes, sizes: list[int]) -> tuple[list[int], list[int]]:
    """Return an order of the columns, and the place of each one's parent in it, -1 for the first.

    The tree has the most mutual information of all: the largest edge that leaves it is added next.
    """
    count = codes.shape[1]
    strength = np.zeros((count, count))
    for a in range(count):
        for b in range(a):
            joint = _counts(codes[:, a], codes[:, b], (sizes[a], sizes[b]))
            strength[a, b] = strength[b, a] = information(joint)
    order, parents = [int(strength.sum(axis=1).argmax())], [-1]
    while len(order) < count:
        free = [place for place in range(count) if place not in order]
        edges = strength[np.ix_(order, free)]
        inside, outside = np.unravel_index(int(edges.argmax()), edges.shape)
        parents.append(int(inside) if edges.max() > 0 else -1)
        order.append(free[int(outside)])
    return order, parents


def _label_weights(
    codes: Codes, labels: NDArray[np.float32], columns: list[CodedColumn], threshold: int, seed: int
) -> tuple[float, list[NDArray[np.float64]]]:
    """Return the bias and the weights of a factorization machine of labels by codes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [column.codes for column in columns]
    offsets = np.cumsum([0, *sizes[:-1]])
    places, y = torch.from_numpy(codes + offsets), torch.from_numpy(labels)
    seen = torch.bincount(places.flatten(), minlength=sum(sizes)) >= threshold
    weights = torch.zeros(sum(sizes), 1 + RANK)
    weights[:, 1:] = 0.01 * torch.randn(sum(sizes), RANK, generator=generator)
    rate = float(y.mean().clamp(1e-6, 1 - 1e-6))
    bias = torch.tensor(np.log(rate / (1 - rate)), dtype=torch.float32, requires_grad=True)
    weights.requires_grad_()
    optimizer = torch.optim.Adam([bias, weights], lr=0.02)
    for rows in islice(_batches(len(y), generator), max(STEPS, len(y) // 1000)):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            _logits(weights * seen[:, None], places[rows], bias), y[rows]
        )
        loss = loss + (1e-4 * (weights[:, :1] ** 2).sum() + 1e-3 * (weights[:, 1:] ** 2).sum()) / (
            len(columns)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    final = (weights * seen[:, None]).detach().double().numpy()
    return float(bias.detach()), np.split(final, offsets[1:])


def _batches(rows: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield rows in random order, again and again, `BATCH` at a time."""
    while True:
        yield from torch.randperm(rows, generator=generator).split(BATCH)


def _logits(weights: Tensor, places: Tensor, bias: Tensor) -> Tensor:
    rows = weights[places]
    summed = rows.sum(dim=1)
    products = summed[:, 1:] ** 2 - (rows[:, :, 1:] ** 2).sum(dim=1)
    return bias + summed[:, 0] + products.sum(dim=1) / 2
