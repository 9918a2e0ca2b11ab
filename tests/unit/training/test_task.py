"""The task: what the total is made of, and who learns from it."""

import math

import lss_parts
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lssl_ray.losses import concept_alignment, concept_distillation, uniform_prior
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.augment import augment_views
from lssl_ray.training.task import LossWeights, LssTask
from lssl_ray.types import ClipBatch

BOTH = {"student_temperature": 0.3, "teacher_temperature": 0.2}


def compute_features(task: LssTask, batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """Student [V, B, E] and teacher [G, B, E] features, one view of one clip at a time."""
    views = [
        (kind, batch.augmentation[:, offset + view], view)
        for kind, offset in ((batch.global_views, 0), (batch.local_views, 2))
        if kind is not None
        for view in range(kind.shape[1])
    ]
    student, teacher = [], []
    for number, (kind, values, view) in enumerate(views):
        pixels = torch.cat(
            [
                augment_views(
                    kind[clip : clip + 1, view : view + 1],
                    values[clip : clip + 1, None],
                    mean=task.mean,
                    std=task.std,
                )[:, 0]
                for clip in range(batch.num_clips)
            ]
        )
        student.append(torch.cat([task.student(one[None]) for one in pixels]))
        if number < batch.global_views.shape[1]:
            with torch.no_grad():
                teacher.append(torch.cat([task.teacher(one[None]) for one in pixels]))
    return torch.stack(student), torch.stack(teacher)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("num_local", [0, 2])
def test_task_total_is_weighted_sum_of_objectives_of_features(
    tiny_clip: ClipModel, full: bool, num_local: int
) -> None:
    task = lss_parts.build_task(tiny_clip, full=full)
    batch = lss_parts.draw_batch(3, seed=0, num_local=num_local)
    output = lss_parts.compute(task, batch)
    student, teacher = compute_features(task, batch)
    assert task.descriptions is not None
    cat = student @ task.categories.T, teacher @ task.categories.T
    desc = student @ task.descriptions.T, teacher @ task.descriptions.T
    expected = {
        "distill_category": concept_distillation(*cat, **BOTH),
        "distill_description": concept_distillation(*desc, **BOTH),
        "align": concept_alignment(cat[0], desc[0], cat[1], desc[1], link=task.link, **BOTH),
        "prior_category": uniform_prior(cat[0], student_temperature=0.3),
        "prior_description": uniform_prior(desc[0], student_temperature=0.3),
    }
    assert output.terms.keys() == {*expected, "total"}
    for name, value in expected.items():
        torch.testing.assert_close(output.terms[name], value.detach(), rtol=1e-4, atol=1e-5)
    total = (
        1.0 * expected["distill_category"]
        + 0.7 * expected["distill_description"]
        + 0.5 * expected["align"]
        + 0.3 * (expected["prior_category"] + expected["prior_description"])
    )
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-5)
    assert torch.equal(output.terms["total"], output.loss)


def test_task_backward_reaches_every_student_parameter_and_no_teacher(
    tiny_clip: ClipModel,
) -> None:
    task = lss_parts.build_task(tiny_clip)
    lss_parts.compute(task, lss_parts.draw_batch(3, seed=0)).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in task.student.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    assert not any(p.requires_grad for p in task.teacher.parameters())


def test_task_train_mode_leaves_teacher_in_evaluation(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip).train()
    assert task.student.training
    assert not any(module.training for module in task.teacher.modules())
    assert not task.eval().student.training


@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(distill_category=1.0, distill_description=0.0, align=0.0, prior=0.0),
        LossWeights(distill_category=0.0, distill_description=2.0, align=0.0, prior=0.0),
        LossWeights(distill_category=0.0, distill_description=0.0, align=3.0, prior=0.0),
        LossWeights(distill_category=0.0, distill_description=0.0, align=0.0, prior=4.0),
    ],
)
def test_task_zero_weights_remove_terms(tiny_clip: ClipModel, weights: LossWeights) -> None:
    task = lss_parts.build_task(tiny_clip)
    output = lss_parts.compute(task, lss_parts.draw_batch(2, seed=0), weights=weights)
    terms = output.terms
    expected = (
        weights.distill_category * terms["distill_category"]
        + weights.distill_description * terms["distill_description"]
        + weights.align * terms["align"]
        + weights.prior * (terms["prior_category"] + terms["prior_description"])
    )
    torch.testing.assert_close(output.loss.detach(), expected)
    assert expected > 0


def test_task_without_descriptions_has_category_terms_only(tiny_clip: ClipModel) -> None:
    weights = LossWeights(distill_category=1.0, distill_description=1.0, align=1.0, prior=1.0)
    task = lss_parts.build_task(tiny_clip, describe=False, spaces="category")
    output = lss_parts.compute(task, lss_parts.draw_batch(2, seed=0), weights=weights)
    assert output.terms.keys() == {"distill_category", "prior_category", "total"}
    torch.testing.assert_close(
        output.loss.detach(), output.terms["distill_category"] + output.terms["prior_category"]
    )


def test_task_in_description_space_has_its_terms_only(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip, spaces="description")
    output = lss_parts.compute(task, lss_parts.draw_batch(2, seed=0))
    assert output.terms.keys() == {"distill_description", "prior_description", "total"}


def test_task_description_space_without_descriptions_is_refused(tiny_clip: ClipModel) -> None:
    with pytest.raises(ValueError, match="description"):
        lss_parts.build_task(tiny_clip, describe=False)


