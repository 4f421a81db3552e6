"""The kernels behind embeddings, interactions and sparse updates; `reference` is the oracle."""
