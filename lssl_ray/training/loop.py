"""The training loop: restore; for each batch: step, record, maybe checkpoint; finish.

Plain torch, one process per worker, launched by whoever implements `TrainContext`. All decisions
that end or skip a step are taken from figures summed over workers, so that every worker takes them
at the same step and no collective is left waiting.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lssl_ray.errors import DataError
from lssl_ray.model.teacher import update_teacher
from lssl_ray.training.checkpoint import (
    checkpoint_name,
    write_checkpoint,
    write_rng_state,
)
from lssl_ray.training.context import TrainContext
from lssl_ray.training.optimizer import compute_gradient_norms, set_rates
from lssl_ray.training.schedules import Schedule
from lssl_ray.training.task import LssTask, Temperatures
from lssl_ray.training.window import MetricWindow
from lssl_ray.training.workers import (
    StepCounts,
    build_weighted_mean,
    check_finite,
    sum_counts,
)
from lssl_ray.types import ClipBatch, Progress, StepOutput

MIN_CLIPS_FOR_BUDGET = 50


@dataclass(frozen=True)
class Schedules:
    """Every value that changes with the step."""

    pretrained_rate: Schedule
    temporal_rate: Schedule
    weight_decay: Schedule
    momentum: Schedule
    student_temperature: Schedule
    teacher_temperature: Schedule


@dataclass(frozen=True)
class LoopSettings:
    """Numbers the loop runs by.

    Attributes:
        num_steps: Steps of the whole run.
        stop_at_step: Step after which this session ends, at most `num_steps`.
        positions_per_step: Clips of a full global batch.
        num_positions: Clips of the whole run; the last batch may be short.
        gradient_clip: Largest total gradient norm.
        log_every: Steps per metrics window.
        checkpoint_every: Steps between checkpoints.
        max_bad_fraction: Share of undecodable clips above which the run ends.
        precision: `float32`, or `bf16` for autocast.
        run_config: Text of the resolved configuration, kept with each checkpoint.
    """

    num_steps: int
    stop_at_step: int
    positions_per_step: int
    num_positions: int
    gradient_clip: float
    log_every: int
    checkpoint_every: int
    max_bad_fraction: float
    precision: str
    run_config: str


def run_loop(
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    schedules: Schedules,
    batches: Iterable[ClipBatch],
    *,
    progress: Progress,
    settings: LoopSettings,
    context: TrainContext,
) -> Progress:
    """Train from `progress` to the end of the session.

    Args:
        task: On the context's device, restored.
        optimizer: Over the student's parameters, restored.
        schedules: Functions of the step.
        batches: This worker's batches from `progress.positions_done` on, one per step.
        progress: Where the run stands.
        settings: Lengths, limits, cadence.
        context: Rank, collectives, records, checkpoints.

    Returns:
        The progress at the end of the session, checkpointed.

    Raises:
        TrainingError: A non-finite loss or gradient; nothing was updated.
        DataError: More undecodable clips than `max_bad_fraction`.
    """
    task.train()
    module: nn.Module = task
    if context.world_size > 1:
        module = DistributedDataParallel(task, broadcast_buffers=False)
    window = MetricWindow()
    feed = _timed(iter(batches))
    while progress.step < settings.stop_at_step:
        started = time.perf_counter()
        batch, wait_seconds = _next_batch(feed, progress, settings)
        counts = sum_counts(batch, context)
        if counts.clips:
            values = _compute_values(schedules, progress.step)
            output, norms = _run_step(
                module, task, optimizer, batch, values, counts, progress.step, settings, context
            )
            window.add(output, norms, values, clips=batch.num_clips)
        for failure in batch.failures:
            context.record_failure({**asdict(failure), "step": progress.step + 1, "stage": "train"})
        seconds = time.perf_counter() - started
        progress = _advance(progress, counts, settings, seconds=seconds, wait=wait_seconds)
        window.add_time(seconds=seconds, wait_seconds=wait_seconds)
        _check_budget(progress, settings)
        last = progress.step == settings.stop_at_step
        if progress.step % settings.log_every == 0 or last:
            record = window.collect(progress, context, num_steps=settings.num_steps)
            if context.rank == 0:
                context.record_metrics(record)
        if progress.step % settings.checkpoint_every == 0 or last:
            _save(task, optimizer, progress, settings, context)
    return progress


def _next_batch(
    feed: Iterator[tuple[ClipBatch, float]], progress: Progress, settings: LoopSettings
) -> tuple[ClipBatch, float]:
    try:
        return next(feed)
    except StopIteration:
        raise RuntimeError(
            f"The data ended at step {progress.step} of {settings.num_steps}: the pipeline must "
            "give each worker one batch per step. This is a bug in the data path; please report it."
        ) from None


def _timed(batches: Iterator[ClipBatch]) -> Iterator[tuple[ClipBatch, float]]:
    while True:
        started = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch, time.perf_counter() - started


def _compute_values(schedules: Schedules, step: int) -> dict[str, float]:
    return {name: schedule(step) for name, schedule in vars(schedules).items()}


def _run_step(
    module: nn.Module,
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    batch: ClipBatch,
    values: Mapping[str, float],
    counts: StepCounts,
    step: int,
    settings: LoopSettings,
    context: TrainContext,
) -> tuple[StepOutput, dict[str, Tensor]]:
    """One update of student and teacher."""
    set_rates(
        optimizer,
        learning_rates={
            "pretrained": values["pretrained_rate"],
            "temporal": values["temporal_rate"],
        },
        weight_decay=values["weight_decay"],
    )
    optimizer.zero_grad(set_to_none=True)
    bf16 = settings.precision == "bf16"
    with torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=bf16):
        output: StepOutput = module(
            batch if batch.num_clips else _stand_in(batch, task),
            temperatures=Temperatures(
                student=values["student_temperature"], teacher=values["teacher_temperature"]
            ),
            clip_share=counts.local_share,
            all_reduce_mean=build_weighted_mean(counts, context),
        )
    output.loss.backward()
    norms = compute_gradient_norms(optimizer)
    total = torch.nn.utils.clip_grad_norm_(task.student.parameters(), settings.gradient_clip)
    check_finite(output.loss.detach(), total, step, context)
    optimizer.step()
    update_teacher(task.teacher, task.student, momentum=values["momentum"])
    return output, {**norms, "total": total}


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


def _advance(
    progress: Progress, counts: StepCounts, settings: LoopSettings, *, seconds: float, wait: float
) -> Progress:
    done = min(progress.positions_done + settings.positions_per_step, settings.num_positions)
    return Progress(
        step=progress.step + 1,
        positions_done=done,
        clips_trained=progress.clips_trained + counts.clips,
        clips_failed=progress.clips_failed + counts.failed,
        steps_skipped=progress.steps_skipped + (counts.clips == 0),
        train_seconds=progress.train_seconds + seconds,
        data_wait_seconds=progress.data_wait_seconds + wait,
    )


def _check_budget(progress: Progress, settings: LoopSettings) -> None:
    seen = progress.clips_trained + progress.clips_failed
    failed = progress.clips_failed
    over = failed > settings.max_bad_fraction * seen
    if over and (seen >= MIN_CLIPS_FOR_BUDGET or progress.positions_done == settings.num_positions):
        raise DataError(
            f"{failed} of {seen} clips could not be decoded, more than data.max_bad_fraction="
            f"{settings.max_bad_fraction} allows. quarantine.jsonl lists each with its reason; "
            "repair or re-index the videos (lssl-ray data index), or raise data.max_bad_fraction."
        )


def _save(
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: LoopSettings,
    context: TrainContext,
) -> None:
    def write(folder: Path) -> None:
        write_rng_state(folder, rank=context.rank)
        if context.rank == 0:
            write_checkpoint(
                folder,
                student=task.student,
                teacher=task.teacher,
                optimizer=optimizer,
                progress=progress,
                run_config=settings.run_config,
            )

    context.save_checkpoint(checkpoint_name(progress.step), write)
