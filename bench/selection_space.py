"""Which configurations `label_free_selection.py` trains: drawn from stated ranges, some bad."""

from collections.abc import Mapping
from typing import Any

import numpy as np

RECIPE_NAME = "recipe"
SAMPLING_SEED = 2026
# A setting keeps the recipe's value with this probability: not every run should be far from it.
KEEP_PROBABILITY = 0.5
CHOICES: dict[str, tuple[Any, ...]] = {
    "objective.weight_distill_category": (0.0, 0.5, 2.0),
    "objective.weight_distill_description": (0.0, 0.5, 2.0),
    "objective.weight_align": (0.0, 0.5, 2.0),
    "objective.weight_prior": (0.0, 0.3, 3.0),
    "concepts.spaces": ("category", "description"),
    "concepts.layout": ("full",),
    "optim.temporal_rate_factor": (1.0, 10.0),
    "optim.teacher_momentum": ([0.9, 0.99], [0.99, 0.999]),
    "views.jitter_strength": ([0.0, 0.0, 0.0], [0.15, 0.15, 0.1], [0.6, 0.6, 0.4]),
    "views.global.area": ([0.3, 1.0], [0.6, 1.0]),
}
# Uniform in the logarithm. The recipe: 0.1, 0.4 and 1.6e-3.
STUDENT_TEMPERATURE = (0.02, 0.3)
TEACHER_RATIO = (0.15, 1.5)  # teacher's temperature over student's; above 1 it blurs
LEARNING_RATE = (4e-4, 1.6e-2)


def sample_configurations(count: int) -> dict[str, dict[str, Any]]:
    """Names and settings, the recipe first: always the same, and more only adds to them."""
    rng = np.random.default_rng(SAMPLING_SEED)

    def draw_log(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    found: dict[str, dict[str, Any]] = {RECIPE_NAME: {}}
    while len(found) < count:
        settings = {
            key: values[rng.integers(len(values))]
            for key, values in CHOICES.items()
            if rng.random() >= KEEP_PROBABILITY
        }
        if rng.random() >= KEEP_PROBABILITY:
            student = draw_log(*STUDENT_TEMPERATURE)
            settings["objective.student_temperature"] = student
            settings["objective.teacher_temperature"] = float(
                f"{student * draw_log(*TEACHER_RATIO):.3g}"
            )
        if rng.random() >= KEEP_PROBABILITY:
            rate = draw_log(*LEARNING_RATE)
            settings |= {"optim.learning_rate": rate, "optim.final_learning_rate": rate / 10}
        if does_anything(settings):
            found[f"c{len(found):02d}"] = settings
    return found


def does_anything(settings: Mapping[str, Any]) -> bool:
    """Whether an objective other than the prior acts, given the spaces that are there."""
    needed = {
        "distill_category": ("both", "category"),
        "distill_description": ("both", "description"),
        "align": ("both",),
    }
    spaces = settings.get("concepts.spaces", "both")
    return any(
        spaces in where and settings.get(f"objective.weight_{name}", 1.0) > 0
        for name, where in needed.items()
    )