def test_task_clip_share_scales_all_but_the_prior(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip)
    batch = lss_parts.draw_batch(2, seed=0)
    whole = lss_parts.compute(task, batch)
    shared = lss_parts.compute(task, batch, clip_share=0.25)
    prior = 0.3 * (whole.terms["prior_category"] + whole.terms["prior_description"])
    torch.testing.assert_close(shared.loss.detach(), 0.25 * (whole.loss.detach() - prior) + prior)
    for name in whole.terms:
        assert torch.equal(whole.terms[name], shared.terms[name])


def test_task_prior_goes_through_the_mean_over_workers(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip)
    output = lss_parts.compute(
        task,
        lss_parts.draw_batch(2, seed=0),
        all_reduce_mean=lambda mean: F.one_hot(torch.tensor(1), len(mean)).float() + 0 * mean,
    )
    num = lss_parts.NUM_CATEGORIES
    assert output.terms["prior_category"].item() == pytest.approx(math.log(num), rel=1e-5)


def test_task_objectives_under_bf16_autocast_are_float32_of_the_features(
    tiny_clip: ClipModel,
) -> None:
    task = lss_parts.build_task(tiny_clip, full=True)
    batch = lss_parts.draw_batch(3, seed=0, num_local=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = lss_parts.compute(task, batch)
        pixels = augment_views(
            batch.global_views, batch.augmentation, mean=task.mean, std=task.std
        ).flatten(0, 1)
        student = task.student(pixels).unflatten(0, (3, 2)).transpose(0, 1)
        teacher = task.teacher(pixels).unflatten(0, (3, 2)).transpose(0, 1)
    expected = concept_distillation(
        student @ task.categories.T, teacher @ task.categories.T, **BOTH
    )
    assert expected > 0.1
    # Cosines in bf16 would be off by 1e-3 and more.
    torch.testing.assert_close(
        output.terms["distill_category"], expected.detach(), rtol=1e-5, atol=1e-6
    )
    assert output.loss.dtype == torch.float32


REMEMBERING = {"prior_running_mean": 0.5, "centering_momentum": 0.9}


@pytest.mark.parametrize("full", [False, True])
def test_task_remembered_means_act_on_each_space(tiny_clip: ClipModel, full: bool) -> None:
    task = lss_parts.build_task(tiny_clip, full=full, **REMEMBERING)
    assert task.descriptions is not None
    matrices = {"category": task.categories, "description": task.descriptions}
    centers: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    for seed in range(3):
        batch = lss_parts.draw_batch(3, seed=seed)
        output = lss_parts.compute(task, batch)
        task.memory = output.memory
        student, teacher = (features.detach() for features in compute_features(task, batch))
        students, teachers, expected = {}, {}, {}
        for name, matrix in matrices.items():
            students[name], raw = student @ matrix.T, teacher @ matrix.T
            center = centers.get(name, torch.zeros(len(matrix)))
            teachers[name] = raw - center
            centers[name] = 0.9 * center + 0.1 * raw.mean(dim=(0, 1))
            expected[f"distill_{name}"] = concept_distillation(
                students[name], teachers[name], **BOTH
            )
            mean = torch.softmax(students[name] / 0.3, dim=-1).mean(dim=(0, 1))
            means[name] = 0.5 * means.get(name, mean) + 0.5 * mean
            expected[f"prior_{name}"] = (means[name] * (means[name] * len(matrix)).log()).sum()
        expected["align"] = concept_alignment(
            students["category"], students["description"],
            teachers["category"], teachers["description"], link=task.link, **BOTH,
        )  # fmt: skip
        for name, value in expected.items():
            torch.testing.assert_close(output.terms[name], value, rtol=1e-4, atol=1e-5)
    for name in matrices:
        torch.testing.assert_close(task.memory[f"center/{name}"], centers[name])
        torch.testing.assert_close(task.memory[f"prior_mean/{name}"], means[name])


def test_task_compare_changes_nothing_it_remembers(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip, **REMEMBERING)
    batch = lss_parts.draw_batch(2, seed=0)
    outputs = [lss_parts.compute(task, batch) for _ in range(2)]
    assert task.memory == {}
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    assert not any(value.requires_grad for value in outputs[0].memory.values())
    assert lss_parts.compute(lss_parts.build_task(tiny_clip), batch).memory == {}


def test_task_prototypes_take_the_concepts_place(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip, prototypes=True)
    batch = lss_parts.draw_batch(3, seed=0)
    weights = LossWeights(distill_category=9.0, distill_description=9.0, align=9.0, prior=0.5)
    output = lss_parts.compute(task, batch, weights=weights)
    assert output.terms.keys() == {"distill_prototypes", "prior_prototypes", "total"}
    assert task.student_head is not None and task.teacher_head is not None
    student, teacher = compute_features(task, batch)
    scores = task.student_head(student), task.teacher_head(teacher)
    distill = concept_distillation(*scores, **BOTH)
    prior = uniform_prior(scores[0], student_temperature=0.3)
    torch.testing.assert_close(output.loss, distill + 0.5 * prior, rtol=1e-4, atol=1e-5)
    concepts = lss_parts.compute(lss_parts.build_task(tiny_clip), batch)
    assert output.monitors.keys() == concepts.monitors.keys()
    for name, value in concepts.monitors.items():
        torch.testing.assert_close(output.monitors[name], value)


def test_task_prototypes_backward_reaches_student_and_head_only(tiny_clip: ClipModel) -> None:
    task = lss_parts.build_task(tiny_clip, prototypes=True).train()
    lss_parts.compute(task, lss_parts.draw_batch(3, seed=0)).loss.backward()
    for suffix, (student, teacher) in task.averaged_pairs().items():
        assert all(p.grad is not None and p.grad.any() for p in student.parameters()), suffix
        assert not any(p.requires_grad for p in teacher.parameters()), suffix
        assert not teacher.training
