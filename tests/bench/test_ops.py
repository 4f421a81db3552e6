"""Single operators: what they have to do against counting, what they do, and what goes wrong."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlrm.bench import batches, operators, timed
from dlrm.bench import operator as nouns
from dlrm.bench import sweep as sweeps
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.operator import Case, Operator, Setting, Stock
from dlrm.bench.operators import OPERATORS
from dlrm.bench.processes import answers
from dlrm.bench.sweep import candidates, sweep, values
from dlrm.bench.timed import Candidate, Outcome
from dlrm.bench.timer import Timing
from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.planning.caches import distinct
from dlrm.planning.ceilings import Ceilings, GatherPoint
from dlrm.planning.costs import least
from dlrm.planning.facts import free_bytes
from dlrm.planning.work import Product, Random, Work

TINY = Setting(batch=6, tables=3, rows=50, dim=8, widths=(5, 4, 3))
HERE = [name for name, operator in OPERATORS.items() if operator.processes == 1]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few inputs, and rounds of few steps."""
    monkeypatch.setattr(batches, "cache_bytes", lambda: 2_000)
    monkeypatch.setattr(timed, "ROUND_S", 0.0)
    monkeypatch.setattr(operators, "WINDOW_ROWS", 64)


@pytest.fixture
def stock() -> Iterator[Stock]:
    with Stock() as stock:
        yield stock


def ran(outcomes: Iterator[list[Outcome]]) -> list[Outcome]:
    return [outcome for part in outcomes for outcome in part]


def nothing(count: int) -> None:
    pass


# What has to be done


def test_the_flops_of_an_mlp_are_those_that_torch_counts() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU())
    x = torch.randn(6, 5, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    work = OPERATORS["mlp"].work(TINY)
    assert sum(product.flops for product in work.products) == counter.get_total_flops()
    assert work.flops == counter.get_total_flops() + 3 * 6 * (4 + 3)


def test_the_bytes_of_an_mlp_are_those_of_its_tensors() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU())
    x = torch.randn(6, 5)
    first = net[1](net[0](x))
    out = net(x)
    activations = 3 * x.nbytes + 2 * first.nbytes + 2 * out.nbytes + out.nbytes
    parameters = 3 * sum(p.nbytes for p in net.parameters())
    assert OPERATORS["mlp"].work(TINY).bytes == activations + parameters
    narrow = OPERATORS["mlp"].work(replace(TINY, precision="bf16"))
    assert narrow.bytes == activations / 2 + parameters
    assert narrow.dtype == "bf16"


def test_the_flops_of_the_interaction_are_those_of_its_dot_products() -> None:
    vectors = torch.randn(6, 4, 8, requires_grad=True)
    i, j = torch.tril_indices(4, 4, -1)
    with FlopCounterMode(display=False) as counter:
        left = vectors[:, i].reshape(-1, 1, 8)
        (left @ vectors[:, j].reshape(-1, 8, 1)).sum().backward()
    assert OPERATORS["interaction"].work(TINY).flops == counter.get_total_flops()


def test_the_bytes_of_the_interaction_are_those_of_its_tensors(stock: Stock) -> None:
    for precision in ("fp32", "bf16"):
        setting = replace(TINY, precision=precision)
        case = OPERATORS["interaction"].build(setting, stock)
        x, e, grad = case.inputs[0]
        out, dx, de = case.run(case.inputs[0])  # pyright: ignore[reportGeneralTypeIssues]
        assert out.dtype == dx.dtype == grad.dtype
        there, back = (x, e, out), (x, e, grad, dx, de)
        expected = sum(tensor.nbytes for tensor in (*there, *back))
        assert OPERATORS["interaction"].work(setting).bytes == expected


