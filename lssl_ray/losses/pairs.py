"""Cross-entropy over pairs of views, and the checks all objectives share."""

import torch
from jaxtyping import Float
from torch import Tensor


def check_scores(name: str, scores: Tensor) -> None:
    """Refuse scores that no objective can use.

    Raises:
        ValueError: Not [views, clips, concepts], no clip or view, fewer than two concepts.
    """
    if scores.ndim != 3 or 0 in scores.shape[:2]:
        raise ValueError(
            f"{name} has shape {tuple(scores.shape)}; scores are [views, clips, concepts] with at "
            "least one view and one clip."
        )
    if scores.shape[2] < 2:
        raise ValueError(
            f"{name} has {scores.shape[2]} concept; a softmax over fewer than two concepts says "
            "nothing: give the concept space at least two labels."
        )


def check_views(student: Tensor, teacher: Tensor) -> None:
    """Refuse view counts that leave no pair of different views.

    Raises:
        ValueError: Fewer than two student views, or more teacher than student views.
    """
    num_student, num_teacher = student.shape[0], teacher.shape[0]
    if num_student < 2 or num_teacher > num_student:
        raise ValueError(
            f"{num_student} student and {num_teacher} teacher views leave no valid pair (a != b): "
            "the student must see at least two views, the teacher's among them."
        )
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"The student's batch has {student.shape[1]} clips and the teacher's "
            f"{teacher.shape[1]}; both must see the same clips in the same order."
        )


def check_temperature(name: str, temperature: float) -> None:
    """Refuse temperatures that can't divide a cosine.

    Raises:
        ValueError: Not above zero.
    """
    if not temperature > 0:
        raise ValueError(f"{name}={temperature}; temperatures divide a cosine and must be > 0.")


def mean_cross_entropy_over_pairs(
    teacher_probabilities: Float[Tensor, "g clips concepts"],
    student_log_probabilities: Float[Tensor, "v clips concepts"],
) -> Float[Tensor, ""]:
    """Mean over pairs (a, b), a != b, and clips of -sum_k p_t[a, k] log p_s[b, k].

    The sum over b of all pairs is one product with the sum over views, so the V x G pairs are
    never formed: sum_ab = sum_a p_a . (sum_b log q_b) - sum_a p_a . log q_a.
    """
    num_teacher, num_clips = teacher_probabilities.shape[:2]
    num_student = student_log_probabilities.shape[0]
    over_views = student_log_probabilities.sum(dim=0)  # [B, K]
    all_pairs = (teacher_probabilities * over_views).sum()
    same_view = (teacher_probabilities * student_log_probabilities[:num_teacher]).sum()
    num_pairs = num_teacher * (num_student - 1)
    return (same_view - all_pairs) / (num_pairs * num_clips)


def softmax32(scores: Tensor, temperature: float) -> Tensor:
    """Softmax of cosines over the last axis, in at least float32."""
    return torch.softmax(at_least_float32(scores) / temperature, dim=-1)


def log_softmax32(scores: Tensor, temperature: float) -> Tensor:
    """Log-softmax of cosines over the last axis, in at least float32."""
    return torch.log_softmax(at_least_float32(scores) / temperature, dim=-1)


def at_least_float32(scores: Tensor) -> Tensor:
    """bf16 and fp16 up to float32; float64 (gradient checks) stays."""
    return scores if scores.dtype == torch.float64 else scores.float()
