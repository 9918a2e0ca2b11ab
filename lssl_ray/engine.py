"""What a run needs done, and the engine that does it in this process.

`RayEngine` (`cluster/engine.py`) does the same work on Ray; `run.py` drives either through this
protocol and never knows which.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from lssl_ray import build
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig
from lssl_ray.evaluation.features import (
    FeatureTable,
    ViewFeatures,
    decode_views,
    encode_view_features,
    join_features,
)
from lssl_ray.evaluation.interpolation import interpolate_weights
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.model.clip import ImageTower
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.temporal_file import load_temporal
from lssl_ray.storage.mirror import keep_checkpoints
from lssl_ray.storage.runs import fetch_newest
from lssl_ray.storage.store import find_run_store
from lssl_ray.tracking.journal import QUARANTINE_FILE, Journal, file_damage, read_rows
from lssl_ray.training.audit import file_positions
from lssl_ray.training.checkpoint import find_latest_checkpoint, load_checkpoint, load_weights
from lssl_ray.training.context import LocalContext
from lssl_ray.training.loop import run_loop
from lssl_ray.training.stalling import watching_run
from lssl_ray.types import ClipFailure, Progress
from lssl_ray.validation.child_validator import ChildValidator
from lssl_ray.validation.composing import build_holder
from lssl_ray.validation.session import evaluating_beside
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.offenders import count_offences


@dataclass(frozen=True)
class TrainJob:
    """A training session.

    Attributes:
        config: With absolute paths.
        run_folder: Journal and checkpoints; training goes on from the latest whole checkpoint.
        manifest: Usable videos only.
        space: The concept space.
        on_waiting: Told how many checkpoints still wait to be evaluated when training is over.
    """

    config: RunConfig
    run_folder: Path
    manifest: Manifest
    space: ConceptSpace
    on_waiting: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Interpolated:
    """Weights between CLIP's and adapted ones.

    Attributes:
        adapted: Safetensors file of the adapted encoder.
        alpha: 0 for CLIP, 1 for the adapted ones.
    """

    adapted: Path
    alpha: float


@dataclass(frozen=True)
class TemporalPart:
    """What an export holds beside its image tower, which is adapted already.

    Attributes:
        path: Safetensors file of what time added.
    """

    path: Path


# Of a named encoder: a safetensors file, a mixture, an export's, or None for CLIP itself.
EncoderWeights = Path | Interpolated | TemporalPart | None


@dataclass(frozen=True)
class FeatureJob:
    """Features of a manifest under named encoders.

    Attributes:
        config: Says which CLIP, how to open videos, on what to compute.
        manifest: Usable videos only.
        views: How each video is looked at, by name; all of them from one decoding.
        weights: Encoder name to its weights.
    """

    config: RunConfig
    manifest: Manifest
    views: Mapping[str, EvaluationView]
    weights: Mapping[str, EncoderWeights]


# Told how many videos of how many are done, and how many of those did not decode.
OnFeatures = Callable[[int, int, int], None]


class Engine(Protocol):
    """Does a run's heavy work."""

    def train(self, job: TrainJob) -> Progress:
        """Train to the end of the session; the last checkpoint holds the result.

        With `evaluation.every_checkpoints` checkpoints are evaluated meanwhile, the last one after.
        """

    def extract_features(
        self, job: FeatureJob, *, on_progress: OnFeatures | None = None
    ) -> FeatureTable:
        """Decode and encode every video of a manifest."""

    def close(self) -> None:
        """Give back what the engine holds."""