@pytest.mark.parametrize("pooling", [1, 4])
@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
def test_the_bytes_of_a_lookup_are_those_of_its_tensors(
    stock: Stock, pooling: int, storage: Any
) -> None:
    setting = replace(TINY, pooling=pooling, storage=storage)
    case = OPERATORS["lookup"].build(setting, stock)
    given = [tensor for tensor in case.inputs[0] if isinstance(tensor, Tensor)]
    vectors = case.run(case.inputs[0])
    assert isinstance(vectors, Tensor)
    work = OPERATORS["lookup"].work(setting)
    rows = 8 * given[0].numel()
    assert work.stream_bytes == sum(each.nbytes for each in given) + rows + vectors.nbytes
    (random,) = work.random
    assert random.accesses == case.inputs[0].ids.numel()
    weight = stock.tables(setting).weight
    assert random.row_bytes == weight.nbytes // len(weight)
    assert random.tables_bytes == weight.nbytes
    assert work.flops == (pooling - 1) * vectors.numel()


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_an_update_touches_the_rows_of_the_tables_and_of_their_state(
    stock: Stock, optim: str, storage: Any
) -> None:
    setting = replace(TINY, optim=optim, storage=storage)
    case = OPERATORS["update"].build(setting, stock)
    case.run(case.inputs[0])
    tables, optimizer = stock.tables(setting), stock.optimizer(setting)
    state = [each for each in optimizer.state[tables.weight].values() if len(each) == 150]
    work = OPERATORS["update"].work(setting)
    kept = sum(each.nbytes for each in (tables.weight, *state))
    assert sum(each.tables_bytes for each in work.random) == kept
    assert work.tables_bytes == kept
    touched = distinct(setting.all_rows, setting.shape)
    assert all(each.written and each.accesses == touched for each in work.random)
    assert touched == pytest.approx(150 * (1 - (1 - 1 / 150) ** 18), rel=0.01)


@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_a_dense_update_moves_parameters_gradients_and_state(stock: Stock, optim: str) -> None:
    case = OPERATORS["dense_update"].build(setting := replace(TINY, optim=optim), stock)
    optimizer = case.inputs[0]
    case.run(optimizer)
    read = written = 0
    for parameter in optimizer.param_groups[0]["params"]:
        state = [s for s in optimizer.state[parameter].values() if s.shape == parameter.shape]
        kept = sum(each.nbytes for each in (parameter, *state))
        read, written = read + kept + parameter.grad.nbytes, written + kept
    assert OPERATORS["dense_update"].work(setting).bytes == read + written


def test_the_bytes_of_a_loss_are_those_of_its_tensors(stock: Stock) -> None:
    case = OPERATORS["loss"].build(TINY, stock)
    logits, labels = case.inputs[0]
    (grad,) = case.run(case.inputs[0])  # pyright: ignore[reportGeneralTypeIssues]
    there, back = (logits, labels), (logits, labels, grad)
    expected = sum(tensor.nbytes for tensor in (*there, *back))
    assert OPERATORS["loss"].work(TINY).bytes == expected
    assert grad == pytest.approx((torch.sigmoid(logits) - labels).detach() / 6)


@pytest.mark.parametrize("pooling", [1, 2])
def test_the_bytes_of_a_loaded_batch_are_those_of_its_tensors(stock: Stock, pooling: int) -> None:
    case = OPERATORS["loader"].build(setting := replace(TINY, pooling=pooling), stock)
    batch = next(case.inputs[0].epoch())
    tensors = [batch.dense, batch.ids, batch.labels]
    if pooling > 1:
        assert batch.lists.lengths.eq(pooling).all()
        tensors += [batch.lists.values, batch.lists.offsets[1:]]
    made = sum(tensor.nbytes for tensor in tensors)
    # A label has one byte on disk.
    assert OPERATORS["loader"].work(setting).bytes == made + made - 3 * 6
    assert case.batches == len(case.inputs[0])
    assert case.again_batches == len(case.again[0]) == 11
    assert case.run(case.inputs[0]) is None


def test_the_bytes_of_an_exchange_are_the_vectors_of_the_batch() -> None:
    assert OPERATORS["exchange"].work(TINY).bytes == 2 * 4 * 6 * 3 * 8


