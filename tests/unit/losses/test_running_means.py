"""Running means against their loops over steps, their gradient, and their mean over workers."""

import plain_losses
import pytest
import torch
from torch import Tensor

from lssl_ray.losses import blend_running_mean, uniform_prior, update_center


def draw_steps(num_steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        2 * torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) - 1
        for _ in range(num_steps)
    ]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_blend_running_mean_prior_over_steps_equals_loop(momentum: float) -> None:
    steps = draw_steps(4)
    running: Tensor | None = None
    values = []
    for student in steps:

        def mean(local: Tensor) -> Tensor:
            nonlocal running
            running = blend_running_mean(local, running, momentum=momentum)
            return running

        prior = uniform_prior(student, student_temperature=0.1, all_reduce_mean=mean)
        values.append(prior.item())
    expected = plain_losses.run_prior_means(
        [step.tolist() for step in steps], temperature=0.1, momentum=momentum
    )
    assert values == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_blend_running_mean_gradient_goes_through_the_batch_alone() -> None:
    batch, running = torch.rand(5, requires_grad=True), torch.rand(5, requires_grad=True)
    for before in (running, None):
        blended = blend_running_mean(batch, before, momentum=0.75)
        (gradient,) = torch.autograd.grad(blended.sum(), batch)
        torch.testing.assert_close(gradient, torch.full((5,), 0.25))
    assert running.grad is None


def test_blend_running_mean_prior_passes_gradcheck() -> None:
    running = torch.softmax(draw_steps(1)[0][0, 0], dim=-1)

    def prior(scores: Tensor) -> Tensor:
        return uniform_prior(
            scores,
            student_temperature=0.1,
            all_reduce_mean=lambda mean: blend_running_mean(mean, running, momentum=0.5),
        )

    assert torch.autograd.gradcheck(prior, draw_steps(1)[0].requires_grad_())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_update_center_over_steps_equals_loop(momentum: float) -> None:
    steps = draw_steps(4)
    center: Tensor | None = None
    found = []
    for teacher in steps:
        center = update_center(center, teacher.requires_grad_(), momentum=momentum)
        assert not center.requires_grad
        found.append(center)
    expected = plain_losses.run_centers([step.tolist() for step in steps], momentum=momentum)
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected[1:], dtype=torch.float64))


def test_update_center_mean_over_workers_equals_one_batch() -> None:
    (whole,) = draw_steps(1)
    mine, theirs = whole[:, :1], whole[:, 1:]
    shared = update_center(
        None,
        mine,
        momentum=0.9,
        all_reduce_mean=lambda local: (local + 3 * theirs.mean(dim=(0, 1))) / 4,
    )
    torch.testing.assert_close(shared, update_center(None, whole, momentum=0.9))


def test_update_center_of_bf16_scores_is_float32() -> None:
    scores = draw_steps(1)[0].bfloat16()
    center = update_center(None, scores, momentum=0.5)
    assert torch.equal(center, update_center(None, scores.float(), momentum=0.5))
    assert center.dtype == torch.float32
