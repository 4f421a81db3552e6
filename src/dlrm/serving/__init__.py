"""A server of trained models: requests in, batches through one predictor, scores out."""
