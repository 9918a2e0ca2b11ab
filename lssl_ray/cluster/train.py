"""Ray Train wiring: a `TorchTrainer` whose workers run `training/loop.py`.

Their number may change whenever they are restarted: a worker derives all that depends on it from
the group that it finds itself in.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig

from lssl_ray import build
from lssl_ray.cluster.capacity import list_needs
from lssl_ray.cluster.context import RayContext
from lssl_ray.cluster.data import ClipStream, check_positions
from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.elastic import PolicyTrainer, build_policy, build_scaling
from lssl_ray.cluster.keeping import (
    bring_results,
    drop_for_worker,
    file_known_checkpoints,
    find_checkpoint,
    list_storage,
    open_keeper,
)
from lssl_ray.cluster.stalls import WorkerWatch, watching_worker
from lssl_ray.cluster.validator import RayValidator
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig, load_config_text
from lssl_ray.config import dump_config as dump
from lssl_ray.engine import TrainJob
from lssl_ray.errors import CheckpointError, ClusterError, DataError, LsslError, TrainingError
from lssl_ray.full_disk import is_disk_full
from lssl_ray.storage.store import find_run_store
from lssl_ray.training.audit import file_positions
from lssl_ray.training.checkpoint import load_checkpoint
from lssl_ray.training.disk_room import describe_full_run
from lssl_ray.training.loop import run_loop
from lssl_ray.training.stalling import OnPhase
from lssl_ray.types import Progress
from lssl_ray.validation.composing import build_holder
from lssl_ray.validation.session import evaluating_beside
from lssl_ray.video.ahead import iterate_on_device
from lssl_ray.video.pipeline import Columns

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class WorkerPayload:
    """What a worker is told; plain data, the configuration as text."""

    config: str
    run_folder: str
    num_videos: int
    space: ConceptSpace
    desk: Any
    keeper: Any
    stall_seconds: float


def train_on_ray(job: TrainJob) -> Progress:
    """Run a training session on the connected Ray.

    Raises:
        LsslError: What a worker refused to go on with; a ClusterError when workers kept dying.
    """
    config, run_folder, cluster = job.config, job.run_folder, job.config.cluster
    store = find_run_store(config.run.storage, name=config.run.name)
    file_known_checkpoints(store, run_folder)
    keeper = None if store is None else open_keeper(store, job)
    desk = open_desk(run_folder, job.manifest, decode_labels=cluster.decode_labels)
    payload = WorkerPayload(
        config=dump(config),
        run_folder=str(run_folder),
        num_videos=len(job.manifest),
        space=job.space,
        desk=desk,
        keeper=keeper,
        stall_seconds=config.health.stall_seconds,
    )
    watch = _build_watch(config, run_folder, desk)
    scaling = build_scaling(cluster)
    trainer = PolicyTrainer(
        train_worker,
        train_loop_config={"payload": payload},
        scaling_config=scaling,
        scaling_policy=build_policy(config, scaling, desk=desk),
        run_config=ray.train.RunConfig(
            **list_storage(store, run_folder),
            # Workers that a notice announced are counted apart, and without an end.
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.run.checkpoints_to_keep),
        ),
    )
    try:
        with _evaluating(job, desk), watch:
            progress = _read_outcome(cast(dict[str, Any], trainer.fit().return_value))
        bring_results(store, run_folder, num_to_keep=config.run.checkpoints_to_keep)
        return progress
    except ray.train.TrainingFailedError as error:
        if is_disk_full(error):
            raise CheckpointError(describe_full_run(run_folder)) from error
        raise ClusterError(
            f"Training workers failed more than cluster.max_failures={cluster.max_failures} times."
            f"{watch.describe_stalls()} The last error:\n{error}\nResume with: lssl-ray train "
            f"--resume {run_folder if store is None else store.uri}"
        ) from error
    finally:
        for actor in filter(None, (desk, keeper)):
            ray.kill(actor)


def build_stream(
    config: RunConfig, progress: Progress, *, num_videos: int, num_workers: int
) -> ClipStream:
    """The rest of the session's clips, for so many workers."""
    settings = build.build_loop_settings(config, num_videos=num_videos)
    return ClipStream(
        plan=build.build_plan(config, num_videos=num_videos),
        start_position=progress.positions_done,
        num_steps=max(0, settings.stop_at_step - progress.step),
        num_workers=num_workers,
        clips_per_step=config.optim.clips_per_step,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        num_decoders=config.cluster.num_decoders,
        decode_memory_mib=config.cluster.decode_memory_mib,
        max_segment_units=config.cluster.segment_units,
    )


