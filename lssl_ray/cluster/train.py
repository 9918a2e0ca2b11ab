"""Ray Train wiring: a `TorchTrainer` whose workers run `training/loop.py`."""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from lssl_ray import build
from lssl_ray.cluster.context import RayContext
from lssl_ray.cluster.data import ClipStream, check_positions
from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.validator import RayValidator
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig, load_config_text
from lssl_ray.config import dump_config as dump
from lssl_ray.engine import TrainJob
from lssl_ray.errors import ClusterError, DataError, LsslError, TrainingError
from lssl_ray.training.audit import file_positions
from lssl_ray.training.checkpoint import find_latest_checkpoint, load_checkpoint
from lssl_ray.training.loop import run_loop
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


def train_on_ray(job: TrainJob) -> Progress:
    """Run a training session on the connected Ray.

    Raises:
        LsslError: What a worker refused to go on with; a ClusterError when workers kept dying.
    """
    config, run_folder, cluster = job.config, job.run_folder, job.config.cluster
    desk = open_desk(run_folder, job.manifest, decode_labels=cluster.decode_labels)
    payload = WorkerPayload(
        config=dump(config),
        run_folder=str(run_folder),
        num_videos=len(job.manifest),
        space=job.space,
        desk=desk,
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"payload": payload},
        scaling_config=_build_scaling(config),
        run_config=ray.train.RunConfig(
            name=run_folder.name,
            storage_path=str(run_folder.parent),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.run.checkpoints_to_keep),
        ),
    )
    try:
        with _evaluating(job, desk):
            return _read_outcome(cast(dict[str, Any], trainer.fit().return_value))
    except ray.train.TrainingFailedError as error:
        raise ClusterError(
            f"Training workers failed more than cluster.max_failures={cluster.max_failures} times. "
            f"The last error:\n{error}\nResume with: lssl-ray train --resume {config.run.name}"
        ) from error
    finally:
        ray.kill(desk)


def build_stream(config: RunConfig, progress: Progress, *, num_videos: int) -> ClipStream:
    """The rest of the session's clips."""
    settings = build.build_loop_settings(config, num_videos=num_videos)
    num_workers = config.cluster.num_workers
    return ClipStream(
        plan=build.build_plan(config, num_videos=num_videos),
        start_position=progress.positions_done,
        num_steps=max(0, settings.stop_at_step - progress.step),
        num_workers=num_workers,
        clips_per_worker=config.optim.clips_per_step // num_workers,
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
    try:
        progress = _run_worker(loop_config["payload"])
    except LsslError as error:
        return {"refused": type(error).__name__, "message": str(error)}
    return {"progress": vars(progress)}


def _run_worker(payload: WorkerPayload) -> Progress:
    config = load_config_text(payload.config)
    run_folder = Path(payload.run_folder)
    holder = build_holder(config, run_folder, num_videos=payload.num_videos)
    context = RayContext(
        payload.desk,
        run_folder=run_folder,
        on_checkpoint=None if holder is None else holder.hold,
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
    checkpoint = find_latest_checkpoint(run_folder)
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
    stream = build_stream(config, progress, num_videos=payload.num_videos)
    blocks = iterate_blocks(stream, rank=context.rank, desk=payload.desk)
    batches = iterate_on_device(blocks, device=context.device)
    if config.data.audit:
        batches = file_positions(
            batches, steps_done=progress.step, rank=context.rank, append=context.append
        )
    return run_loop(
        parts.task,
        parts.optimizer,
        parts.schedules,
        batches,
        progress=progress,
        settings=build.build_loop_settings(config, num_videos=payload.num_videos),
        context=context,
    )


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
            check_positions(
                columns,
                expected_start=stream.unit_start(unit),
                num_positions=stream.plan.num_positions,
            )
            yield columns


def _evaluating(job: TrainJob, desk: Any) -> AbstractContextManager[None]:
    """Evaluation beside training, whose rows go through the desk like those of training."""
    evaluation = job.config.evaluation
    if not evaluation.every_checkpoints:
        return nullcontext()
    return evaluating_beside(
        job.run_folder,
        start=partial(RayValidator, job.run_folder, gpu_share=evaluation.gpu_share),
        append=lambda kind, row: ray.get(desk.append.remote(kind, dict(row))),
        best=evaluation.best,
        deadline_seconds=evaluation.deadline_seconds,
        on_waiting=job.on_waiting,
    )


def _build_scaling(config: RunConfig) -> ScalingConfig:
    cluster = config.cluster
    return ScalingConfig(
        num_workers=cluster.num_workers,
        use_gpu=cluster.use_gpu,
        resources_per_worker={
            "CPU": cluster.cpus_per_worker,
            **({"GPU": 1} if cluster.use_gpu else {}),
        },
        label_selector=cluster.train_labels or None,
    )


def _read_outcome(outcome: dict[str, Any]) -> Progress:
    if "refused" in outcome:
        kinds = {kind.__name__: kind for kind in (DataError, TrainingError)}
        raise kinds.get(outcome["refused"], LsslError)(outcome["message"])
    return Progress(**outcome["progress"])
