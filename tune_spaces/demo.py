"""On the demo world: which concept space does better, and at which temperature?

Six configurations for `make demo-sweep`: the category space alone, or both spaces with descriptions
pooled or one by one; at the temperature that fits the tiny CLIP's logit scale of 13, or at half of
it. The teacher's is 0.4 of the student's, as in the demo's recipe.

To read: what holds in a world of stick figures need not hold elsewhere, and one seed says little:
differences of a few points are noise here (docs/demo_gain.md).
"""

from typing import Any

from ray import tune

VARIANTS: dict[str, dict[str, Any]] = {
    "names": {"concepts.spaces": "category", "concepts.layout": "pooled"},
    "pooled": {"concepts.spaces": "both", "concepts.layout": "pooled"},
    "full": {"concepts.spaces": "both", "concepts.layout": "full"},
}


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "objective.student_temperature": tune.choice([0.1, 0.05]),
        "variant": tune.choice(list(VARIANTS)),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The teacher's temperature, and the settings of the variant."""
    teacher = 0.4 * values["objective.student_temperature"]
    return {"objective.teacher_temperature": teacher} | VARIANTS[values["variant"]]
