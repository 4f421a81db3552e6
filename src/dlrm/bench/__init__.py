"""Measuring: one timer, the training step and the embeddings beside their peers, the limit."""