@pytest.mark.parametrize("name", HERE)
def test_twice_the_batch_is_twice_the_work(name: str) -> None:
    operator = OPERATORS[name]
    # Of so many rows hardly one is looked up twice.
    setting = replace(TINY, widths=(512, 256), rows=10**10)
    once, twice = (operator.work(replace(setting, batch=batch)) for batch in (6, 12))
    factor = 2 if "batch" in operator.fields else 1
    assert twice.flops == pytest.approx(factor * once.flops)
    fixed = 12 * (512 * 256 + 256) if name == "mlp" else 0
    assert twice.bytes - fixed == pytest.approx(factor * (once.bytes - fixed))


# What is done


def test_a_lookup_gives_the_rows(stock: Stock) -> None:
    case = OPERATORS["lookup"].build(TINY, stock)
    weight = stock.tables(TINY).weight
    with torch.no_grad():
        weight.copy_(torch.randn_like(weight))
    block = case.inputs[1]
    assert block.offsets is None
    expected = weight.view(3, 50, 8)[torch.arange(3), block.ids.long()]
    assert torch.equal(case.run(case.inputs[1]), expected)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pooling", [1, 4])
@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_an_update_changes_exactly_the_rows_that_were_looked_up(
    stock: Stock, optim: str, pooling: int
) -> None:
    setting = replace(TINY, optim=optim, pooling=pooling, rows=400)
    case = OPERATORS["update"].build(setting, stock)
    weight = stock.tables(setting).weight
    ids = nouns.draw(setting, len(case.inputs))[1].ids
    rows = ids.long().view(6, 3, pooling) + torch.tensor(stock.tables(setting).starts)[:, None]
    before = weight.detach().clone()
    case.run(case.inputs[1])
    changed = (weight != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == rows.unique().tolist()
    assert weight.grad is None
    # The batch comes round again.
    case.run(case.inputs[1])


def test_sgd_subtracts_the_gradient(stock: Stock) -> None:
    case = OPERATORS["update"].build(TINY, stock)
    tables = stock.tables(TINY)
    expected = tables.weight.detach().clone()
    ids = nouns.draw(TINY, len(case.inputs))[0].ids
    rows = (ids + torch.tensor(tables.starts)).flatten()
    expected.index_add_(0, rows, case.inputs[0][1].reshape(-1, 8), alpha=-LEARNING_RATE)
    case.run(case.inputs[0])
    assert torch.allclose(tables.weight, expected)


def test_an_mlp_gives_gradients_of_all_it_has(stock: Stock) -> None:
    case = OPERATORS["mlp"].build(TINY, stock)
    out, dx, *of_parameters = case.run(case.inputs[0])  # pyright: ignore[reportGeneralTypeIssues]
    assert [each.shape for each in (out, dx)] == [(6, 3), (6, 5)]
    assert [tuple(each.shape) for each in of_parameters] == [(4, 5), (4,), (3, 4), (3,)]


@pytest.mark.parametrize("name", HERE)
def test_inputs_and_results_are_several_times_the_cache(
    name: str, stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 300_000)
    setting = replace(TINY, batch=128, dim=16, widths=(64, 32, 16))
    case = OPERATORS[name].build(setting, stock)
    turning = _bytes(case.inputs) + len(case.inputs) * _bytes(case.run(case.inputs[0]))
    work = OPERATORS[name].work(setting)
    assert turning >= 2 * 300_000
    if name != "loader":
        # Windows of files are read beside each other.
        assert turning <= work.tables_bytes + OPERATORS[name].inputs_bytes(setting)


def _bytes(of: Any) -> int:
    """Return the bytes of the tensors that are somewhere within."""
    match of:
        case Tensor():
            return of.nbytes
        case torch.optim.Optimizer():
            return sum(2 * p.nbytes for p in of.param_groups[0]["params"])
        case list() | tuple():
            return sum(map(_bytes, of))
        case int() | None:
            return 0
    split = of.split
    lists = () if split.lists is None else split.lists
    return sum(array.nbytes for array in (split.dense, split.ids, split.labels, *lists))


@pytest.mark.parametrize("pooling", [1, 3])
def test_ids_stay_within_their_tables_in_bags_of_that_many(pooling: int) -> None:
    setting = replace(TINY, pooling=pooling, rows=7, ids="zipf")
    for _, ids, offsets in nouns.draw(setting, 5):
        assert ids.numel() == 6 * 3 * pooling
        assert 0 <= int(ids.min()) <= int(ids.max()) < 7
        if pooling > 1:
            assert offsets is not None
            assert offsets.tolist() == list(range(0, 18 * pooling + 1, pooling))


def test_candidates_with_equal_tables_share_them(stock: Stock) -> None:
    first = stock.tables(TINY)
    assert stock.tables(replace(TINY, batch=99, optim="adam")) is first
    assert stock.tables(replace(TINY, dim=4)) is not first
    assert stock.optimizer(TINY) is stock.optimizer(replace(TINY, batch=99))
    assert stock.optimizer(TINY) is not stock.optimizer(replace(TINY, optim="adam"))


# Sweeps


LISTS: dict[str, list[Any]] = {
    "batch": [4, 8], "tables": [2], "rows": [20, 30], "dim": [4], "widths": [(4, 2)],
    "threads": [1],
}  # fmt: skip


def test_a_sweep_is_the_product_of_what_matters() -> None:
    assert len(candidates(["lookup"], LISTS, 1)) == 4
    assert len(candidates(["mlp"], LISTS, 1)) == 2
    assert len(candidates(["dense_update"], LISTS, 1)) == 1
    with pytest.raises(ConfigError, match='unknown operator "lokup"; choose one of: lookup, upd'):
        candidates(["lokup"], LISTS, 1)


def test_every_candidate_is_measured_cold_and_warm() -> None:
    ticks: list[int] = []
    every = candidates(HERE, LISTS, 1)
    found = ran(sweep(every, 3, ticks.append))
    assert {each.candidate.operator.name for each in found} == set(HERE)
    assert len(found) == len(every)
    for each in found:
        assert each.error is None
        assert each.cold is not None
        assert each.warm is not None
        assert len(each.cold.seconds) == len(each.warm.seconds) == 3
        assert min(each.cold.seconds) > 0
    assert sum(ticks) == len(every) * 4


def test_threads_are_those_of_the_setting_and_put_back() -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    operator = replace(
        OPERATORS["loss"],
        build=lambda setting, stock: _case(lambda given: seen.append(torch.get_num_threads())),
    )
    every = [Candidate(operator, replace(TINY, threads=count)) for count in (1, 2)]
    with Stock() as stock:
        timed.measure(every, stock, 2, nothing)
    assert set(seen) == {1, 2}
    assert torch.get_num_threads() == before


def _case(run: Any, inputs: Any = (1, 2)) -> Any:
    return Case(run, inputs)


def _broken(error: Exception, when: int) -> Operator:
    """Return an operator that raises when it has run so many times; 0 while it is built."""

    def build(setting: Setting, stock: Stock) -> Any:
        runs = iter(range(1, 1000))

        def run(given: object) -> None:
            if setting.batch == 8 and next(runs) >= when:
                raise error

        if setting.batch == 8 and not when:
            raise error
        return _case(run)

    return replace(OPERATORS["loss"], build=build)


@pytest.mark.parametrize("when", [0, 1, 7])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("kernel has ended\nat line 3"), "RuntimeError: kernel has ended"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_fails_is_a_row_and_the_rest_is_kept(when: int, error: Exception, said: str) -> None:
    operator = _broken(error, when)
    every = [Candidate(operator, replace(TINY, batch=batch)) for batch in (4, 8, 16)]
    with Stock() as stock:
        found = timed.measure(every, stock, 4, nothing)
    assert [each.error for each in found] == [None, said, None]
    row = values(found[1], CEILINGS)
    assert row["error"] == said
    assert row["ms"] is row["roofline_share"] is row["bound"] is row["gflops_per_s"] is None
    assert values(found[2], CEILINGS)["ms"] > 0


def test_ctrl_c_is_no_failure() -> None:
    operator = replace(OPERATORS["loss"], build=lambda setting, stock: _case(_interrupt))
    with Stock() as stock, pytest.raises(KeyboardInterrupt):
        timed.measure([Candidate(operator, TINY)], stock, 2, nothing)


def _interrupt(given: object) -> None:
    raise KeyboardInterrupt


# Memory


def test_what_does_not_fit_is_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("allocated")

    monkeypatch.setattr(torch, "empty", never)
    monkeypatch.setattr(batches, "draw_ids", never)
    monkeypatch.setattr(EmbeddingCollection, "__init__", never)
    huge = Setting(rows=10**12, tables=8, dim=64)
    for name in ("lookup", "update"):
        with pytest.raises(ConfigError) as caught:
            sweep([Candidate(OPERATORS[name], huge)], 2, nothing, free=18 * 10**9)
        said = str(caught.value)
        assert said.startswith(f"tables of {name} (8 x 1,000,000,000,000 rows x 64 numbers, batch")
        assert "need 2048.0 TB, 18.0 GB are free; --rows " in said
    with pytest.raises(ConfigError, match="batches of interaction"):
        sweep([Candidate(OPERATORS["interaction"], Setting(batch=10**9))], 2, nothing, free=10**9)
    with pytest.raises(ConfigError, match="rounds is 0, expected at least 1"):
        sweep([], 0, nothing)


@pytest.mark.parametrize("name", ["lookup", "update"])
def test_the_rows_that_would_fit_do_fit(name: str) -> None:
    setting = Setting(rows=10**9, batch=128, dim=16)
    with pytest.raises(ConfigError) as caught:
        sweeps.check([Candidate(OPERATORS[name], setting)], 4 * 10**9)
    rows = int(str(caught.value).rpartition("--rows ")[2].split("M")[0]) * 10**6
    sweeps.check([Candidate(OPERATORS[name], replace(setting, rows=rows))], 4 * 10**9)
    with pytest.raises(ConfigError):
        sweeps.check([Candidate(OPERATORS[name], replace(setting, rows=rows + 10**6))], 4 * 10**9)


def test_parts_fit_into_memory_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(setting: Setting) -> Work:
        return Work(random=(Random(1.0, 1, (setting.rows,)),), stream_bytes=setting.batch)

    monkeypatch.setattr(nouns, "turns", lambda bytes_: -0.5)
    operator = replace(OPERATORS["lookup"], counted=counted)
    every = [
        Candidate(operator, replace(TINY, rows=rows, batch=batch))
        for batch in (10, 20)
        for rows in (100, 300, 500)
    ]
    whole = list(sweeps.parts(every, 10_000))
    assert len(whole) == 1
    parts = list(sweeps.parts(every, 800))
    assert sorted(map(str, (each for part in parts for each in part))) == sorted(map(str, every))
    for part in parts:
        tables = {each.setting.rows for each in part}
        together = sum(tables) + sum(each.setting.batch for each in part)
        assert together <= sweeps.SHARE * 800
    # Both batches of the same tables are measured beside each other.
    assert {each.setting.batch for each in parts[-1]} == {10, 20}
    assert 10**8 < (free_bytes() or 10**9) < 10**15


def need(operator: Operator, setting: Setting) -> int:
    return operator.work(setting).tables_bytes + operator.inputs_bytes(setting)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_memory_grows_with_the_setting(name: str) -> None:
    operator, small = OPERATORS[name], Setting(batch=16384, rows=10**6, dim=16)
    large = replace(small, batch=65536, rows=10**7, dim=64, widths=(1024, 1024))
    assert 0 < need(operator, small) < need(operator, large)


# Rows


CEILINGS = Ceilings(
    threads=2,
    copy={1: 1e10, 2: 2e10},
    flops={"fp32": {1: 1e11, 2: 2e11}},
    gather=tuple(
        GatherPoint(row, table, seconds * (1 + row / 64))
        for row in (64, 512)
        for table, seconds in ((1 << 16, 1e-9), (1 << 20, 2e-9), (1 << 24, 4e-9), (1 << 30, 8e-9))
    ),
    gather_by_threads={1: 5e7, 2: 1e8},
    call_s=1e-6,
    spread={},
)


def test_a_row_has_the_figures_of_the_middle_round() -> None:
    setting = replace(TINY, batch=10**6, threads=2)
    cold, warm = (Timing(name, [x * 1e-3 for x in (1, 2, 3)]) for name in ("cold", "warm"))
    row = values(Outcome(Candidate(OPERATORS["mlp"], setting), cold, warm), CEILINGS)
    work = OPERATORS["mlp"].work(setting)
    assert (row["operator"], row["batch"], row["widths"], row["threads"]) == (
        "mlp",
        10**6,
        "5-4-3",
        2,
    )
    assert row["rows"] is row["dim"] is row["ids"] is row["optim"] is row["error"] is None
    assert (row["ms"], row["warm_ms"]) == (2.0, 2.0)
    assert row["ms_low"] <= 2.0 <= row["ms_high"]
    assert 2.0 <= row["p95_ms"] <= 3.0
    assert row["gflops_per_s"] == pytest.approx(work.flops / 2e-3 / 1e9)
    assert row["gb_per_s"] == pytest.approx(work.bytes / 2e-3 / 1e9)
    assert row["roofline_ms"] == pytest.approx(work.bytes / 3e10 * 1e3)
    assert row["roofline_share"] == pytest.approx(row["roofline_ms"] / 2.0)
    assert row["bound"] == "memory bandwidth"
    assert values(Outcome(Candidate(OPERATORS["mlp"], setting), cold, warm), None)["bound"] is None


def test_the_least_time_is_the_longest_of_what_limits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 1 << 20)
    rows = Random(1e6, 64, (1 << 24,))
    near = Random(1e6, 64, (1 << 10,))
    product = Product(1000, 1000, 1000)
    alone = [
        (Work(calls=0, products=(product,)), 2e9 / 2e11, "compute"),
        (Work(calls=0, scalar_flops=2e9), 2e9 / 2e11, "compute"),
        (Work(calls=0, stream_bytes=3e9), 0.1, "memory bandwidth"),
        (Work(calls=0, random=(rows,)), 1e6 * CEILINGS.row_s(1 << 30, 64), "memory latency"),
        (Work(calls=0, random=(near,)), 1e6 * CEILINGS.row_s(1 << 16, 64), "memory latency"),
    ]
    for work, seconds, bound in alone:
        assert least(work, CEILINGS, 1 << 20) == (pytest.approx(seconds, rel=0.1), bound)
    both = least(alone[0][0] + alone[2][0], CEILINGS, 1 << 20)
    assert both == (pytest.approx(0.1), "memory bandwidth")
    # Calls are said where nothing takes longer, but are no limit of a machine.
    assert least(Work(calls=5, stream_bytes=300), CEILINGS, 1 << 20) == (
        pytest.approx(1e-8),
        "calls",
    )


