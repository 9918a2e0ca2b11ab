"""Which objectives carry the gain, and how strongly should each pull beside category distillation?

Category distillation keeps the weight 1: AdamW hardly feels a common factor, so only the ratios of
the weights mean anything. 0 leaves an objective out, which makes this the ablation of the method as
well. `prior` is the uniform prior's weight; `fading` starts there and ends at a tenth.

To read: `importance.png` says which ratio matters at all; then compare the rows of the leaderboard
that differ in one weight only. A trial that collapsed shows it in its `health/` metrics.
"""

from typing import Any

from ray import tune


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "objective.weight_distill_description": tune.choice([0.0, 0.3, 1.0, 3.0]),
        "objective.weight_align": tune.choice([0.0, 0.3, 1.0, 3.0]),
        "prior": tune.choice([0.0, 0.3, 1.0, 3.0]),
        "prior_path": tune.choice(["constant", "fading"]),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The anchor, and the prior's weight over time."""
    prior: Any = values["prior"]
    if values["prior_path"] == "fading":
        prior = {"shape": "cosine", "start": prior, "end": 0.1 * prior}
    return {"objective.weight_distill_category": 1.0, "objective.weight_prior": prior}
