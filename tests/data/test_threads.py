import threading
from collections.abc import Iterator

import pytest

from dlrm.data.threads import ahead, in_order


def numbers(stop: int, closed: list[bool]):
    try:
        yield from range(stop)
    finally:
        closed.append(True)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items(threads):
    closed: list[bool] = []
    assert list(in_order(lambda n: n * n, numbers(50, closed), threads)) == [
        n * n for n in range(50)
    ]
    assert list(ahead(numbers(50, closed))) == list(range(50))
    assert closed == [True, True]


def test_calls_run_side_by_side():
    both = threading.Barrier(2, timeout=20)
    assert len(list(in_order(lambda _: both.wait(), numbers(6, []), 2))) == 6


def test_few_items_are_taken_before_their_turn():
    taken: list[int] = []

    def watched() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda n: n, (n for n in watched()), 2)
    assert next(results) == 0
    assert len(taken) == 3
    results.close()
    assert len(taken) == 3


def test_an_error_stops_everything_and_closes_the_source():
    closed: list[bool] = []

    def fail(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    results = in_order(fail, numbers(100, closed), 2)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert closed == [True]


def test_leaving_early_closes_the_source():
    closed: list[bool] = []
    for results in (in_order(str, numbers(9, closed), 2), ahead(numbers(9, closed))):
        next(results)
        results.close()
    assert closed == [True, True]