def test_rows_that_are_written_back_cost_bytes_and_no_more_waiting() -> None:
    read = Work(random=(Random(1e6, 64, (1 << 24,)),))
    written = Work(random=(Random(1e6, 64, (1 << 24,), written=True),))
    assert least(written, CEILINGS, 1 << 20) == least(read, CEILINGS, 1 << 20)
    wide = Work(random=(Random(1e6, 4096, (1 << 20,), written=True),))
    slow = replace(CEILINGS, copy={2: 1e9})
    assert least(wide, slow, 1 << 20)[0] == pytest.approx(1e6 * 8192 / 1.5e9, rel=0.01)


def test_rows_that_are_added_up_are_not_each_written(stock: Stock) -> None:
    near = replace(CEILINGS, copy={2: 1e15})
    lookup = OPERATORS["lookup"]
    one = Setting(batch=10_000, dim=128, threads=2)
    alone_s, _ = least(lookup.work(one), near, 1 << 20)
    together_s, _ = least(lookup.work(replace(one, batch=100, pooling=100)), near, 1 << 20)
    first_lines_s = 80_000 * CEILINGS.row_s(1 << 30, 64)
    assert first_lines_s * 0.95 < together_s < 1.15 * first_lines_s < 0.5 * alone_s


def test_rows_that_are_added_up_take_what_was_measured_of_such() -> None:
    near = replace(CEILINGS, copy={2: 1e15})
    summed = tuple(replace(point, row_s=point.row_s / 2) for point in CEILINGS.gather)
    can, rows = replace(near, summed=summed), (Random(1e6, 512, (1 << 21,)),)
    full_s = 1e6 * CEILINGS.row_s(1 << 30, 512)
    for streamed, seconds in ((0.0, 0.5 * full_s), (0.5, 0.75 * full_s), (1.0, full_s)):
        work = Work(random=rows, stream_bytes=streamed * 512e6)
        assert work.streamed == streamed
        assert least(work, can, 1 << 20)[0] == pytest.approx(seconds, rel=0.1)
    one = replace(CEILINGS, summed=summed).with_threads(1)
    assert one.summed[0].row_s == pytest.approx(2 * summed[0].row_s)


