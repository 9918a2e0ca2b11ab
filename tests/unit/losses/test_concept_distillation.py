"""Concept distillation against its loop, its gradient, and its limits."""

import itertools
import math

import plain_losses
import pytest
import torch
from torch import Tensor

from lssl_ray.losses import concept_distillation

GRID = list(
    itertools.product(
        [(1, 2), (2, 2), (2, 5), (3, 4)],  # g, v
        [1, 3],  # clips
        [2, 7],  # concepts
        [(0.1, 0.05), (0.01, 0.005), (1.0, 1.0)],  # student, teacher temperature
    )
)


def draw_cosines(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1).to(dtype)


@pytest.mark.parametrize(("views", "clips", "concepts", "temperatures"), GRID)
def test_concept_distillation_grid_equals_loop(
    views: tuple[int, int], clips: int, concepts: int, temperatures: tuple[float, float]
) -> None:
    num_teacher, num_student = views
    student = draw_cosines(num_student, clips, concepts, seed=1)
    teacher = draw_cosines(num_teacher, clips, concepts, seed=2)
    both = {"student_temperature": temperatures[0], "teacher_temperature": temperatures[1]}
    expected = plain_losses.distillation(student.tolist(), teacher.tolist(), **both)
    exact = concept_distillation(student, teacher, **both)
    assert exact.dtype == torch.float64
    assert exact.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    single = concept_distillation(student.float(), teacher.float(), **both)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


def test_concept_distillation_student_gradient_passes_gradcheck() -> None:
    student = draw_cosines(3, 2, 4).requires_grad_()
    teacher = draw_cosines(2, 2, 4, seed=1)

    def loss(scores: Tensor) -> Tensor:
        return concept_distillation(
            scores, teacher, student_temperature=0.1, teacher_temperature=0.05
        )

    assert torch.autograd.gradcheck(loss, student)


def test_concept_distillation_teacher_gets_no_gradient() -> None:
    student, teacher = (
        draw_cosines(2, 2, 4).requires_grad_(),
        draw_cosines(2, 2, 4).requires_grad_(),
    )
    concept_distillation(
        student, teacher, student_temperature=0.1, teacher_temperature=0.05
    ).backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


def test_concept_distillation_equal_views_and_temperatures_is_entropy() -> None:
    row = draw_cosines(1, 3, 5)
    views = row.expand(2, 3, 5)
    loss = concept_distillation(views, views, student_temperature=0.5, teacher_temperature=0.5)
    probabilities = torch.softmax(row / 0.5, dim=-1)
    expected = -(probabilities * probabilities.log()).sum(-1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_concept_distillation_uniform_student_is_log_concepts() -> None:
    loss = concept_distillation(
        torch.zeros(2, 1, 6), draw_cosines(2, 1, 6).float(),
        student_temperature=0.1, teacher_temperature=0.1,
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log(6), rel=1e-6)


def test_concept_distillation_huge_scores_stay_finite() -> None:
    student = (1e4 * draw_cosines(2, 3, 5)).float().requires_grad_()
    loss = concept_distillation(
        student, -student.detach(), student_temperature=0.01, teacher_temperature=0.005
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_concept_distillation_bf16_scores_are_computed_in_float32() -> None:
    student = draw_cosines(3, 4, 50, dtype=torch.bfloat16)
    teacher = draw_cosines(2, 4, 50, seed=1, dtype=torch.bfloat16)
    both = {"student_temperature": 0.01, "teacher_temperature": 0.005}
    loss = concept_distillation(student, teacher, **both)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, concept_distillation(student.float(), teacher.float(), **both))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("student", "teacher", "temperatures", "named"),
    [
        ((2, 3, 1), (2, 3, 1), (0.1, 0.1), "student has 1 concept"),
        ((1, 3, 4), (1, 3, 4), (0.1, 0.1), "1 student and 1 teacher views"),
        ((2, 3, 4), (3, 3, 4), (0.1, 0.1), "2 student and 3 teacher views"),
        ((2, 3, 4), (0, 3, 4), (0.1, 0.1), r"teacher has shape \(0, 3, 4\)"),
        ((2, 0, 4), (2, 0, 4), (0.1, 0.1), r"student has shape \(2, 0, 4\)"),
        ((2, 3, 4), (2, 2, 4), (0.1, 0.1), "3 clips"),
        ((2, 3, 4), (2, 3, 5), (0.1, 0.1), "4 concepts and teacher 5"),
        ((2, 3, 4), (2, 3, 4), (0.0, 0.1), "student_temperature=0.0"),
        ((2, 3, 4), (2, 3, 4), (0.1, -1.0), "teacher_temperature=-1.0"),
        ((2, 3, 4), (2, 3, 4), (0.1, float("nan")), "teacher_temperature=nan"),
        ((3, 4), (3, 4), (0.1, 0.1), r"student has shape \(3, 4\)"),
    ],
)
def test_concept_distillation_impossible_input_is_refused(
    student: tuple[int, ...],
    teacher: tuple[int, ...],
    temperatures: tuple[float, float],
    named: str,
) -> None:
    with pytest.raises(ValueError, match=named):
        concept_distillation(
            torch.zeros(student), torch.zeros(teacher),
            student_temperature=temperatures[0], teacher_temperature=temperatures[1],
        )  # fmt: skip


def test_concept_distillation_cosines_at_tiny_temperature_stay_finite() -> None:
    student = draw_cosines(3, 4, 50).float().requires_grad_()
    loss = concept_distillation(
        student, -student[:2].detach(), student_temperature=1e-4, teacher_temperature=1e-4
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None and torch.isfinite(student.grad).all()
