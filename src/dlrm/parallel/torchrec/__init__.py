"""TorchRec as the engine of a run's tables, instead of our own."""
