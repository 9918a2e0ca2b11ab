"""The training loop: restore; for each batch: step, record, maybe checkpoint; finish.

Plain torch, one process per worker, launched by whoever implements `TrainContext`. All decisions
that end or skip a step are taken from figures summed over workers, so that every worker takes them
at the same step and no collective is left waiting.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from lssl_ray.errors import DataError
from lssl_ray.training.checkpoint import (
    checkpoint_name,
    write_checkpoint,
    write_rng_state,
)
from lssl_ray.training.context import TrainContext
from lssl_ray.training.health import CollapseRule, act_on_collapse, judge_window
from lssl_ray.training.schedules import Schedule
from lssl_ray.training.stalling import CHECKPOINT, DATA, OTHERS, STEP, OnPhase, ignore_phase
from lssl_ray.training.step import EncodeStudent, StudentPass, run_step
from lssl_ray.training.task import LssTask
from lssl_ray.training.window import MetricWindow
from lssl_ray.training.workers import StepCounts, sum_counts
from lssl_ray.types import ClipBatch, Progress

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
    weight_distill_category: Schedule
    weight_distill_description: Schedule
    weight_align: Schedule
    weight_prior: Schedule


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
        micro_batches: Parts in which a worker's clips are processed; see `step.run_backward`.
        collapse: What counts as a collapse, and what follows.
        run_config: Text of the resolved configuration, kept with each checkpoint.
        num_decoders: Decoders that feed all workers, to say how busy they are.
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
    micro_batches: int
    collapse: CollapseRule
    run_config: str
    num_decoders: int = 1


def run_loop(
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    schedules: Schedules,
    batches: Iterable[ClipBatch],
    *,
    progress: Progress,
    settings: LoopSettings,
    context: TrainContext,
    on_phase: OnPhase = ignore_phase,
) -> Progress:
    """Train from `progress` to the end of the session.

    Args:
        task: On the context's device, restored.
        optimizer: Over what the task trains, restored.
        schedules: Functions of the step.
        batches: This worker's batches from `progress.positions_done` on, one per step.
        progress: Where the run stands.
        settings: Lengths, limits, cadence.
        context: Rank, collectives, records, checkpoints.
        on_phase: Told what comes next, several times a step; see `stalling`.

    Returns:
        The progress at the end of the session, checkpointed.

    Raises:
        TrainingError: A non-finite loss or gradient, and nothing was updated; or a collapse.
        DataError: More undecodable clips than `max_bad_fraction`.
    """
    task.train()
    encode_student: EncodeStudent = task.encode_student
    if context.world_size > 1:
        encode_student = DistributedDataParallel(StudentPass(task), forward_sync_buffers=False)
    window = MetricWindow()
    feed = _timed(iter(batches))
    num_answered = 0
    while progress.step < settings.stop_at_step:
        started = time.perf_counter()
        on_phase(DATA, step=progress.step)
        batch, wait_seconds = _next_batch(feed, progress, settings)
        on_phase(OTHERS, step=progress.step)
        counts = sum_counts(batch, context)
        on_phase(STEP, step=progress.step)
        if counts.clips:
            values = _compute_values(schedules, progress.step)
            output, norms = run_step(
                task,
                optimizer,
                batch,
                values,
                encode_student=encode_student,
                counts=counts,
                step=progress.step,
                gradient_clip=settings.gradient_clip,
                bf16=settings.precision == "bf16",
                micro_batches=settings.micro_batches,
                context=context,
            )
            window.add(output, norms, values, clips=batch.num_clips)
        for failure in batch.failures:
            context.record_failure({**asdict(failure), "step": progress.step + 1, "stage": "train"})
        seconds = time.perf_counter() - started
        progress = _advance(progress, counts, settings, seconds=seconds, wait=wait_seconds)
        window.add_time(seconds=seconds, wait_seconds=wait_seconds)
        window.add_feed(batch)
        _check_budget(progress, settings)
        last = progress.step == settings.stop_at_step
        asked = counts.checkpoints_asked > num_answered
        num_answered = counts.checkpoints_asked
        # A checkpoint that was asked for closes the window: rows after it may be dropped.
        if progress.step % settings.log_every == 0 or last or asked:
            record = window.collect(
                progress,
                context,
                num_steps=settings.num_steps,
                num_decoders=settings.num_decoders,
            )
            low_windows, health = judge_window(
                record, low_windows=progress.low_entropy_windows, rule=settings.collapse
            )
            progress = replace(progress, low_entropy_windows=low_windows)
            record |= health | ({"checkpoint/asked": 1.0} if asked else {})
            if context.rank == 0:
                context.record_metrics(record)
            act_on_collapse(
                record, low_windows=low_windows, rule=settings.collapse, rank=context.rank
            )
        if progress.step % settings.checkpoint_every == 0 or last or asked:
            on_phase(CHECKPOINT, step=progress.step)
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


def _advance(
    progress: Progress, counts: StepCounts, settings: LoopSettings, *, seconds: float, wait: float
) -> Progress:
    done = min(progress.positions_done + settings.positions_per_step, settings.num_positions)
    return replace(
        progress,
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
                task=task,
                optimizer=optimizer,
                progress=progress,
                run_config=settings.run_config,
            )

    context.save_checkpoint(checkpoint_name(progress.step), write)
