"""`dlrm.Regressor`: the models as a scikit-learn regressor.

regressor = dlrm.Regressor(model="dlrm").fit(X, y)
regressor.predict(X)
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import EstimatorError
from dlrm.estimators.estimator import Estimator
from dlrm.estimators.sklearn_base import RegressorMixin


class Regressor(RegressorMixin, Estimator):
    """A model of the catalogue that learns a number from a table.

    Its parameters are those of `dlrm.estimators.estimator.Estimator`.
    """

    task = "regression"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        Args:
            X: A frame of pandas or Polars; or an array (n, features) of numbers, NaN where missing.
            y: (n,) numbers.
            sample_weight: (n,) how much each row counts, at least 0; None for 1 each.

        Raises:
            ValueError: X, y, a weight or a parameter is not what it should be.
            DivergedError: The loss is no longer a number.

        """
        from sklearn.utils.validation import assert_all_finite

        frame, y = self._checked(X, y)
        y = np.asarray(y, dtype=np.float64)
        assert_all_finite(y, input_name="y")
        if (y == y[0]).all():
            raise EstimatorError(
                f"y has one value alone, {y[0]:g}, in {len(y)} sample(s): there is nothing to learn"
            )
        self._train(X, frame, y, sample_weight)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the prediction of each row (n,)."""
        return self._logits(X)
