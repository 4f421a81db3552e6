"""Predicted bytes, counted by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.planning.placement import SHARDINGS, Table, plan
from dlrm.planning.traffic import summed_bytes, traffic

ROWS, DIM, B = 1000, 8, 64


def one(sharding, world, *, pooling=1.0, features=1, lists=0, **options):
    table = Table("C1", ROWS, DIM, 4 * DIM, pooling, features=features, lists=lists)
    return traffic(plan([table], world, sharding=sharding), **options)


def test_whole_tables_send_ids_there_and_vectors_back():
    t = one("table", 4)
    # Three quarters of the samples are elsewhere: 4 bytes there, 32 back, 32 there again.
    assert t.sample_bytes == pytest.approx(0.75 * (4 + 32 + 32))
    assert t.ids_sent == pytest.approx([0, 1, 1, 1])
    assert t.vectors_sent == pytest.approx([24, 0, 0, 0])
    assert t.gradients_sent == pytest.approx([0, 8, 8, 8])
    assert t.step_bytes == 0


def test_rows_that_are_spread_cost_an_id_and_a_vector_each():
    assert one("row", 4).sample_bytes == pytest.approx(0.75 * (4 + 32 + 32))
    # Ten ids on four ranks: four sums; their lengths travel too.
    many = one("row", 4, pooling=10.0, lists=1)
    assert many.sample_bytes == pytest.approx(0.75 * (4 * (10 + 4) + 2 * 4 * 32))
    # Two ids: two sums at most.
    few = one("row", 4, pooling=2.0, lists=1)
    assert few.sample_bytes == pytest.approx(0.75 * (4 * (2 + 2) + 2 * 2 * 32))


def test_columns_get_the_ids_each():
    assert one("column", 4).sample_bytes == pytest.approx(0.75 * (4 * 4 + 32 + 32))
    bags = one("column", 2, pooling=5.0, lists=1)
    assert bags.sample_bytes == pytest.approx(0.5 * (2 * 4 * (5 + 1) + 64))


def test_features_that_share_a_table_get_a_vector_each():
    # Two single ids and a list of ten.
    shared = {"pooling": 12.0, "features": 3, "lists": 1}
    assert one("table", 4, **shared).sample_bytes == pytest.approx(
        0.75 * (4 * (12 + 1) + 2 * 3 * 32)
    )
    assert one("row", 4, **shared).sample_bytes == pytest.approx(
        0.75 * (4 * (12 + 4) + 2 * (2 + 4) * 32)
    )


def test_copies_are_summed_once_a_step():
    t = one("replicate", 4)
    assert t.sample_bytes == 0
    assert t.step_bytes == pytest.approx(2 * 0.75 * ROWS * (DIM + 1) * 4)
    assert one("table", 4, dense_bytes=400).step_bytes == summed_bytes(400, 4) == 600


def test_half_the_bytes_a_number_half_the_vectors():
    assert one("table", 4, number_bytes=2).sample_bytes == pytest.approx(0.75 * (4 + 16 + 16))


@settings(deadline=None)
@given(st.sampled_from(SHARDINGS), st.integers(1, 6), st.booleans(), st.floats(0.5, 9.0))
def test_all_that_is_sent_leaves_its_rank(sharding, world, lists, pooling):
    tables = [Table(f"C{t}", 10 ** (t + 1), DIM, 40, pooling, lists=lists) for t in range(5)]
    t = traffic(plan(tables, world, sharding=sharding), dense_bytes=100)
    leaves = (world - 1) / world
    assert t.sample_bytes == pytest.approx(leaves * (sum(t.ids) + 2 * sum(t.vectors)))
    assert (sum(t.sent) == 0) == (world == 1 or sharding == "replicate" or not sum(t.ids))
