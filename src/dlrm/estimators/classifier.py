"""`dlrm.Classifier`: the models as a scikit-learn classifier.

classifier = dlrm.Classifier(model="dlrm").fit(X, y)
classifier.predict_proba(X)
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import EstimatorError
from dlrm.estimators.estimator import Estimator
from dlrm.estimators.sklearn_base import ClassifierMixin
from dlrm.metrics import sigmoid

CLASSES_FILE = "classes.json"
"""File with the names of the two labels, beside what every run has."""


class Classifier(ClassifierMixin, Estimator):
    """A model of the catalogue that learns a binary label from a table.

    Its parameters are those of `dlrm.estimators.estimator.Estimator`.

    Attributes:
        classes_: (2,) the labels, sorted; the second one is the click.

    """

    task = "classification"
    classes_: NDArray[Any]

    def _labels(self, y: NDArray[Any]) -> NDArray[np.uint8]:
        """Check y and return 0 or 1 for each row; see `Estimator.fit`."""
        from sklearn.utils.multiclass import check_classification_targets, type_of_target
        from sklearn.utils.validation import assert_all_finite

        # Asked first, because the next one warns of what it casts.
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise EstimatorError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}."
            )
        if len(self.classes_) < 2:
            raise EstimatorError(
                f"y has one class alone, {self.classes_[0]!r}, in {len(y)} sample(s): "
                "there is nothing to learn"
            )
        return codes.astype(np.uint8)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logit of each row (n,): above 0 where the second class is the likelier."""
        return self._logits(X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of both classes (n, 2)."""
        click = sigmoid(self.decision_function(X))
        return np.stack([1 - click, click], axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likelier class of each row (n,)."""
        likelier = (self.decision_function(X) > 0).astype(np.intp)
        return self.classes_[likelier]

    def _extra_files(self) -> dict[str, Any]:
        return {CLASSES_FILE: self.classes_.tolist()}

    def _restore(self, files: dict[str, bytes]) -> None:
        self.classes_ = np.asarray(json.loads(files.get(CLASSES_FILE, b"[0, 1]")))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
