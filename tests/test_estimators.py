"""Scikit-learn's own checks of the estimators."""

from typing import Any

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

import dlrm

LEARNS: dict[str, Any] = {
    "Classifier": dlrm.Classifier(epochs=5, batch_size=32, lr=0.03, patience=0),
    "Regressor": dlrm.Regressor(epochs=40, batch_size=32, lr=0.01, patience=0),
}
WHOLE = (
    "whole numbers in a pandas frame may be categories, those of an array are numbers: the same "
    "values need not make the same model"
)
LEARNT = {"check_classifiers_train", "check_regressors_train"}
"""Checks of how well it has learnt; the others need no more than two epochs."""
NOT_APPLICABLE = {
    "check_classifier_data_not_an_array": WHOLE,
    "check_regressor_data_not_an_array": WHOLE,
    "check_array_api_input": "arrays outside numpy are not taken",
    "check_sample_weight_equivalence_on_dense_data": "rows are drawn at random to validate on and "
    "into batches, so that a row twice is not a row of twice the weight",
}
"""Checks of scikit-learn that cannot apply, and why."""
CHECKS: dict[tuple[str, str], list[Any]] = {}
for _kind, _estimator in LEARNS.items():
    checks: Any = estimator_checks_generator(_estimator, legacy=True)
    for _, _check in checks:
        _name = getattr(_check, "func", _check).__name__
        CHECKS.setdefault((_kind, _name), []).append(_check)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name in CHECKS if name not in NOT_APPLICABLE]
)
def test_scikit_learn_takes_it_for_an_estimator(kind, name):
    for check in CHECKS[kind, name]:
        estimator: Any = clone(LEARNS[kind])
        check(estimator if name in LEARNT else estimator.set_params(epochs=2))


def test_what_cannot_apply_is_there():
    assert set(NOT_APPLICABLE) <= {name for _, name in CHECKS}
