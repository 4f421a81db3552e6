"""Base classes from scikit-learn for the estimators, or stand-ins where it is not installed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    HAS_SKLEARN = True
else:
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

        HAS_SKLEARN = True
    except ImportError:
        # The names stay importable; the error comes with the first use, and says what to install.
        class BaseEstimator:
            """Stands in for scikit-learn's."""

        class ClassifierMixin:
            """Stands in for scikit-learn's."""

        class RegressorMixin:
            """Stands in for scikit-learn's."""

        HAS_SKLEARN = False

__all__ = ["HAS_SKLEARN", "BaseEstimator", "ClassifierMixin", "RegressorMixin"]
