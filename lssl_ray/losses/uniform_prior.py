"""Uniform prior: the mean prediction over the global batch may not collapse on a few concepts.

Ranasinghe and Ryoo, NeurIPS 2023, https://arxiv.org/abs/2307.10922
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.losses.pairs import check_scores, check_temperature, softmax32


def uniform_prior(
    student: Float[Tensor, "v clips concepts"],
    *,
    student_temperature: float,
    all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, ""]:
    """KL(mean prediction || uniform), in [0, log K].

    The mean is over views, clips and all workers: with N workers, loss and gradient equal those of
    one worker that holds the N batches together.

    Args:
        student: Cosines of all views with the concepts.
        student_temperature: Divides the cosines, > 0.
        all_reduce_mean: Differentiable mean over workers of a [K] tensor (weighted by their clips
            when these differ); None when there is one worker.

    Returns:
        The divergence in nats, in float32 (float64 for float64 scores).

    Raises:
        ValueError: Fewer than two concepts, wrong shape or temperature.
    """
    check_scores("student", student)
    check_temperature("student_temperature", student_temperature)
    mean_prediction = softmax32(student, student_temperature).mean(dim=(0, 1))  # [K]
    if all_reduce_mean is not None:
        mean_prediction = all_reduce_mean(mean_prediction)
    # xlogy(0, 0) = 0, and its gradient at 0 would be infinite: the floor keeps it finite.
    floored = mean_prediction.clamp_min(torch.finfo(mean_prediction.dtype).tiny)
    negative_entropy = (mean_prediction * floored.log()).sum()
    return negative_entropy + math.log(student.shape[2])
