"""Concept alignment: category space and description space teach each other across views.

Ranasinghe and Ryoo, NeurIPS 2023, https://arxiv.org/abs/2307.10922
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.losses.pairs import (
    at_least_float32,
    check_scores,
    check_temperature,
    check_views,
    log_softmax32,
    mean_cross_entropy_over_pairs,
    softmax32,
)


def concept_alignment(
    student_category: Float[Tensor, "v clips n"],
    student_description: Float[Tensor, "v clips m"],
    teacher_category: Float[Tensor, "g clips n"],
    teacher_description: Float[Tensor, "g clips m"],
    *,
    link: Float[Tensor, "n m"] | None = None,
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Half the sum of two cross-entropies: each space's teacher supervises the other's student.

    Over pairs of views (a, b), a != b, and clips, with q the distribution over categories that
    the description space implies (q = p for the pooled layout, q = link @ p for the full one)::

        1/2 * (H(p_teacher_category[a], q_student_description[b])
               + H(q_teacher_description[a], p_student_category[b]))

    Args:
        student_category: Cosines with the n categories, all views, global ones first.
        student_description: Cosines with the m descriptions, same views and clips.
        teacher_category: Cosines of the global views; receives no gradient.
        teacher_description: Likewise.
        link: 0/1 matrix that says which descriptions belong to which category, one category per
            description; None for the pooled layout, where row i of both spaces is label i.
        student_temperature: Divides the student's cosines, > 0.
        teacher_temperature: Divides the teacher's, > 0.

    Returns:
        The mean over pairs and clips, in float32 (float64 for float64 scores).

    Raises:
        ValueError: Shapes, link or temperatures that don't fit.
    """
    named = {
        "student_category": student_category,
        "student_description": student_description,
        "teacher_category": teacher_category,
        "teacher_description": teacher_description,
    }
    for name, scores in named.items():
        check_scores(name, scores)
    check_temperature("student_temperature", student_temperature)
    check_temperature("teacher_temperature", teacher_temperature)
    check_views(student_category, teacher_category)
    check_views(student_description, teacher_description)
    _check_spaces(named, link)
    q_teacher = softmax32(teacher_description.detach(), teacher_temperature)
    log_q_student = log_softmax32(student_description, student_temperature)
    if link is not None:
        q_teacher = q_teacher @ link.to(q_teacher.dtype).T
        log_q_student = _sum_linked(log_q_student, link)
    return 0.5 * (
        mean_cross_entropy_over_pairs(
            softmax32(teacher_category.detach(), teacher_temperature), log_q_student
        )
        + mean_cross_entropy_over_pairs(
            q_teacher, log_softmax32(student_category, student_temperature)
        )
    )


def _sum_linked(
    log_probabilities: Float[Tensor, "v clips m"], link: Float[Tensor, "n m"]
) -> Float[Tensor, "v clips n"]:
    """log(link @ p) without leaving log space.

    At temperature 0.01 a category's whole mass underflows float32, and log(0) would turn the loss
    into infinity.
    """
    owner = at_least_float32(link).argmax(dim=0)  # [m] -> category
    index = owner.expand_as(log_probabilities)
    shape = (*log_probabilities.shape[:2], link.shape[0])
    peak = log_probabilities.new_full(shape, float("-inf"))
    peak = peak.scatter_reduce(2, index, log_probabilities.detach(), "amax")
    relative = torch.exp(log_probabilities - peak.gather(2, index))
    total = log_probabilities.new_zeros(shape).scatter_add(2, index, relative)
    return total.log() + peak


def _check_spaces(named: dict[str, Tensor], link: Tensor | None) -> None:
    num_categories = named["student_category"].shape[2]
    num_descriptions = named["student_description"].shape[2]
    for space, expected in (("category", num_categories), ("description", num_descriptions)):
        if named[f"teacher_{space}"].shape[2] != expected:
            raise ValueError(
                f"student_{space} scores {expected} concepts and teacher_{space} "
                f"{named[f'teacher_{space}'].shape[2]}; both must use the same concept space."
            )
    if named["student_category"].shape[:2] != named["student_description"].shape[:2]:
        raise ValueError(
            f"student_category {tuple(named['student_category'].shape)} and student_description "
            f"{tuple(named['student_description'].shape)} must hold the same views and clips."
        )
    if link is None:
        if num_categories != num_descriptions:
            raise ValueError(
                f"{num_categories} categories and {num_descriptions} descriptions without a link: "
                "the pooled layout has one description row per category; for the full layout pass "
                "link [categories, descriptions]."
            )
        return
    if link.shape != (num_categories, num_descriptions):
        raise ValueError(
            f"link has shape {tuple(link.shape)}; it must be [categories, descriptions] = "
            f"[{num_categories}, {num_descriptions}]."
        )
    if not bool(((link == 0) | (link == 1)).all() and (link.sum(dim=0) == 1).all()):
        raise ValueError("link must hold 0 and 1, with exactly one category per description.")
    if not bool((link.sum(dim=1) >= 1).all()):
        raise ValueError("link leaves a category without any description; give it at least one.")
