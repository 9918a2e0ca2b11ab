"""One update of student and teacher, the clips at once or in parts that need less memory."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lssl_ray.model.teacher import update_teacher
from lssl_ray.training.context import TrainContext
from lssl_ray.training.encoding import Encoded
from lssl_ray.training.optimizer import compute_gradient_norms, set_rates
from lssl_ray.training.task import LossWeights, LssTask, Temperatures
from lssl_ray.training.workers import StepCounts, build_weighted_mean, check_finite
from lssl_ray.types import ClipBatch, StepOutput

EncodeStudent = Callable[[Sequence[Tensor]], Encoded]


class StudentPass(nn.Module):
    """The student's look at the views, as a module of its own: what DDP wraps."""

    def __init__(self, task: LssTask) -> None:
        super().__init__()
        self.task = task

    def forward(self, views: Sequence[Tensor]) -> Encoded:
        """As `LssTask.encode_student`."""
        return self.task.encode_student(views)


def run_step(
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    batch: ClipBatch,
    values: Mapping[str, float],
    *,
    encode_student: EncodeStudent,
    counts: StepCounts,
    step: int,
    gradient_clip: float,
    bf16: bool,
    micro_batches: int,
    context: TrainContext,
) -> tuple[StepOutput, dict[str, Tensor]]:
    """Update student, teacher and what the objectives remember.

    Args:
        task: Its values are changed in place.
        optimizer: Over everything the task trains.
        batch: This worker's clips; none when only other workers have some.
        values: Of every schedule at this step, by name.
        encode_student: The task's method, or DDP around a `StudentPass`.
        counts: Clips of this step over all workers.
        step: Steps done before this one.
        gradient_clip: Largest total gradient norm.
        bf16: Autocast the towers.
        micro_batches: Parts in which this worker's clips are processed; see `run_backward`.
        context: Rank, device, collectives.

    Returns:
        What was computed, and the gradient norms by group and `total`, before clipping.

    Raises:
        TrainingError: A non-finite loss or gradient; nothing was updated.
    """
    set_rates(
        optimizer,
        learning_rates={
            "pretrained": values["pretrained_rate"],
            "temporal": values["temporal_rate"],
            "head": values["temporal_rate"],
        },
        weight_decay=values["weight_decay"],
    )
    optimizer.zero_grad(set_to_none=True)
    output = run_backward(
        task,
        batch if batch.num_clips else _stand_in(batch, task),
        encode_student=encode_student,
        num_parts=micro_batches,
        autocast=torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=bf16),
        weights=LossWeights(
            distill_category=values["weight_distill_category"],
            distill_description=values["weight_distill_description"],
            align=values["weight_align"],
            prior=values["weight_prior"],
        ),
        temperatures=Temperatures(
            student=values["student_temperature"], teacher=values["teacher_temperature"]
        ),
        clip_share=counts.local_share,
        all_reduce_mean=build_weighted_mean(counts, context),
    )
    norms = compute_gradient_norms(optimizer)
    pairs = task.averaged_pairs().values()
    trained = [parameter for student, _ in pairs for parameter in student.parameters()]
    total = torch.nn.utils.clip_grad_norm_(trained, gradient_clip)
    check_finite(output.loss.detach(), total, step, context)
    optimizer.step()
    for student, teacher in pairs:
        update_teacher(teacher, student, momentum=values["momentum"])
    task.memory = output.memory
    return output, {**norms, "total": total}


def run_backward(
    task: LssTask,
    batch: ClipBatch,
    *,
    encode_student: EncodeStudent,
    num_parts: int,
    autocast: torch.autocast,
    **objectives: Any,
) -> StepOutput:
    """Leave the gradient of the objectives in the parameters.

    In parts, memory holds the activations of one part at a time, and the result is that of the
    undivided batch: the objectives see all features, computed first without gradients, and each
    part is encoded once more to carry the gradient of its features on. The price is one more
    forward pass of the student.

    Args:
        task: Computes the objectives.
        batch: At least one clip, on the task's device.
        encode_student: The task's method, or DDP around a `StudentPass`.
        num_parts: Parts of the batch, fewer when it has fewer clips; 1 is the plain step.
        autocast: Precision of the towers.
        objectives: Weights, temperatures and what else `LssTask.compare` takes by keyword.
    """
    if num_parts == 1:
        with autocast:
            output: StepOutput = task(batch, encode_student=encode_student, **objectives)
        output.loss.backward()
        return output
    parts = _split_clips(batch, num_parts)
    with torch.no_grad(), autocast:
        seen = []
        for part in parts:
            views = task.prepare_views(part)
            seen.append((task.encode_student(views), task.encode_teacher(views)))
    student = _join([student for student, _ in seen])
    for value in _list_values(student):
        value.requires_grad_()
    with autocast:
        output = task.compare(student, _join([teacher for _, teacher in seen]), **objectives)
    output.loss.backward()
    sizes = [part.num_clips for part in parts]
    gradients = [_gradient_of(value).split(sizes, dim=1) for value in _list_values(student)]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        # Workers meet once per step, in the last part, which brings the sum of all.
        ddp = encode_student if isinstance(encode_student, DistributedDataParallel) else None
        with nullcontext() if last or ddp is None else ddp.no_sync():
            with autocast:
                encoded = encode_student(task.prepare_views(part))
            torch.autograd.backward(
                _list_values(encoded), [gradient[number] for gradient in gradients]
            )
    return output


def _split_clips(batch: ClipBatch, num_parts: int) -> list[ClipBatch]:
    """Consecutive clips, parts as equal as can be, none empty."""
    num_parts = min(num_parts, batch.num_clips)
    bounds = [batch.num_clips * number // num_parts for number in range(num_parts + 1)]
    return [
        replace(
            batch,
            global_views=batch.global_views[start:stop],
            local_views=None if batch.local_views is None else batch.local_views[start:stop],
            augmentation=batch.augmentation[start:stop],
            positions=batch.positions[start:stop],
            video_ids=batch.video_ids[start:stop],
        )
        for start, stop in itertools.pairwise(bounds)
    ]


def _join(parts: list[Encoded]) -> Encoded:
    """Parts of a batch, along the clips."""
    features = torch.cat([part.features for part in parts], dim=1)
    prototypes = [part.prototypes for part in parts if part.prototypes is not None]
    return Encoded(features, torch.cat(prototypes, dim=1) if prototypes else None)


def _list_values(encoded: Encoded) -> list[Tensor]:
    return [value for value in encoded if value is not None]


def _gradient_of(value: Tensor) -> Tensor:
    assert value.grad is not None  # the total depends on every value, if only by a factor of 0
    return value.grad


def _stand_in(batch: ClipBatch, task: LssTask) -> ClipBatch:
    """A blank clip for a worker none of whose clips decoded while others' did.

    Collectives need every worker in the step; its share is zero, so it teaches nothing.
    """

    def blank(views: Tensor) -> Tensor:
        return views.new_zeros((1, *views.shape[1:]))

    return replace(
        batch,
        global_views=blank(batch.global_views),
        local_views=None if batch.local_views is None else blank(batch.local_views),
        augmentation=torch.ones_like(task.categories[:1, :1]).expand(
            1, *batch.augmentation.shape[1:]
        ),
        positions=(-1,),
        video_ids=("",),
    )
