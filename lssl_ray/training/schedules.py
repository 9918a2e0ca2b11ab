"""Values that change with the step: pure functions, no state, so that resume needs none."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """The same value at every step."""
    return lambda step: value


def cosine(start: float, end: float, *, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """Linear warm-up from 0 to `start`, then half a cosine to `end` at the last step.

    Args:
        start: Value when the warm-up is over.
        end: Value at step `num_steps - 1` and after (unless the warm-up ends only there).
        num_steps: Steps of the run, >= 1.
        warmup_steps: Steps of the linear part, below `num_steps`; step 0 has
            `start / warmup_steps`.

    Raises:
        ValueError: Step counts that leave no room.
    """
    if num_steps < 1 or not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} and num_steps={num_steps}; the warm-up must be shorter "
            "than the run, and the run at least one step."
        )

    def value_at(step: int) -> float:
        if step < warmup_steps:
            return start * (step + 1) / warmup_steps
        span = max(1, num_steps - 1 - warmup_steps)
        progress = min(1.0, (step - warmup_steps) / span)
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))

    return value_at


def linear(start: float, end: float, *, num_steps: int) -> Schedule:
    """A straight line from `start` at step 0 to `end` at step `num_steps - 1` and after.

    Raises:
        ValueError: Fewer steps than one.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}; a schedule needs at least one step.")

    def value_at(step: int) -> float:
        share = min(1.0, step / max(1, num_steps - 1))
        return (1 - share) * start + share * end

    return value_at
