"""The teacher: an exponential moving average of the student that never receives gradients.

Grill et al., "Bootstrap your own latent", NeurIPS 2020, https://arxiv.org/abs/2006.07733;
used on every step by DINO and SVT.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def build_teacher(student: ModuleT) -> ModuleT:
    """A frozen copy of the student in evaluation mode."""
    return copy.deepcopy(student).eval().requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Teacher = momentum * teacher + (1 - momentum) * student, for every parameter.

    Args:
        teacher: Changed in place; same architecture as the student.
        student: Read only.
        momentum: Share of the teacher that stays, in [0, 1].

    Raises:
        ValueError: Momentum outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum}; the teacher's momentum is a share in [0, 1].")
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