def train_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """One worker's whole life.

    A refusal (`LsslError`) is returned, not raised: Ray would restart the workers and meet it
    again. Anything else is raised, and Ray restarts from the last checkpoint.
    """
    payload, rank = loop_config["payload"], ray.train.get_context().get_world_rank()
    try:
        with watching_worker(payload.desk, rank=rank, seconds=payload.stall_seconds) as on_phase:
            progress = _run_worker(payload, on_phase)
    except LsslError as error:
        return {"refused": type(error).__name__, "message": str(error)}
    return {"progress": vars(progress)}


def _run_worker(payload: WorkerPayload, on_phase: OnPhase) -> Progress:
    config = load_config_text(payload.config)
    run_folder = Path(payload.run_folder)
    store = find_run_store(config.run.storage, name=config.run.name)
    # Of a run in a store, the keeper has it.
    holder = None if store else build_holder(config, run_folder, num_videos=payload.num_videos)
    context = RayContext(
        payload.desk,
        run_folder=run_folder,
        on_checkpoint=None if holder is None else holder.hold,
        keeper=payload.keeper,
    )
    torch.set_num_threads(config.cluster.cpus_per_worker)
    torch.manual_seed(config.run.seed)
    parts = build.build_train_parts(
        config,
        build.build_image_tower(config),
        payload.space,
        num_videos=payload.num_videos,
        device=context.device,
    )
    checkpoint = find_checkpoint(store, run_folder, context=context)
    progress = Progress()
    if checkpoint is not None:
        progress = load_checkpoint(
            checkpoint, task=parts.task, optimizer=parts.optimizer, rank=context.rank
        )
    if context.rank == 0:
        if holder is not None:
            holder.resume(progress.step)
        ray.get(payload.desk.begin_session.remote(progress.step))
    context.all_reduce_sum(torch.zeros(1, device=context.device))  # others wait for the line above
    drop_for_worker(store)
    context.ask_keeper("begin_session", progress.step)
    stream = build_stream(
        config, progress, num_videos=payload.num_videos, num_workers=context.world_size
    )
    blocks = iterate_blocks(stream, rank=context.rank, desk=payload.desk)
    batches = iterate_on_device(blocks, device=context.device)
    if config.data.audit:
        batches = file_positions(
            batches, steps_done=progress.step, rank=context.rank, append=context.append
        )
    progress = run_loop(
        parts.task,
        parts.optimizer,
        parts.schedules,
        batches,
        progress=progress,
        settings=build.build_loop_settings(config, num_videos=payload.num_videos),
        context=context,
        on_phase=on_phase,
    )
    context.ask_keeper("put_record")  # it has taken the last checkpoint by then
    return progress


def iterate_blocks(stream: ClipStream, *, rank: int, desk: Any) -> Generator[Columns, None, None]:
    """One worker's blocks, one per step of the session, segment after segment.

    Args:
        stream: The session's clips; the same for all workers.
        rank: Of this worker.
        desk: Runs Ray Data for all workers; see `desk.RunDesk`.

    Raises:
        RuntimeError: Ray Data delivered other clips than the plan says.
    """
    for segment in range(stream.num_segments):
        shard = ray.get(desk.open_segment.remote(stream, segment, rank))
        blocks = shard.iter_batches(
            batch_size=stream.clips_per_worker,
            batch_format="numpy",
            prefetch_batches=BATCHES_AHEAD,
        )
        for step, columns in zip(stream.segment_steps(segment), blocks, strict=True):
            unit = step * stream.num_workers + rank
            check_positions(columns, expected=stream.unit_positions(unit))
            yield columns


def _evaluating(job: TrainJob, desk: Any) -> AbstractContextManager[None]:
    """Evaluation beside training, whose rows go through the desk like those of training."""
    evaluation = job.config.evaluation
    if not evaluation.every_checkpoints:
        return nullcontext()
    return evaluating_beside(
        job.run_folder,
        start=partial(
            RayValidator,
            job.run_folder,
            gpu_share=evaluation.gpu_share,
            only_here=job.config.run.storage is not None,
        ),
        append=lambda kind, row: ray.get(desk.append.remote(kind, dict(row))),
        best=evaluation.best,
        deadline_seconds=evaluation.deadline_seconds,
        on_waiting=job.on_waiting,
    )


def _build_watch(config: RunConfig, run_folder: Path, desk: Any) -> WorkerWatch:
    needs = {need.name: need for need in list_needs(config)}
    return WorkerWatch(
        desk,
        run_folder=run_folder,
        worker=needs["worker"],
        num_workers=config.cluster.fewest_workers,
        decoder=needs["decoder"],
        num_decoders=config.cluster.num_decoders,
    )


def _read_outcome(outcome: dict[str, Any]) -> Progress:
    if "refused" in outcome:
        kinds = {kind.__name__: kind for kind in (CheckpointError, DataError, TrainingError)}
        raise kinds.get(outcome["refused"], LsslError)(outcome["message"])
    return Progress(**outcome["progress"])
