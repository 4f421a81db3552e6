"""The page of a plan."""

from dlrm.planning.footprint import Data
from dlrm.planning.placement import plan
from dlrm.planning.planned import World, planned
from dlrm.planning.shards import Table
from dlrm.recipes import find
from dlrm.reporting.page import render
from dlrm.reporting.plan import SMALL, conclusion, page, stacked
from dlrm.schema import Schema


def made(size: int, memory_bytes: int):
    sizes = (2_000_000, 1_000_000, 300_000, 20_000, 500, 500, 20)
    data = Data(Schema.one_hot(13, sizes), {"train": 1000}, {})
    return planned(find("demo")(), data, World(size=size, memory_bytes=memory_bytes))


def test_equal_plans_give_equal_pages():
    html = render(page(made(4, 10**10), "seven tables"))
    assert html == render(page(made(4, 10**10), "seven tables"))
    for said in ("dlrm on seven tables", "It fits 4 devices", "rows of tables", "embeddings/C1"):
        assert said in html
    assert "<script>alert" not in render(page(made(1, 10**10), "<script>alert"))


def test_what_does_not_fit_is_said():
    refused = made(2, 10**8)
    assert not refused.fits
    assert conclusion(refused).startswith("It does not fit: ")
    assert "Not drawn" in render(page(refused, "x"))


def test_stacks_are_as_high_as_the_memory():
    many = [Table(f"t{t}", 10 ** (t % 6 + 1), 16, 64) for t in range(100)]
    placed = plan(many, 8)
    drawn = stacked(placed, placed.shard_bytes)
    heights = [sum(part.value for part in parts) for parts in drawn]
    assert heights == [float(memory) for memory in placed.memory_bytes]
    small = SMALL * max(heights)
    for parts in drawn:
        # Of each kind, small ones are one part.
        assert len([part for part in parts if part.value < small]) <= 4
