"""Health of a run: figures that fall when training collapses, whatever the loss says."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def compute_monitors(
    student_category: Float[Tensor, "v clips n"],
    teacher_category: Float[Tensor, "g clips n"],
    *,
    temperature: float,
) -> dict[str, Tensor]:
    """Collapse figures of one worker's batch.

    Args:
        student_category: Student cosines, all views.
        teacher_category: Teacher cosines, global views.
        temperature: The student's.

    Returns:
        mean_prediction_entropy: Of the prediction averaged over the batch, as a share of log n;
            falls toward 0 when all clips get the same concept.
        sample_entropy: Mean entropy of single predictions, as a share of log n; should fall.
        distinct_concepts: Concepts that are some clip's best (teacher, first view).
        agreement: Share of clips on which student and teacher (first view) name the same concept.
    """
    probabilities = torch.softmax(student_category.float() / temperature, dim=-1)  # [V, B, n]
    scale = math.log(student_category.shape[-1])
    teacher_best = teacher_category[0].argmax(dim=-1)  # [B]
    student_best = student_category[0].argmax(dim=-1)
    return {
        "mean_prediction_entropy": _entropy(probabilities.mean(dim=(0, 1))) / scale,
        "sample_entropy": _entropy(probabilities).mean() / scale,
        "distinct_concepts": probabilities.new_tensor(teacher_best.unique().numel()),
        "agreement": (teacher_best == student_best).float().mean(),
    }


def _entropy(probabilities: Tensor) -> Tensor:
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=-1)
