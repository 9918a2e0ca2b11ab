"""Features of a manifest's videos through Ray Data: decode actors, then encoder actors."""

from dataclasses import asdict
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy

from lssl_ray import build
from lssl_ray.config import dump_config, load_config_text
from lssl_ray.engine import FeatureJob, load_encoders
from lssl_ray.evaluation.features import EvaluationView, FeatureTable, decode_view, encode_views
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.pipeline import DecodeSettings

VIDEOS_PER_BATCH = 16
_FAILURE_FIELDS = ("video_id", "path", "reason", "detail", "seconds", "epoch")


class DecodeVideos:
    """Ray Data actor: manifest rows in, evaluation views out."""

    def __init__(
        self,
        manifest: "ray.ObjectRef[Manifest]",
        view: EvaluationView,
        settings: DecodeSettings,
    ) -> None:
        self._manifest = ray.get(manifest)
        self._view = view
        self._process = DecodeProcess(
            deadline_seconds=settings.deadline_seconds,
            recycle_after=settings.recycle_after,
            short_side=settings.short_side,
        )

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decode a batch of videos; a bad one is a row that says why."""
        numbers = rows["id"]
        view = self._view
        frames = np.zeros((len(numbers), view.num_frames, view.size, view.size, 3), dtype=np.uint8)
        failures = [ClipFailure("", "", "", "", 0.0, 0)] * len(numbers)
        for i, number in enumerate(numbers.tolist()):
            decoded = decode_view(self._process, self._manifest.row(number), view)
            if isinstance(decoded, ClipFailure):
                failures[i] = decoded
            else:
                frames[i] = decoded
        columns = {
            name: np.array([asdict(failure)[name] for failure in failures], dtype=object)
            for name in ("video_id", "path", "reason", "detail")
        }
        columns["seconds"] = np.array([failure.seconds for failure in failures])
        return {"id": numbers, "frames": frames, **columns}


class EncodeVideos:
    """Ray Data actor: views in, one feature column per encoder out."""

    def __init__(self, job_config: str, weights: dict[str, Any]) -> None:
        config = load_config_text(job_config)
        torch.set_num_threads(config.cluster.cpus_per_worker)
        self._device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
        self._tower = build.build_image_tower(config)
        self._encoders = load_encoders(config, self._tower, weights, device=self._device)

    def __call__(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode a batch; the pixels go no further."""
        frames = torch.from_numpy(columns.pop("frames").copy()).to(self._device)
        for name, encoder in self._encoders.items():
            features = encode_views(encoder, frames, mean=self._tower.mean, std=self._tower.std)
            columns[f"feature/{name}"] = features.cpu().numpy()
        return columns


def extract_features_on_ray(job: FeatureJob) -> FeatureTable:
    """Decode and encode every video on the connected Ray."""
    config, cluster = job.config, job.config.cluster
    manifest = ray.put(job.manifest)
    decoded = ray.data.range(len(job.manifest)).map_batches(
        DecodeVideos,
        fn_constructor_args=(manifest, job.view, build.build_decode_settings(config)),
        batch_size=VIDEOS_PER_BATCH,
        compute=ActorPoolStrategy(size=cluster.num_decoders),
        num_cpus=1,
    )
    encoded = decoded.map_batches(
        EncodeVideos,
        fn_constructor_args=(dump_config(config), dict(job.weights)),
        batch_size=VIDEOS_PER_BATCH,
        compute=ActorPoolStrategy(size=cluster.num_workers),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=1 if cluster.use_gpu else 0,
    )
    rows = sorted(encoded.iter_rows(), key=lambda row: int(row["id"]))
    good = [row for row in rows if not row["reason"]]
    return FeatureTable(
        video_ids=tuple(job.manifest.row(int(row["id"])).video_id for row in good),
        features={
            name: torch.from_numpy(np.stack([row[f"feature/{name}"] for row in good]))
            for name in (job.weights if good else ())
        },
        failures=tuple(
            ClipFailure(**{name: row.get(name, 0) for name in _FAILURE_FIELDS})
            for row in rows
            if row["reason"]
        ),
    )
