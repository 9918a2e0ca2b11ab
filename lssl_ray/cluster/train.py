"""Ray Train wiring: a `TorchTrainer` whose workers run `training/loop.py`."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import ray.train.torch
import torch
import torch.distributed
from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    DataConfig,
    FailureConfig,
    ScalingConfig,
)
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from lssl_ray import build
from lssl_ray.cluster.data import ClipStream, build_clip_dataset, check_positions
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig, load_config_text
from lssl_ray.config import dump_config as dump
from lssl_ray.engine import TrainJob
from lssl_ray.errors import ClusterError, DataError, LsslError, TrainingError
from lssl_ray.tracking.journal import Journal
from lssl_ray.training.checkpoint import (
    CHECKPOINTS_FOLDER,
    find_latest_checkpoint,
    load_checkpoint,
    load_progress,
)
from lssl_ray.training.context import Record
from lssl_ray.training.loop import run_loop
from lssl_ray.types import ClipBatch, Progress
from lssl_ray.video.pipeline import unpack_batch

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 2
_DATASET = "clips"


@dataclass(frozen=True)
class WorkerPayload:
    """What a worker is told; plain data, the configuration as text."""

    config: str
    run_folder: str
    num_videos: int
    space: ConceptSpace
    journal: Any


@ray.remote(num_cpus=0)
class JournalActor:
    """The run folder's journal, on the driver's node, for workers wherever they are."""

    def __init__(self, run_folder: str) -> None:
        self._journal = Journal(Path(run_folder))

    def append(self, kind: str, record: dict[str, Any]) -> None:
        """Add one row."""
        self._journal.append(kind, record)

    def rewind(self, step: int) -> None:
        """Drop rows after a step."""
        self._journal.rewind(step)


class RayContext:
    """`TrainContext` of a Ray Train worker."""

    def __init__(self, journal: Any) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._journal = journal
        self._unconfirmed: list[ray.ObjectRef[None]] = []

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over workers."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def record_metrics(self, record: Record) -> None:
        """Send a row to the journal without waiting for it."""
        self._send("metrics", record)

    def record_failure(self, record: Record) -> None:
        """Send a quarantine row."""
        self._send("quarantine", record)

    def save_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Write locally, let Ray put all workers' files into the run's storage, wait for both.

        Rows are confirmed first: a run that resumes here has every row up to here.
        """
        ray.get(self._unconfirmed)
        self._unconfirmed.clear()
        staging = tempfile.mkdtemp(prefix="lssl-checkpoint-")
        try:
            write(Path(staging))
            ray.train.report(
                {"checkpoint": name},
                checkpoint=Checkpoint.from_directory(staging),
                checkpoint_dir_name=f"{CHECKPOINTS_FOLDER}/{name}",
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _send(self, kind: str, record: Record) -> None:
        self._unconfirmed.append(self._journal.append.remote(kind, dict(record)))


def train_on_ray(job: TrainJob) -> Progress:
    """Run a training session on the connected Ray.

    Raises:
        LsslError: What a worker refused to go on with; a ClusterError when workers kept dying.
    """
    config, run_folder = job.config, job.run_folder
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    journal = cast(Any, JournalActor).options(scheduling_strategy=here).remote(str(run_folder))
    manifest = ray.put(job.manifest)
    num_videos = len(job.manifest)

    def build_dataset() -> Dataset:
        # Called anew at every start of the workers: after a failure, from the last checkpoint.
        stream = build_stream(config, _load_latest_progress(run_folder), num_videos=num_videos)
        return build_clip_dataset(stream, manifest)

    cluster = config.cluster
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "payload": WorkerPayload(
                config=dump(config),
                run_folder=str(run_folder),
                num_videos=num_videos,
                space=job.space,
                journal=journal,
            )
        },
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=cluster.use_gpu,
            resources_per_worker={
                "CPU": cluster.cpus_per_worker,
                **({"GPU": 1} if cluster.use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=run_folder.name,
            storage_path=str(run_folder.parent),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.run.checkpoints_to_keep),
        ),
        datasets={_DATASET: build_dataset},
        dataset_config=DataConfig(execution_options=ExecutionOptions(preserve_order=True)),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise ClusterError(
            f"Training workers failed more than cluster.max_failures={cluster.max_failures} times. "
            f"The last error:\n{error}\nResume with: lssl-ray train --resume {config.run.name}"
        ) from error
    finally:
        ray.kill(journal)
    return _read_outcome(cast(dict[str, Any], result.return_value))


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
    context = RayContext(payload.journal)
    torch.set_num_threads(config.cluster.cpus_per_worker)
    torch.manual_seed(config.run.seed)
    parts = build.build_train_parts(
        config,
        build.build_image_tower(config),
        payload.space,
        num_videos=payload.num_videos,
        device=context.device,
    )
    checkpoint = find_latest_checkpoint(Path(payload.run_folder))
    progress = Progress()
    if checkpoint is not None:
        progress = load_checkpoint(
            checkpoint, task=parts.task, optimizer=parts.optimizer, rank=context.rank
        )
    if context.rank == 0:
        ray.get(payload.journal.rewind.remote(progress.step))
    stream = build_stream(config, progress, num_videos=payload.num_videos)
    return run_loop(
        parts.task,
        parts.optimizer,
        parts.schedules,
        _iterate_shard(ray.train.get_dataset_shard(_DATASET), stream, context),
        progress=progress,
        settings=build.build_loop_settings(config, num_videos=payload.num_videos),
        context=context,
    )


def _iterate_shard(
    shard: DataIterator, stream: ClipStream, context: RayContext
) -> Iterator[ClipBatch]:
    blocks = shard.iter_batches(
        batch_size=stream.clips_per_worker,
        batch_format="numpy",
        prefetch_batches=BATCHES_AHEAD,
    )
    for step, columns in enumerate(blocks):
        unit = step * stream.num_workers + context.rank
        check_positions(columns, expected_start=stream.unit_start(unit))
        yield unpack_batch(columns, device=context.device)


def _load_latest_progress(run_folder: Path) -> Progress:
    checkpoint = find_latest_checkpoint(run_folder)
    return Progress() if checkpoint is None else load_progress(checkpoint)


def _read_outcome(outcome: dict[str, Any]) -> Progress:
    if "refused" in outcome:
        kinds = {kind.__name__: kind for kind in (DataError, TrainingError)}
        raise kinds.get(outcome["refused"], LsslError)(outcome["message"])
    return Progress(**outcome["progress"])