class LocalEngine:
    """One process, no Ray: for debugging, and the reference that Ray runs are tested against."""

    def train(self, job: TrainJob) -> Progress:
        """Train in this process."""
        config = job.config
        device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
        num_videos = len(job.manifest)
        torch.set_num_threads(config.cluster.cpus_per_worker)
        torch.manual_seed(config.run.seed)
        parts = build.build_train_parts(
            config, build.build_image_tower(config), job.space, num_videos=num_videos, device=device
        )
        progress = Progress()
        journal = Journal(job.run_folder)
        on_damage = partial(file_damage, journal.append)
        store = find_run_store(config.run.storage, name=config.run.name)
        if store is not None:
            fetch_newest(store, job.run_folder, on_damage=on_damage)
        checkpoint = find_latest_checkpoint(job.run_folder, on_damage=on_damage)
        if checkpoint is not None:
            progress = load_checkpoint(
                checkpoint, task=parts.task, optimizer=parts.optimizer, rank=0
            )
        journal.rewind(progress.step)
        quarantine = read_rows(job.run_folder / QUARANTINE_FILE)
        batches = iterate_batches(
            job.manifest,
            build.build_plan(config, num_videos=num_videos),
            start_position=progress.positions_done,
            clips_per_step=config.optim.clips_per_step,
            recipe=build.build_recipe(config),
            settings=build.build_decode_settings(config),
            num_decoders=config.cluster.num_decoders,
            device=device,
            offences=count_offences(quarantine),
        )
        if config.data.audit:
            batches = file_positions(
                batches, steps_done=progress.step, rank=0, append=journal.append
            )
        holder = build_holder(config, job.run_folder, num_videos=num_videos)
        context = LocalContext(
            job.run_folder,
            device=device,
            append=journal.append,
            num_to_keep=config.run.checkpoints_to_keep,
            on_checkpoint=keep_checkpoints(
                store,
                job.run_folder,
                num_to_keep=config.run.checkpoints_to_keep,
                then=None if holder is None else holder.hold,
            ),
        )
        beside: AbstractContextManager[None] = nullcontext()
        if holder is not None:
            holder.resume(progress.step)
            beside = evaluating_beside(
                job.run_folder,
                start=partial(ChildValidator, job.run_folder),
                append=journal.append,
                best=config.evaluation.best,
                deadline_seconds=config.evaluation.deadline_seconds,
                on_waiting=job.on_waiting,
            )
        stall_seconds = config.health.stall_seconds
        with beside, watching_run(job.run_folder, seconds=stall_seconds) as on_phase:
            return run_loop(
                parts.task,
                parts.optimizer,
                parts.schedules,
                batches,
                progress=progress,
                settings=build.build_loop_settings(config, num_videos=num_videos),
                context=context,
                on_phase=on_phase,
            )

    def extract_features(
        self, job: FeatureJob, *, on_progress: OnFeatures | None = None
    ) -> FeatureTable:
        """Decode and encode in this process."""
        device = torch.device("cuda" if job.config.cluster.use_gpu else "cpu")
        torch.set_num_threads(job.config.cluster.cpus_per_worker)
        tower = build.build_image_tower(job.config)
        encoders = load_encoders(job.config, tower, job.weights, device=device)
        settings = build.build_decode_settings(job.config)
        ids: list[str] = []
        failures: list[ClipFailure] = []
        rows: dict[tuple[str, str], list[ViewFeatures]] = {
            (name, view): [] for name in encoders for view in job.views
        }
        with DecodeProcess(
            deadline_seconds=settings.deadline_seconds,
            recycle_after=settings.recycle_after,
            short_side=settings.short_side,
            memory_limit_mib=settings.memory_limit_mib,
        ) as process:
            for number in range(len(job.manifest)):
                record = job.manifest.row(number)
                decoded = decode_views(process, record, list(job.views.values()))
                if isinstance(decoded, ClipFailure):
                    failures.append(decoded)
                else:
                    ids.append(record.video_id)
                    for view, frames in zip(job.views, decoded, strict=True):
                        batch = torch.from_numpy(frames)[None].to(device)
                        for name, encoder in encoders.items():
                            rows[name, view].append(
                                encode_view_features(encoder, batch, mean=tower.mean, std=tower.std)
                            )
                if on_progress is not None:
                    on_progress(number + 1, len(job.manifest), len(failures))
        return FeatureTable(
            video_ids=tuple(ids),
            features={
                name: {view: join_features(rows[name, view]) for view in job.views}
                for name in (encoders if ids else ())
            },
            failures=tuple(failures),
        )

    def close(self) -> None:
        """Nothing is held between calls."""


def load_encoders(
    config: RunConfig,
    tower: ImageTower,
    weights: Mapping[str, EncoderWeights],
    *,
    device: torch.device,
) -> dict[str, VideoEncoder]:
    """Named encoders in evaluation mode: CLIP as it came, from checkpoints, or in between."""
    encoders = {}
    for name, source in weights.items():
        # Random temporal weights have no effect in CLIP itself, but are a part of mixtures.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            encoder = build.build_encoder(config, tower).eval().requires_grad_(False)
        if isinstance(source, Interpolated):
            clip = {key: value.clone() for key, value in encoder.state_dict().items()}
            load_weights(encoder, source.adapted)
            mixed = interpolate_weights(clip, encoder.state_dict(), alpha=source.alpha)
            encoder.load_state_dict(mixed)
        elif isinstance(source, TemporalPart):
            load_temporal(encoder, source.path)
        elif source is not None:
            load_weights(encoder, source)
        encoders[name] = encoder.to(device)
    return encoders
