"""The limit, against numbers computed by hand."""

import pytest
import torch

from dlrm.bench import batches, roofline
from dlrm.bench.arch import Arch
from dlrm.bench.cost.work import Product
from dlrm.bench.local_step import LocalStep
from dlrm.models.dlrm import DLRMConfig

# Bottom 13-3-2; three vectors of dimension 2 make 3 pairs, so the top is 5-4-1.
SMALL = Arch("small", (10, 20), DLRMConfig(dim=2, bottom=(3,), top=(4,)))


def test_a_product_multiplies_and_adds() -> None:
    assert Product(2, 3, 5).flops == 60


def test_the_products_of_a_step() -> None:
    assert sorted(roofline.products(SMALL, 8), key=repr) == sorted(
        [
            # Bottom: the first layer needs no gradient of its inputs.
            *(Product(8, 13, 3), Product(13, 8, 3)),
            *(Product(8, 3, 2), Product(3, 8, 2), Product(8, 2, 3)),
            *(Product(8, 5, 4), Product(5, 8, 4), Product(8, 4, 5)),
            *(Product(8, 4, 1), Product(4, 8, 1), Product(8, 1, 4)),
        ],
        key=repr,
    )
    total = sum(product.flops for product in roofline.products(SMALL, 8))
    assert total == 8 * (4 * 39 + 6 * (6 + 20 + 4))


def test_operations_of_the_interaction_and_bytes_of_the_embeddings() -> None:
    # 3 pairs of 2 numbers: a multiplication and an addition forwards, twice that backwards.
    assert roofline.interaction_flops(SMALL, 8) == 8 * 3 * 2 * 2 * 3
    # 2 tables, rows of 8 bytes, four times.
    assert roofline.embedding_bytes(SMALL, 8, "sgd") == 8 * 2 * 8 * 4
    # Halves are read by lookups; the gradient is whole; the update touches one half or both.
    assert roofline.embedding_bytes(SMALL.stored("bf16"), 8, "sgd") == 8 * 2 * 2 * (2 + 4 + 2 + 2)
    assert roofline.embedding_bytes(SMALL.stored("split"), 8, "sgd") == 8 * 2 * 2 * (2 + 4 + 4 + 4)
    # What an optimizer keeps of a row is read and written with it: of each number, or of all.
    assert roofline.embedding_bytes(SMALL, 8, "adagrad") == 8 * 2 * 8 * (4 + 2)
    assert roofline.embedding_bytes(SMALL, 8, "adam") == 8 * 2 * 8 * (4 + 4)
    assert roofline.embedding_bytes(SMALL, 8, "rowwise_adagrad") == 8 * 2 * (8 * 4 + 2 * 4)


def test_the_limit_adds_up_its_parts() -> None:
    # Every product takes 1 ms but the largest, which takes 2: there the rate peaks no more.
    largest = Product(8, 13, 3)
    peak = Product(8, 5, 4).flops / 1e-3

    def seconds(product: Product) -> float:
        return 2e-3 if product == largest else 1e-3

    # (13, 8, 3) has as many operations as the largest, in half the time.
    peak = max(peak, Product(13, 8, 3).flops / 1e-3)
    limit = roofline.limit(SMALL, 8, "sgd", seconds, gather_bytes_per_s=512_000.0)
    assert limit.gemm_s == pytest.approx(12e-3)
    assert limit.interaction_s == pytest.approx(288 / peak)
    assert limit.embedding_s == pytest.approx(512 / 512_000)
    assert limit.total_s == pytest.approx(12e-3 + 288 / peak + 1e-3)


def test_equal_products_count_as_often_as_they_occur() -> None:
    square = Arch("square", (10,), DLRMConfig(dim=4, bottom=(4, 4), top=(4,)))
    count = len(roofline.products(square, 4))
    assert roofline.limit(square, 4, "sgd", lambda _: 1.0, 1.0).gemm_s == count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_measured_is_positive_and_leaves_the_model_alone(
    precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 1000)
    monkeypatch.setattr(roofline, "BUDGET_S", 0.0)
    ours = LocalStep(SMALL, "fp32", "sgd")
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    limit = roofline.measure(
        SMALL, ours.model, batches.rotation(SMALL.schema, 8, "uniform"), precision, "sgd"
    )
    assert min(limit.gemm_s, limit.interaction_s, limit.embedding_s) > 0
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, before[name]), name
