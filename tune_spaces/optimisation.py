"""How fast may CLIP's weights move, and how slowly should the teacher follow?

Rates are per 256 clips, as in the recipe, so that batch size and rate are separate questions; the
final rate is a tenth of the peak. `first_momentum` is where the teacher's moving average starts; it
ends at 1. A trial sees every video equally often whatever its batch (unless `optim.max_steps` is
set), so that larger batches make fewer steps: set `run.checkpoint_every` to a quarter of the steps
of the largest batch or less, or early stopping has nothing to judge those trials by.

To read: the rate usually matters most and has one broad optimum; a best value at an end of a range
means that the range is too short.
"""

from typing import Any

from ray import tune


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "optim.learning_rate": tune.loguniform(1.0e-6, 1.0e-4),
        "optim.temporal_rate_factor": tune.loguniform(1.0, 30.0),
        "optim.warmup_share": tune.choice([0.05, 0.1, 0.25]),
        "optim.clips_per_step": tune.choice([32, 64, 128, 256]),
        "first_momentum": tune.choice([0.98, 0.99, 0.996, 0.999]),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The final rate follows the peak; the momentum is a pair."""
    return {
        "optim.final_learning_rate": 0.1 * values["optim.learning_rate"],
        "optim.teacher_momentum": [values["first_momentum"], 1.0],
    }
