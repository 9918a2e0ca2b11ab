"""Concept distillation: the student matches the teacher's sharpened concepts across views.

Ranasinghe and Ryoo, "Language-based Action Concept Spaces Improve Video Self-Supervised
Learning", NeurIPS 2023, https://arxiv.org/abs/2307.10922
"""

from jaxtyping import Float
from torch import Tensor

from lssl_ray.losses.pairs import (
    check_scores,
    check_temperature,
    check_views,
    log_softmax32,
    mean_cross_entropy_over_pairs,
    softmax32,
)


def concept_distillation(
    student: Float[Tensor, "v clips concepts"],
    teacher: Float[Tensor, "g clips concepts"],
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy between teacher and student concept distributions of different views.

    The loop it replaces::

        for a in range(g):
            for b in range(v):
                if a != b:
                    p_t = softmax(teacher[a] / teacher_temperature)      # no gradient
                    p_s = softmax(student[b] / student_temperature)
                    pairs.append(-(p_t * log(p_s)).sum(-1).mean())
        return mean(pairs)

    Args:
        student: Cosines of all views with the concepts, global views first, in [-1, 1].
        teacher: Cosines of the global views; receives no gradient.
        student_temperature: Divides the student's cosines, > 0.
        teacher_temperature: Divides the teacher's; lower than the student's sharpens.

    Returns:
        The mean over pairs and clips, in float32 (float64 for float64 scores).

    Raises:
        ValueError: Fewer than two concepts or student views, shapes or temperatures that don't fit.
    """
    check_scores("student", student)
    check_scores("teacher", teacher)
    check_views(student, teacher)
    check_temperature("student_temperature", student_temperature)
    check_temperature("teacher_temperature", teacher_temperature)
    if student.shape[2] != teacher.shape[2]:
        raise ValueError(
            f"student scores {student.shape[2]} concepts and teacher {teacher.shape[2]}; both must "
            "be scored against the same concept space."
        )
    return mean_cross_entropy_over_pairs(
        softmax32(teacher.detach(), teacher_temperature),
        log_softmax32(student, student_temperature),
    )
