"""`dlrm.Regressor`: the models as a scikit-learn regressor.

regressor = dlrm.Regressor(model="dlrm").fit(X, y)
regressor.predict(X)
"""

from typing import Any

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

    def _labels(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """Check y and return it as numbers; see `Estimator.fit`."""
        from sklearn.utils.validation import assert_all_finite

        y = np.asarray(y, dtype=np.float64)
        assert_all_finite(y, input_name="y")
        if (y == y[0]).all():
            raise EstimatorError(
                f"y has one value alone, {y[0]:g}, in {len(y)} sample(s): there is nothing to learn"
            )
        return y

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the prediction of each row (n,)."""
        return self._logits(X)
