"""The uniform prior against its loop, its ends, its gradient, and its mean over workers."""

import itertools
import math

import plain_losses
import pytest
import torch
from torch import Tensor

from lssl_ray.losses import uniform_prior


def draw_cosines(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1


@pytest.mark.parametrize(
    ("views", "clips", "concepts", "temperature"),
    list(itertools.product([1, 2, 5], [1, 4], [2, 9], [1.0, 0.1, 0.01])),
)
def test_uniform_prior_grid_equals_loop(
    views: int, clips: int, concepts: int, temperature: float
) -> None:
    student = draw_cosines(views, clips, concepts)
    expected = plain_losses.prior(student.tolist(), student_temperature=temperature)
    exact = uniform_prior(student, student_temperature=temperature)
    assert exact.dtype == torch.float64
    assert exact.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    single = uniform_prior(student.float(), student_temperature=temperature)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert -1e-6 <= single.item() <= math.log(concepts) + 1e-6


def test_uniform_prior_even_prediction_is_zero() -> None:
    assert uniform_prior(torch.zeros(2, 3, 8), student_temperature=0.01).item() == pytest.approx(
        0, abs=1e-6
    )
    # Every clip is sure of another concept: the mean is as even as if none was sure of any.
    each_its_own = torch.eye(8)[None].expand(2, 8, 8)
    assert uniform_prior(each_its_own, student_temperature=0.01).item() == pytest.approx(
        0, abs=1e-6
    )


def test_uniform_prior_collapse_is_log_concepts_with_finite_gradient() -> None:
    student = torch.zeros(2, 3, 8)
    student[..., 5] = 1e4
    student.requires_grad_()
    loss = uniform_prior(student, student_temperature=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(8), rel=1e-6)
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_uniform_prior_gradient_passes_gradcheck() -> None:
    student = draw_cosines(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda scores: uniform_prior(scores, student_temperature=0.1), student
    )


@pytest.mark.parametrize("split", [4, 3, 7])
def test_uniform_prior_mean_over_workers_equals_one_batch(split: int) -> None:
    whole = draw_cosines(3, 8, 5).requires_grad_()
    expected = uniform_prior(whole, student_temperature=0.1)
    (expected_gradient,) = torch.autograd.grad(expected, whole)
    mine, theirs = whole[:, :split], whole[:, split:]
    their_mean = torch.softmax(theirs / 0.1, dim=-1).mean(dim=(0, 1))

    def all_reduce_mean(local: Tensor) -> Tensor:
        assert local.shape == (5,)
        return (split * local + (8 - split) * their_mean) / 8

    shared = uniform_prior(mine, student_temperature=0.1, all_reduce_mean=all_reduce_mean)
    (gradient,) = torch.autograd.grad(shared, whole)
    torch.testing.assert_close(shared, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


def test_uniform_prior_bf16_scores_are_computed_in_float32() -> None:
    student = draw_cosines(2, 4, 100).bfloat16()
    loss = uniform_prior(student, student_temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, uniform_prior(student.float(), student_temperature=0.01))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("shape", "temperature", "named"),
    [
        ((2, 3, 1), 0.1, "1 concept"),
        ((0, 3, 4), 0.1, "shape"),
        ((2, 0, 4), 0.1, "shape"),
        ((3, 4), 0.1, "shape"),
        ((2, 3, 4), 0.0, "student_temperature=0.0"),
    ],
)
def test_uniform_prior_impossible_input_is_refused(
    shape: tuple[int, ...], temperature: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        uniform_prior(torch.zeros(shape), student_temperature=temperature)
