"""What a run needs done, and the engine that does it in this process.

`RayEngine` (`cluster/engine.py`) does the same work on Ray; `run.py` drives either through this
protocol and never knows which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from lssl_ray import build
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig
from lssl_ray.evaluation.features import (
    EvaluationView,
    FeatureTable,
    decode_view,
    encode_views,
)
from lssl_ray.model.clip import ImageTower
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.tracking.journal import Journal
from lssl_ray.training.checkpoint import find_latest_checkpoint, load_checkpoint, load_weights
from lssl_ray.training.context import LocalContext
from lssl_ray.training.loop import run_loop
from lssl_ray.types import ClipFailure, Progress
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import Manifest


@dataclass(frozen=True)
class TrainJob:
    """A training session.

    Attributes:
        config: With absolute paths.
        run_folder: Journal and checkpoints; training goes on from the latest whole checkpoint.
        manifest: Usable videos only.
        space: The concept space.
    """

    config: RunConfig
    run_folder: Path
    manifest: Manifest
    space: ConceptSpace


@dataclass(frozen=True)
class FeatureJob:
    """Features of a manifest under named encoders.

    Attributes:
        config: Says which CLIP, how to open videos, on what to compute.
        manifest: Usable videos only.
        view: How each video is looked at.
        weights: Encoder name to its safetensors file; None for CLIP itself.
    """

    config: RunConfig
    manifest: Manifest
    view: EvaluationView
    weights: Mapping[str, Path | None]


class Engine(Protocol):
    """Does a run's heavy work."""

    def train(self, job: TrainJob) -> Progress:
        """Train to the end of the session; the last checkpoint holds the result."""

    def extract_features(self, job: FeatureJob) -> FeatureTable:
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
        checkpoint = find_latest_checkpoint(job.run_folder)
        if checkpoint is not None:
            progress = load_checkpoint(
                checkpoint, task=parts.task, optimizer=parts.optimizer, rank=0
            )
        journal = Journal(job.run_folder)
        journal.rewind(progress.step)
        batches = iterate_batches(
            job.manifest,
            build.build_plan(config, num_videos=num_videos),
            start_position=progress.positions_done,
            clips_per_step=config.optim.clips_per_step,
            recipe=build.build_recipe(config),
            settings=build.build_decode_settings(config),
            num_decoders=config.cluster.num_decoders,
            device=device,
        )
        context = LocalContext(
            job.run_folder,
            device=device,
            append=journal.append,
            num_to_keep=config.run.checkpoints_to_keep,
        )
        return run_loop(
            parts.task,
            parts.optimizer,
            parts.schedules,
            batches,
            progress=progress,
            settings=build.build_loop_settings(config, num_videos=num_videos),
            context=context,
        )

    def extract_features(self, job: FeatureJob) -> FeatureTable:
        """Decode and encode in this process."""
        device = torch.device("cuda" if job.config.cluster.use_gpu else "cpu")
        torch.set_num_threads(job.config.cluster.cpus_per_worker)
        tower = build.build_image_tower(job.config)
        encoders = load_encoders(job.config, tower, job.weights, device=device)
        settings = build.build_decode_settings(job.config)
        ids: list[str] = []
        failures: list[ClipFailure] = []
        rows: dict[str, list[torch.Tensor]] = {name: [] for name in encoders}
        with DecodeProcess(
            deadline_seconds=settings.deadline_seconds,
            recycle_after=settings.recycle_after,
            short_side=settings.short_side,
        ) as process:
            for record in job.manifest.records():
                frames = decode_view(process, record, job.view)
                if isinstance(frames, ClipFailure):
                    failures.append(frames)
                    continue
                ids.append(record.video_id)
                batch = torch.from_numpy(frames)[None].to(device)
                for name, encoder in encoders.items():
                    rows[name].append(
                        encode_views(encoder, batch, mean=tower.mean, std=tower.std).cpu()
                    )
        return FeatureTable(
            video_ids=tuple(ids),
            features={name: torch.cat(values) for name, values in rows.items() if values},
            failures=tuple(failures),
        )

    def close(self) -> None:
        """Nothing is held between calls."""


def load_encoders(
    config: RunConfig,
    tower: ImageTower,
    weights: Mapping[str, Path | None],
    *,
    device: torch.device,
) -> dict[str, VideoEncoder]:
    """Named encoders in evaluation mode: CLIP as it came, or with weights from checkpoints."""
    encoders = {}
    for name, path in weights.items():
        encoder = build.build_encoder(config, tower).eval().requires_grad_(False)
        if path is not None:
            load_weights(encoder, path)
        encoders[name] = encoder.to(device)
    return encoders
