"""Config, loop, evaluation, checkpoints."""
