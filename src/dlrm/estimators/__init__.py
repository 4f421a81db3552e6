"""The models as scikit-learn estimators: `dlrm.Classifier` and `dlrm.Regressor`."""
