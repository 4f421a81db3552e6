"""Learning rate over time: linear warm-up, then constant, then quadratic decay."""

FLOOR = 1e-7
"""The decay ends here, as in the original."""


def learning_rate(
    step: int, base: float, *, warmup_steps: int = 0, decay_start: int = 0, decay_steps: int = 0
) -> float:
    """Return the learning rate of a step.

        step < warmup_steps:                 base * (step / warmup_steps)
        decay_start <= step < its end:       base * ((end - step) / decay_steps)^2
        from there on:                       that of the last decay step

    where end = decay_start + decay_steps.

    Args:
        step: Optimizer steps taken before this one is complete; the first step is 1.
        base: Learning rate between warm-up and decay.
        warmup_steps: Steps of linear warm-up; 0 for none.
        decay_start: First step of the decay.
        decay_steps: Steps of quadratic decay; 0 for none.

    """
    if step < warmup_steps:
        return base * step / warmup_steps
    if decay_steps and step >= decay_start:
        last = decay_start + decay_steps - 1
        remaining = decay_start + decay_steps - min(step, last)
        return max(FLOOR, base * (remaining / decay_steps) ** 2)
    return base
