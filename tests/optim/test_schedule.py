import pytest

from dlrm.errors import ConfigError
from dlrm.optim.config import OptimConfig
from dlrm.optim.schedule import FLOOR, learning_rate


def test_warm_up_is_linear_then_constant():
    rates = [learning_rate(step, 0.8, warmup_steps=4) for step in range(1, 7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_decay_is_quadratic_then_stays():
    rates = [learning_rate(step, 1.0, decay_start=3, decay_steps=4) for step in range(1, 10)]
    assert rates == pytest.approx([1, 1, 1, 9 / 16, 4 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 16])


def test_without_either_nothing_changes():
    assert {learning_rate(step, 0.3) for step in range(1, 50)} == {0.3}


def test_the_decay_ends_at_the_floor():
    assert learning_rate(10**6, 1e-3, decay_start=1, decay_steps=10**6) == FLOOR


def test_a_share_decays_to_the_end_of_any_run():
    config = OptimConfig(lr=1.0, decay_share=0.5)
    for steps in (8, 80):
        rates = [config.rate(step, steps) for step in range(1, steps + 1)]
        assert rates[: steps // 2 + 1] == [1.0] * (steps // 2 + 1)
        assert rates[-1] == pytest.approx((2 / steps) ** 2)


@pytest.mark.parametrize("wrong", [{"decay_share": 1.5}, {"decay_share": 0.5, "decay_steps": 9}])
def test_shares_without_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="decay_share"):
        OptimConfig(**wrong)
