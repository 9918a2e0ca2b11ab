"""Means that remember earlier steps: of the prior, and the teacher's center.

Pure functions: what is remembered comes in and goes out, who keeps it is the caller's business.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lssl_ray.losses.pairs import at_least_float32


def blend_running_mean(
    batch_mean: Float[Tensor, "concepts"],
    running: Float[Tensor, "concepts"] | None,
    *,
    momentum: float,
) -> Float[Tensor, "concepts"]:
    """The prior's mean over steps, for spaces larger than a batch.

    momentum * stop_gradient(running) + (1 - momentum) * batch mean.
    MUST (Li et al., ICLR 2023, https://arxiv.org/abs/2206.02967) uses momentum 0.5.

    Args:
        batch_mean: Mean prediction of this step's global batch; the gradient goes through it.
        running: The result of the step before, without gradient; None at the first step, where
            the batch mean stands in.
        momentum: Share of what was, in [0, 1).
    """
    previous = (batch_mean if running is None else running).detach()
    return momentum * previous + (1 - momentum) * batch_mean


def update_center(
    center: Float[Tensor, "concepts"] | None,
    teacher: Float[Tensor, "g clips concepts"],
    *,
    momentum: float,
    all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "concepts"]:
    """DINO's center: a running mean of teacher scores, to subtract before the teacher's softmax.

    Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294: it starts at zero, and a step's
    scores move it after they were used.

    Args:
        center: Of the steps before; None is zero.
        teacher: Scores of this worker's global views, not centered.
        momentum: Share of the old center, in [0, 1).
        all_reduce_mean: Mean over workers weighted by clips; None when there is one worker.

    Returns:
        The center of the next step, without gradient.
    """
    mean = at_least_float32(teacher.detach()).mean(dim=(0, 1))  # [K]
    if all_reduce_mean is not None:
        mean = all_reduce_mean(mean)
    fresh = (1 - momentum) * mean
    return fresh if center is None else momentum * center + fresh
