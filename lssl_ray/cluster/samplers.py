"""What a Ray Tune sampler can draw: its values or bounds, and which samplers a sweep can use.

Random, Optuna's and grid search must all be able to read a space, and every value must be known
before the first trial; samplers that don't allow it are refused by name.
"""

import json
import math
from collections import Counter
from typing import Any

from ray.tune.search.sample import (
    Categorical,
    Domain,
    Float,
    Function,
    Integer,
    LogUniform,
    Normal,
    Quantized,
)

# A range of whole numbers or steps up to this long is a list of values.
MAX_LISTED = 20


def find_sampler_problem(sampler: Any) -> str | None:
    """Why a sweep can't draw from this: rule and way out; None when it can."""
    if isinstance(sampler, dict) and set(sampler) == {"grid_search"}:
        return (
            "tune.grid_search leaves random and Optuna's search nothing to draw; write "
            "tune.choice, and --search grid to try every combination"
        )
    if not isinstance(sampler, Domain):
        return (
            f"{sampler!r} is no sampler of ray.tune; a fixed value belongs into the recipe or "
            "--set, a sampler inside a schedule under a key or name of its own"
        )
    if isinstance(sampler, Function):
        return (
            "tune.sample_from can be neither listed nor learned from; compute the setting from "
            "the drawn values in derive_settings(values) of the space file"
        )
    if isinstance(sampler, Categorical):
        return _find_category_problem(sampler)
    inner = sampler.get_sampler()
    if isinstance(inner, Quantized):
        if isinstance(inner.sampler, LogUniform) and inner.q != 1:
            return "steps on a logarithmic range are dropped by Optuna; list them in tune.choice"
        inner = inner.sampler
    if isinstance(inner, Normal):
        return "tune.randn has no bounds to check; use tune.uniform or tune.loguniform"
    low, high = list_bounds(sampler)
    if not low < high and not (isinstance(sampler, Integer) and low == high):
        return f"the range {sampler.domain_str} is empty; give (lower, upper) with lower < upper"
    return None


def list_values(sampler: Domain) -> list[Any] | None:
    """All values of a sampler, in order; None when there are too many or no end of them."""
    if isinstance(sampler, Categorical):
        return list(sampler.categories)
    step = _find_step(sampler)
    if step is None:
        return None
    low, high = list_bounds(sampler)
    count = round((high - low) / step) + 1
    if count > MAX_LISTED:
        return None
    # As Tune computes them: multiples of the step, not a sum of steps.
    return [sampler.cast((round(low / step) + index) * step) for index in range(count)]


def list_bounds(sampler: Float | Integer) -> list[Any]:
    """The lowest and the highest value that a range can give."""
    inner = sampler.get_sampler()
    if isinstance(inner, Quantized) and inner.q != 1:
        first = math.ceil(round(sampler.lower / inner.q, 9))
        last = math.floor(round(sampler.upper / inner.q, 9))
        return [sampler.cast(first * inner.q), sampler.cast(last * inner.q)]
    if isinstance(sampler, Integer):
        return [sampler.lower, sampler.upper - 1]
    # Rounding and Optuna both reach the upper end.
    return [sampler.lower, sampler.upper]


def _find_step(sampler: Float | Integer) -> float | None:
    inner = sampler.get_sampler()
    if isinstance(inner, Quantized):
        return float(inner.q) if isinstance(sampler, Float) else inner.q
    return 1 if isinstance(sampler, Integer) else None


def _find_category_problem(sampler: Categorical) -> str | None:
    if not sampler.categories:
        return "tune.choice has nothing to choose from; list at least one value"
    try:
        texts = Counter(json.dumps(item, sort_keys=True) for item in sampler.categories)
    except (TypeError, ValueError) as error:
        return f"tune.choice must list plain values (numbers, texts, lists, schedules): {error}"
    twice = [text for text, count in texts.items() if count > 1]
    return f"tune.choice lists {', '.join(twice)} more than once; list it once" if twice else None
