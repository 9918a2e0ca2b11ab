"""Which configuration is best when temperatures, weights, concept space and rate move together?

The widest space: six values, for Optuna's search and at least some 40 trials. Ranges are those of
the spaces that ask about one thing each; run those first where you can, and narrow this by them.

To read: this finds a good recipe and explains little. Settings interact, so take importances as
hints; confirm the winner against the base recipe with `--seeds 3` before using it.
"""

from typing import Any

from ray import tune

FORMS: dict[str, dict[str, Any]] = {
    "names": {"concepts.spaces": "category", "concepts.layout": "pooled"},
    "pooled": {"concepts.spaces": "both", "concepts.layout": "pooled"},
    "full": {"concepts.spaces": "both", "concepts.layout": "full"},
}


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "objective.student_temperature": tune.loguniform(0.004, 0.08),
        "teacher_share": tune.uniform(0.2, 1.0),
        "objective.weight_align": tune.uniform(0.0, 3.0),
        "objective.weight_prior": tune.loguniform(0.1, 10.0),
        "optim.learning_rate": tune.loguniform(1.0e-6, 1.0e-4),
        "form": tune.choice(list(FORMS)),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """What follows from the drawn values: teacher's temperature, final rate, concept space."""
    return {
        "objective.teacher_temperature": (
            values["objective.student_temperature"] * values["teacher_share"]
        ),
        "optim.final_learning_rate": 0.1 * values["optim.learning_rate"],
        **FORMS[values["form"]],
    }
