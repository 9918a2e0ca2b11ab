"""The shape annotations are really checked while tests run."""

import jaxtyping
import pytest
import torch

from lssl_ray.losses import concept_distillation
from lssl_ray.model.pixels import to_pixels


def test_shape_checks_wrong_concept_count_is_refused_by_annotation() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        concept_distillation(
            torch.zeros(2, 3, 4),
            torch.zeros(2, 3, 5),
            student_temperature=0.1,
            teacher_temperature=0.1,
        )


def test_shape_checks_wrong_dtype_is_refused_by_annotation() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        to_pixels(torch.zeros(1, 4, 4, 3), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
