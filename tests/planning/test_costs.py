"""The cost model: its algebra against oracles, its work against what torch counts."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bench.machines import CACHE_BYTES, CEILINGS, COSTS, DEVICE, FAR, NEAR, WEIGHTS, machine
from dlrm.bench.batches import draw_ids, random_batch
from dlrm.bench.local_step import fresh_step
from dlrm.bench.operator import Setting
from dlrm.bench.operators import OPERATORS
from dlrm.models import MODELS, ModelConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS
from dlrm.optim.config import OptimConfig
from dlrm.planning.caches import Levels, distinct, miss
from dlrm.planning.costs import Costs, Device, Terms, least, limits, stream_rate
from dlrm.planning.fit import FOLDS, Measured, Step, fit, predicted
from dlrm.planning.nonnegative import solve
from dlrm.planning.operators import dense_update, lookup, mlp, update
from dlrm.planning.parts import measured, parts
from dlrm.planning.predict import Predictor, exponent
from dlrm.planning.stages import FORWARD, LOSS, Watched, stages
from dlrm.planning.work import Ids, Product, Random, Shape, Work
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig

ROWS = (50, 7, 300)
SCHEMA = Schema.one_hot(4, ROWS, ("user", "item", "C2"))
FEATURES = st.integers(1, 5)


@given(st.integers(0, 10**6), st.integers(1, 12), FEATURES)
@settings(deadline=None, max_examples=50)
def test_the_least_squares_without_negative_numbers(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    x = solve(a, b)
    # The conditions of Karush, Kuhn and Tucker: no step inside makes the error smaller.
    slope = a.T @ (a @ x - b)
    assert (x >= 0).all()
    assert (slope >= -1e-5).all()
    assert np.abs(slope * x).max() < 1e-5


@pytest.mark.parametrize("ids", ["uniform", "zipf"])
@pytest.mark.parametrize("tables", [(4000,), (3000, 40, 600)])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_misses_are_those_of_a_simulated_cache(
    ids: Ids, tables: tuple[int, ...], share: float
) -> None:
    drawn = draw_ids(tables, 30_000 // len(tables), ids, np.random.default_rng(0))
    rows = (drawn + np.concatenate([[0], np.cumsum(tables)[:-1]])).flatten()
    room = int(share * sum(tables))
    cache: dict[int, None] = {}
    missed = counted = 0
    for position, row in enumerate(rows.tolist()):
        found = cache.pop(row, 0) is None
        cache[row] = None
        if len(cache) > room:
            del cache[next(iter(cache))]
        if position > 15_000:
            counted += 1
            missed += not found
    expected = miss(Random(1.0, 64, tables, ids), 64.0 * room)
    assert expected == pytest.approx(missed / counted, abs=0.02)


def test_no_cache_misses_always_and_one_that_holds_everything_never() -> None:
    each = Random(1.0, 64, (100, 200))
    assert miss(each, 0) == 1.0
    assert miss(each, 64 * 300) == 0.0
    rising = [miss(each, 64.0 * room) for room in range(10, 300, 40)]
    assert rising == sorted(rising, reverse=True)


def test_levels_give_the_curve_that_they_were_fitted_to() -> None:
    levels = Levels.of(CEILINGS.gather)
    for point in CEILINGS.gather:
        rows = point.table_bytes // point.row_bytes
        waiting, moving = levels.row_s(Random(1.0, point.row_bytes, (rows,)))
        assert waiting + moving == pytest.approx(point.row_s, rel=0.05)
        assert NEAR * 0.95 <= waiting <= FAR * 1.05
    popular = levels.row_s(Random(1.0, 64, (1 << 24,), "zipf"))
    assert sum(popular) < sum(levels.row_s(Random(1.0, 64, (1 << 24,))))
    # A cache of four times the size holds what missed before.
    size = 2 * CACHE_BYTES // 64
    larger = levels.scaled(4.0, 1 << 21, 1 << 27)
    assert sum(larger.row_s(Random(1.0, 64, (size,)))) == pytest.approx(NEAR, rel=0.1)


def test_a_row_that_is_written_moves_twice() -> None:
    levels = Levels.of(CEILINGS.gather)
    read, written = (
        levels.row_s(Random(1.0, 512, (1 << 22,), written=each)) for each in (False, True)
    )
    assert read[0] == written[0]
    assert written[1] == pytest.approx(read[1] * 15 / 7)


def test_limits_are_work_over_rates() -> None:
    work = Work(
        calls=3,
        products=(Product(10, 20, 30),),
        dtype="bf16",
        stream_bytes=4e9,
        random=(Random(1000, 64, (1 << 24,)),),
    )
    found = limits(work, CEILINGS)
    assert found.calls_s == pytest.approx(3e-6)
    assert found.compute_s == pytest.approx(2 * 10 * 20 * 30 / 400e9)
    assert found.stream_s == pytest.approx(4e9 / 110e9)
    assert found.latency_s == pytest.approx(1000 * FAR, rel=0.1)
    assert found.transfer_s == 0
    assert found.bound == "memory bandwidth"
    assert work.lines == 4e9 / 64 + 1000
    padded = limits(work, CEILINGS, passes=True)
    assert padded.compute_s == pytest.approx(2 * 10 * 32 * 32 / 400e9)
    assert padded.stream_s == found.stream_s


def test_passes_take_time_but_are_no_work_that_has_to_be_done() -> None:
    least_work = Work(stream_bytes=1e9, random=(Random(1000, 64, (1 << 24,)),))
    again = (Random(500, 64, (1 << 24,)),)
    work = replace(least_work, passes_bytes=1e9, passes=again)
    assert (work.bytes, work.lines, work.flops) == (
        least_work.bytes, least_work.lines, least_work.flops,
    )  # fmt: skip
    assert limits(work, CEILINGS) == limits(least_work, CEILINGS)
    assert least(work, CEILINGS, 1e6) == least(least_work, CEILINGS, 1e6)
    before, after = (limits(each, CEILINGS, passes=True) for each in (least_work, work))
    assert after.stream_s == pytest.approx(2 * before.stream_s)
    assert after.latency_s == pytest.approx(1.5 * before.latency_s)
    both = work + work
    assert (both.passes_bytes, both.passes) == (2e9, again + again)


def test_what_caches_hold_streams_faster_than_memory_copies() -> None:
    rates = [stream_rate(size, CEILINGS) for size in (1e4, 1e6, 1e8, 1e10)]
    assert rates == sorted(rates, reverse=True)
    assert min(rates) >= CEILINGS.copy[2]


def test_the_work_of_an_mlp_is_what_torch_counts() -> None:
    sizes = [13, 32, 8, 1]
    net = torch.nn.Sequential(*(torch.nn.Linear(n, k) for n, k in pairwise(sizes)))
    for inputs in (False, True):
        x = torch.randn(64, 13, requires_grad=inputs)
        with FlopCounterMode(display=False) as counter:
            out = net(x)
            forward = counter.get_total_flops()
            out.sum().backward()
        there, back = mlp(sizes, 64, "fp32", needs_input_gradient=inputs)
        assert sum(each.flops for each in there.products) == forward
        products = (*there.products, *back.products)
        assert sum(each.flops for each in products) == counter.get_total_flops()


@pytest.mark.parametrize("ids", ["uniform", "zipf"])
def test_distinct_rows_are_as_many_as_are_drawn(ids: Ids) -> None:
    rng = np.random.default_rng(0)
    counts = [
        sum(len(np.unique(column)) for column in draw_ids(ROWS, 40, ids, rng).T) for _ in range(200)
    ]
    assert distinct(ROWS, Shape(40, 1, ids)) == pytest.approx(np.mean(counts), rel=0.05)


def test_lookups_and_updates_touch_what_they_say() -> None:
    shape = Shape(100, 2.0)
    (read,) = lookup(ROWS, 16, 2, shape).random
    assert (read.accesses, read.row_bytes, read.written) == (600, 32, False)
    touched = distinct(ROWS, shape)
    exact = update(ROWS, 16, 4, shape, "sgd")
    assert [(each.accesses, each.row_bytes) for each in exact.random] == [(touched, 64)]
    # Rows are written once a gradient.
    assert [each.accesses for each in exact.passes] == [600 - touched]
    by_rows = update(ROWS, 16, 4, shape, "adagrad")
    assert [(each.accesses, each.row_bytes) for each in by_rows.random] == [(touched, 64)] * 2
    assert by_rows.stream_bytes == exact.stream_bytes
    assert by_rows.passes_bytes > exact.passes_bytes
    assert len(update(ROWS, 16, 2, shape, "sgd", split=True).random) == 2
    near = update(ROWS, 16, 4, shape, "sgd", near=True)
    assert near.bytes == exact.bytes
    assert near.random[0].tables_bytes == 64 * round(touched)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_operator_has_the_same_work_in_a_step_and_alone(precision: ComputeDtype) -> None:
    setting = Setting(
        batch=100, tables=3, rows=500, dim=8, pooling=2, precision=precision, optim="adagrad",
        widths=(14, 32, 8),
    )  # fmt: skip
    schema = Schema.one_hot(4, (500,) * 3, kind="bag")
    config = DLRMConfig(dim=8, bottom=(32,), top=(32, 8))
    model = config.build(schema, precision)
    optim = OptimConfig(name="adagrad", lr=0.1)
    run = TrainConfig(model=config, optim=optim, precision=precision)
    of = parts(run, schema, setting.shape)
    together: dict[str, Work] = {}
    for part in of:
        together[part.operator] = together.get(part.operator, Work(calls=0)) + part.work

    def counts(work: Work) -> tuple[float, ...]:
        return work.flops, work.bytes, work.lines

    for name in ("lookup", "update", "interaction"):
        assert counts(together[name]) == pytest.approx(counts(OPERATORS[name].work(setting))), name
    assert counts(together["loss"]) == counts(OPERATORS["loss"].work(setting))
    top = replace(setting, widths=(8 + 6, 32, 8, 1))
    assert counts(together["top MLP"]) == pytest.approx(counts(OPERATORS["mlp"].work(top)))
    dense = sum(p.numel() for n, p in model.named_parameters() if "embeddings" not in n)
    assert together["dense update"] == dense_update(dense, "adagrad")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_watched_step_is_the_same_step(name: str, optimizer: str) -> None:
    config: ModelConfig = MODELS[name]()
    steps = []
    for watched_too in (False, True):
        torch.manual_seed(0)
        optim = OptimConfig(name=optimizer, lr=0.01, warmup_steps=9)
        train = fresh_step(TrainConfig(model=config, optim=optim), SCHEMA)
        model = train.net
        watched = Watched(model, train)
        batch = random_batch(SCHEMA, 16, "uniform", np.random.default_rng(0))
        seen: list[tuple[str, str]] = []

        class Seen:
            def enter(self, stage: str, phase: str, seen: list[tuple[str, str]] = seen) -> None:
                seen.append((stage, phase))

            def leave(self, stage: str, phase: str) -> None: ...

        if watched_too:
            with watched.watching(Seen()):
                loss = watched.step(batch)
            expected = {(stage, FORWARD) for stage in (*stages(model), LOSS)}
            assert expected <= set(seen)
        else:
            loss = train(batch).item()
        steps.append((loss, [p.detach().clone() for p in model.parameters()]))
    (first, before), (second, after) = steps
    assert first == second
    if optimizer == "sgd":
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_nothing_watches_after_the_watch() -> None:
    config = TrainConfig(model=DLRMConfig(dim=4, bottom=(8,), top=(8,)))
    train = fresh_step(config, SCHEMA)
    watched = Watched(train.net, train)
    batch = random_batch(SCHEMA, 16, "uniform", np.random.default_rng(0))

    class Loud:
        def enter(self, stage: str, phase: str) -> None:
            raise AssertionError(stage)

        leave = enter

    with pytest.raises(AssertionError, match="bottom"), watched.watching(Loud()):
        watched.step(batch)
    watched.forget()
    assert watched.step(batch) > 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, None])
def test_every_model_has_parts_that_can_be_predicted(name: str, optimizer: str | None) -> None:
    optim = OptimConfig(name=optimizer or "sgd", lr=0.1)
    run = TrainConfig(model=MODELS[name](), optim=optim)
    found = parts(run, SCHEMA, Shape(128), train=optimizer is not None)
    assert found[0].phase == FORWARD
    for part in found:
        total = DEVICE.terms(part.kind, part.work).total_s
        assert np.isfinite(total)
        assert total >= 0
    assert sum(DEVICE.terms(p.kind, p.work).total_s for p in found) > 0
    took = {stage: 1e-3 for part in found for stage in part.stages}
    said = measured(found, took, 1.0)
    assert sum(each.seconds for each in said) == pytest.approx(1.0)


def test_counted_layers_are_what_torch_counts() -> None:
    config = MODELS["dcnv2"]()
    model = config.build(SCHEMA)
    found = parts(TrainConfig(model=config), SCHEMA, Shape(256))
    (work,) = (part.work for part in found if part.stages == (("cross", FORWARD),))
    cross, width = model.get_submodule("cross"), len(SCHEMA.dense) + len(ROWS) * config.dim  # pyright: ignore[reportAttributeAccessIssue]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        cross.to("meta")(torch.empty(256, width))
    assert work.flops == pytest.approx(counter.get_total_flops())
    assert work.bytes > 0


def random_steps(rng: np.random.Generator, count: int) -> list[Step]:
    """Steps that take what the weights say."""
    steps = []
    for _ in range(count):
        operators = []
        for kind in ("lookup", "mlp forward fp32"):
            work = Work(
                calls=float(rng.integers(1, 9)),
                products=(Product(*map(int, rng.integers(1, 500, 3))),),
                stream_bytes=float(rng.uniform(1e3, 1e8)),
                random=(Random(float(rng.uniform(1, 1e5)), 128, (int(rng.integers(1, 1 << 22)),)),),
            )
            operators.append(Measured(kind, work, DEVICE.terms(kind, work).total_s))
        steps.append(Step(tuple(operators), sum(each.seconds for each in operators)))
    return steps


def test_a_model_that_is_true_is_found() -> None:
    steps = random_steps(np.random.default_rng(0), 40)
    found = fit(steps, CEILINGS, CACHE_BYTES)
    assert found.error < 0.01
    assert found.steps == 40
    for step in random_steps(np.random.default_rng(1), 10):
        total = predicted(Device(CEILINGS, found), step.operators).total_s
        assert total == pytest.approx(step.seconds, rel=0.05)
    again = Costs.from_dict(found.to_dict())
    assert again == found


def test_one_that_was_disturbed_hardly_counts() -> None:
    steps = random_steps(np.random.default_rng(0), 40)
    slow = tuple(Measured(m.kind, m.work, 20 * m.seconds) for m in steps[3].operators)
    found = fit([*steps[:3], Step(slow, 20 * steps[3].seconds), *steps[4:]], CEILINGS)
    assert found.error < 0.03
    assert len(steps) >= FOLDS


def test_bytes_that_the_cache_holds_wait_for_cores() -> None:
    for size, near in ((CACHE_BYTES / 2, 1.0), (4 * CACHE_BYTES, 0.25)):
        terms = DEVICE.terms("dense update", Work(calls=0, stream_bytes=size))
        assert terms.compute_s == pytest.approx(near * terms.total_s)
        cached_s = DEVICE.cached_s("dense update", Work(calls=0, stream_bytes=size))
        assert cached_s == pytest.approx(terms.compute_s)


def test_a_kind_that_was_never_measured_counts_as_layers() -> None:
    work = Work(stream_bytes=1e6)
    assert DEVICE.terms("novel", work) == DEVICE.terms("layers", work)
    assert set(WEIGHTS) == set(COSTS.weights)


def test_rates_grow_with_threads_by_a_power() -> None:
    assert exponent({1: 10.0, 2: 20.0}) == 1.0
    assert exponent({1: 10.0, 4: 20.0}) == pytest.approx(0.5)
    assert exponent({1: 10.0, 2: 9.0}) == 0.0
    assert exponent({1: 10.0, 2: 30.0}) == 1.0
    assert exponent({2: 10.0}) == 1.0


@pytest.mark.parametrize("train", [True, False])
def test_other_numbers_are_predicted_from_other_work(train: bool) -> None:
    config = TrainConfig(
        model=DLRMConfig(dim=32, bottom=(64,), top=(64,), tables=TablesConfig()), precision="fp32"
    )
    of = Predictor(machine(), config, SCHEMA, train)
    shape = Shape(512)
    today = [of.terms(part).total_s for part in of.parts(shape)]
    assert of.rows() == ["bf16", "int8", "int4"]
    assert of.precisions() == ["bf16"]
    lookups = [i for i, part in enumerate(of.parts(shape)) if part.kind == "lookup"]
    sizes = [sum(of.with_rows(shape, to)[i] for i in lookups) for to in ("fp32", "bf16", "int8")]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(of.with_rows(shape, "fp32")) == pytest.approx(sum(today))
    assert sum(of.with_precision(shape, "fp32")) == pytest.approx(sum(today))
    assert sum(of.with_precision(shape, "bf16")) < sum(today)
    for part in of.parts(shape, precision="bf16"):
        assert not part.kind.endswith("fp32")
    whole = of.step_s(of.parts(shape))
    assert whole == pytest.approx(sum(today) + of.other.total_s)
    assert (of.other != Terms()) == train
