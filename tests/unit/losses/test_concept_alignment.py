"""Concept alignment against its loop in both layouts, its gradient, and its limits."""

import itertools

import plain_losses
import pytest
import torch
from torch import Tensor

from lssl_ray.losses import concept_alignment

LINK = torch.tensor(
    [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 1]], dtype=torch.float64
)
GRID = list(
    itertools.product(
        [(1, 2), (2, 2), (2, 5), (3, 4)],
        [1, 3],
        [True, False],  # full layout
        [(0.1, 0.05), (0.01, 0.005), (1.0, 1.0)],
    )
)


def draw_scores(
    num_teacher: int, num_student: int, *, clips: int, categories: int, descriptions: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (num_student, clips, categories),
        (num_student, clips, descriptions),
        (num_teacher, clips, categories),
        (num_teacher, clips, descriptions),
    ]
    return [
        2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1 for shape in shapes
    ]


@pytest.mark.parametrize(("views", "clips", "full", "temperatures"), GRID)
def test_concept_alignment_grid_equals_loop(
    views: tuple[int, int], clips: int, full: bool, temperatures: tuple[float, float]
) -> None:
    descriptions = 6 if full else 3
    scores = draw_scores(*views, clips=clips, categories=3, descriptions=descriptions)
    both = {"student_temperature": temperatures[0], "teacher_temperature": temperatures[1]}
    link = LINK if full else None
    expected = plain_losses.alignment(
        *(tensor.tolist() for tensor in scores), link=LINK.tolist() if full else None, **both
    )
    exact = concept_alignment(*scores, link=link, **both)
    assert exact.dtype == torch.float64
    assert exact.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    single = concept_alignment(
        *(tensor.float() for tensor in scores), link=None if link is None else link.float(), **both
    )
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("full", [True, False])
def test_concept_alignment_student_gradients_pass_gradcheck(full: bool) -> None:
    scores = draw_scores(2, 3, clips=2, categories=3, descriptions=6 if full else 3)
    students = [tensor.requires_grad_() for tensor in scores[:2]]

    def loss(category: Tensor, description: Tensor) -> Tensor:
        return concept_alignment(
            category, description, *scores[2:], link=LINK if full else None,
            student_temperature=0.2, teacher_temperature=0.1,
        )  # fmt: skip

    assert torch.autograd.gradcheck(loss, students)


@pytest.mark.parametrize("full", [True, False])
def test_concept_alignment_teachers_get_no_gradient(full: bool) -> None:
    scores = draw_scores(2, 2, clips=2, categories=3, descriptions=6 if full else 3)
    for tensor in scores:
        tensor.requires_grad_()
    concept_alignment(
        *scores, link=LINK if full else None, student_temperature=0.2, teacher_temperature=0.1
    ).backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in scores[:2])
    assert all(tensor.grad is None for tensor in scores[2:])


def test_concept_alignment_full_with_one_description_each_equals_pooled() -> None:
    scores = draw_scores(2, 4, clips=3, categories=5, descriptions=5)
    both = {"student_temperature": 0.01, "teacher_temperature": 0.005}
    pooled = concept_alignment(*scores, **both)
    full = concept_alignment(*scores, link=torch.eye(5, dtype=torch.float64), **both)
    torch.testing.assert_close(full, pooled, rtol=1e-12, atol=0)


def test_concept_alignment_full_layout_follows_the_link_not_the_order() -> None:
    scores = draw_scores(2, 3, clips=2, categories=4, descriptions=4)
    both = {"student_temperature": 0.1, "teacher_temperature": 0.05}
    order = torch.tensor([2, 0, 3, 1])
    shuffled = [scores[0], scores[1][..., order], scores[2], scores[3][..., order]]
    link = torch.eye(4, dtype=torch.float64)[:, order]
    torch.testing.assert_close(
        concept_alignment(*shuffled, link=link, **both), concept_alignment(*scores, **both)
    )


@pytest.mark.parametrize("full", [True, False])
def test_concept_alignment_huge_scores_stay_finite(full: bool) -> None:
    scores = draw_scores(2, 3, clips=4, categories=3, descriptions=6 if full else 3)
    huge = [(1e4 * tensor).float().requires_grad_() for tensor in scores]
    loss = concept_alignment(
        *huge, link=LINK.float() if full else None,
        student_temperature=0.01, teacher_temperature=0.005,
    )  # fmt: skip
    loss.backward()
    assert torch.isfinite(loss)
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in huge[:2])


@pytest.mark.parametrize("full", [True, False])
def test_concept_alignment_bf16_scores_are_computed_in_float32(full: bool) -> None:
    scores = draw_scores(2, 3, clips=4, categories=3, descriptions=6 if full else 3)
    rounded = [tensor.bfloat16() for tensor in scores]
    link = LINK.bfloat16() if full else None
    both = {"student_temperature": 0.01, "teacher_temperature": 0.005}
    loss = concept_alignment(*rounded, link=link, **both)
    assert loss.dtype == torch.float32
    reference = concept_alignment(
        *(tensor.float() for tensor in rounded), link=LINK.float() if full else None, **both
    )
    assert torch.equal(loss, reference)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("link", "named"),
    [
        (None, "3 categories and 6 descriptions without a link"),
        (LINK.T, r"link has shape \(6, 3\)"),
        (LINK * 0.5, "0 and 1"),
        (LINK + torch.eye(3, 6).roll(1, 1), "0 and 1"),
        (torch.eye(3, 6), "exactly one category per description"),
        (torch.tensor([[1.0] * 5 + [0], [0.0] * 5 + [1], [0.0] * 6]), "without any description"),
    ],
)
def test_concept_alignment_wrong_link_is_refused(link: Tensor | None, named: str) -> None:
    scores = draw_scores(2, 2, clips=2, categories=3, descriptions=6)
    both = {"student_temperature": 0.1, "teacher_temperature": 0.1}
    with pytest.raises(ValueError, match=named):
        concept_alignment(*scores, link=link, **both)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ([(2, 2, 1)] * 4, "1 concept"),
        ([(1, 2, 3)] * 4, "1 student and 1 teacher views"),
        ([(2, 2, 3), (2, 2, 3), (2, 2, 4), (2, 2, 3)], "teacher_category 4"),
        ([(2, 2, 3), (2, 2, 3), (2, 2, 3), (2, 2, 4)], "teacher_description 4"),
        ([(2, 2, 3), (3, 2, 3), (2, 2, 3), (2, 2, 3)], "same views and clips"),
        ([(2, 2, 3), (2, 2, 3), (2, 3, 3), (2, 2, 3)], "clips"),
    ],
)
def test_concept_alignment_impossible_shapes_are_refused(
    shapes: list[tuple[int, int, int]], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        concept_alignment(
            *(torch.zeros(shape) for shape in shapes),
            student_temperature=0.1, teacher_temperature=0.1,
        )  # fmt: skip


def test_concept_alignment_equal_views_and_spaces_is_entropy() -> None:
    row = draw_scores(1, 1, clips=3, categories=5, descriptions=5)[0]
    views = row.expand(2, 3, 5)
    loss = concept_alignment(
        views, views, views, views, student_temperature=0.5, teacher_temperature=0.5
    )
    probabilities = torch.softmax(row / 0.5, dim=-1)
    expected = -(probabilities * probabilities.log()).sum(-1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