def test_fewer_threads_have_lower_ceilings() -> None:
    one = CEILINGS.with_threads(1)
    assert one.threads == 1
    assert one.row_s(1 << 30, 64) == pytest.approx(2 * CEILINGS.row_s(1 << 30, 64))
    assert CEILINGS.with_threads(2) is CEILINGS
    assert CEILINGS.with_threads(64).threads == 2


# Several processes


def test_an_exchange_is_timed_by_two_processes() -> None:
    (found,) = ran(sweep(candidates(["exchange"], {"batch": [8], "dim": [4]}, 2), 2, nothing))
    assert found.error is None
    assert found.cold is not None
    assert len(found.cold.seconds) == 2
    assert min(found.cold.seconds) > 0


def test_processes_that_end_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answers(words: list[str], count: int, task: dict[str, Any]) -> list[Any]:
        asked.append(len(task["candidates"]))
        if any(setting["batch"] == 8 for _, setting in task["candidates"]):
            raise ConfigError("gone")
        return [[([1.0] * 3, [0.5] * 3) for _ in task["candidates"]], None]

    monkeypatch.setattr(timed, "answers", answers)
    every = candidates(["exchange"], {"batch": [4, 8]}, 1)
    ticks: list[int] = []
    found = timed.measure_apart(every, 3, ticks.append)
    assert asked == [2, 1, 1]
    assert [each.error for each in found] == [None, "gone"]
    assert sum(ticks) == 2 * 4


def test_the_last_words_of_a_process_are_kept() -> None:
    with pytest.raises(ConfigError, match=r"has ended: Oh: no$"):
        answers(["-c", "import sys; sys.exit('some\\nOh: no')"], 2, None)
    with pytest.raises(ConfigError, match="a process ended with 3"):
        answers(["-c", "raise SystemExit(3)"], 1, None)


def test_an_exchange_takes_two_processes(stock: Stock) -> None:
    with pytest.raises(ConfigError, match="an exchange takes 2 processes, found 1"):
        OPERATORS["exchange"].build(TINY, stock)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch is 0, expected at least 1"),
        ({"dim": -4}, "dim is -4, expected at least 1"),
        ({"widths": (512,)}, "widths are 512, expected inputs and outputs"),
        ({"ids": "normal"}, 'unknown ids "normal"; choose one of: uniform, zipf'),
        ({"storage": "fp8"}, 'unknown storage "fp8"; choose one of: fp32, bf16'),
        ({"optim": "lion"}, 'unknown optimizer "lion"; choose one of: sgd'),
        ({"precision": "int1"}, 'unknown precision "int1"; choose one of: fp32, bf16'),
    ],
)
def test_settings_without_meaning_are_quoted(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Setting(**fields)
