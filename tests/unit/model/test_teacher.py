"""The teacher: a frozen copy, moved by arithmetic that is redone here element by element."""

import pytest
import torch
from torch import nn

from lssl_ray.model.teacher import build_teacher, update_teacher


def build_pair() -> tuple[nn.Module, nn.Module]:
    student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    teacher = build_teacher(student)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return teacher, student


def read_values(module: nn.Module) -> list[float]:
    return [value for parameter in module.parameters() for value in parameter.flatten().tolist()]


@pytest.mark.parametrize("momentum", [0.3, 0.5, 0.9, 0.996, 0.9999])
def test_update_teacher_follows_arithmetic(momentum: float) -> None:
    teacher, student = build_pair()
    expected = read_values(teacher)
    for _ in range(3):
        update_teacher(teacher, student, momentum=momentum)
        expected = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(expected, read_values(student), strict=True)
        ]
    assert read_values(teacher) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_update_teacher_momentum_ends_copy_and_keep_exactly() -> None:
    teacher, student = build_pair()
    before = read_values(teacher)
    update_teacher(teacher, student, momentum=1.0)
    assert read_values(teacher) == before
    update_teacher(teacher, student, momentum=0.0)
    assert read_values(teacher) == read_values(student)


@pytest.mark.parametrize("momentum", [-0.01, 1.01, float("nan")])
def test_update_teacher_momentum_outside_is_refused(momentum: float) -> None:
    teacher, student = build_pair()
    before = read_values(teacher)
    with pytest.raises(ValueError, match="momentum"):
        update_teacher(teacher, student, momentum=momentum)
    assert read_values(teacher) == before


def test_build_teacher_is_a_frozen_copy_in_evaluation_mode() -> None:
    student = nn.Sequential(nn.Linear(3, 4), nn.Dropout()).train()
    teacher = build_teacher(student)
    assert student.training and not teacher.training and not teacher[1].training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert read_values(teacher) == read_values(student)
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert read_values(teacher) != read_values(student)
