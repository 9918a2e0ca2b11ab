"""The objectives in concept space: pure functions of scores, in float32 whatever comes in.

Shapes and meaning are the project's numeric contract. Nothing here knows of models, workers or
schedules: temperatures, weights and the mean over workers are arguments.
"""

from lssl_ray.losses.concept_alignment import concept_alignment
from lssl_ray.losses.concept_distillation import concept_distillation
from lssl_ray.losses.running_means import blend_running_mean, update_center
from lssl_ray.losses.scores import compute_concept_scores
from lssl_ray.losses.uniform_prior import uniform_prior

__all__ = [
    "blend_running_mean",
    "compute_concept_scores",
    "concept_alignment",
    "concept_distillation",
    "uniform_prior",
    "update_center",
]
