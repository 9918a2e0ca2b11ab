"""Features of a manifest's videos through Ray Data: decode actors, then encoder actors.

The same functions as `engine.LocalEngine` runs, on the same rows, put back into manifest order.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy

from lssl_ray import build
from lssl_ray.cluster.rows import number_rows
from lssl_ray.cluster.shipping import ShippedWeights, receive_weights, ship_weights
from lssl_ray.config import dump_config, load_config_text
from lssl_ray.engine import EncoderWeights, FeatureJob, OnFeatures, load_encoders
from lssl_ray.evaluation.features import (
    FeatureTable,
    ViewFeatures,
    decode_views,
    encode_view_features,
)
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.recipe import DecodeSettings

VIEWS_PER_BATCH = 16
_GOOD = ClipFailure("", "", "", "", 0.0, 0)
_FAILURE_FIELDS = tuple(field.name for field in fields(ClipFailure))


class DecodeVideos:
    """Ray Data actor: manifest rows in, evaluation views out."""

    def __init__(
        self,
        manifest: "ray.ObjectRef[Manifest]",
        views: Mapping[str, EvaluationView],
        settings: DecodeSettings,
    ) -> None:
        self._manifest = ray.get(manifest)
        self._views = views
        self._process = DecodeProcess(
            deadline_seconds=settings.deadline_seconds,
            recycle_after=settings.recycle_after,
            short_side=settings.short_side,
            memory_limit_mib=settings.memory_limit_mib,
        )

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decode a batch of videos; a bad one is a row that says why."""
        numbers = rows["id"]
        columns = {
            f"frames/{name}": np.zeros(
                (len(numbers), view.num_views, view.num_frames, view.size, view.size, 3),
                dtype=np.uint8,
            )
            for name, view in self._views.items()
        }
        failures = [_GOOD] * len(numbers)
        for i, number in enumerate(numbers.tolist()):
            record = self._manifest.row(number)
            decoded = decode_views(self._process, record, list(self._views.values()))
            if isinstance(decoded, ClipFailure):
                failures[i] = decoded
                continue
            for name, frames in zip(self._views, decoded, strict=True):
                columns[f"frames/{name}"][i] = frames
        for name in _FAILURE_FIELDS:
            values = [asdict(failure)[name] for failure in failures]
            is_text = isinstance(values[0], str)
            columns[name] = np.array(values, dtype=object if is_text else None)
        return {"id": numbers, **columns}


class EncodeVideos:
    """Ray Data actor: views in, two feature columns per encoder and view out."""

    def __init__(
        self,
        job_config: str,
        weights: Mapping[str, EncoderWeights] | Mapping[str, ShippedWeights | None],
        views: tuple[str, ...],
    ) -> None:
        config = load_config_text(job_config)
        torch.set_num_threads(config.cluster.cpus_per_worker)
        self._device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
        self._tower = build.build_image_tower(config)
        with tempfile.TemporaryDirectory(prefix="lssl_ray-weights-") as folder:
            if config.run.storage is not None:
                weights = receive_weights(
                    cast(Mapping[str, ShippedWeights | None], weights), Path(folder)
                )
            self._encoders = load_encoders(
                config,
                self._tower,
                cast(Mapping[str, EncoderWeights], weights),
                device=self._device,
            )
        self._views = views

    def __call__(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode a batch; the pixels go no further."""
        for view in self._views:
            # Copied, because Ray's memory can't be written to and torch warns of that.
            frames = torch.from_numpy(columns.pop(f"frames/{view}").copy()).to(self._device)
            for name, encoder in self._encoders.items():
                features = encode_view_features(
                    encoder, frames, mean=self._tower.mean, std=self._tower.std
                )
                columns[f"joint/{name}/{view}"] = features.joint.numpy()
                columns[f"pooled/{name}/{view}"] = features.pooled.numpy()
        return columns


def extract_features_on_ray(
    job: FeatureJob, *, on_progress: OnFeatures | None = None
) -> FeatureTable:
    """Decode and encode every video on the connected Ray."""
    config, cluster = job.config, job.config.cluster
    manifest = ray.put(job.manifest)
    num_views = sum(view.num_views for view in job.views.values())
    batch_size = max(1, VIEWS_PER_BATCH // num_views)
    # Of a run that is kept in a store, only this machine has the files.
    is_stored = config.run.storage is not None
    weights = ship_weights(job.weights) if is_stored else dict(job.weights)
    decoded = number_rows(len(job.manifest), batch_size=batch_size).map_batches(
        DecodeVideos,
        fn_constructor_args=(manifest, dict(job.views), build.build_decode_settings(config)),
        batch_size=batch_size,
        compute=ActorPoolStrategy(size=cluster.num_decoders),
        num_cpus=1,
        memory=cluster.decode_memory_mib * 2**20,
        label_selector=cluster.decode_labels or None,
    )
    encoded = decoded.map_batches(
        EncodeVideos,
        fn_constructor_args=(dump_config(config), weights, tuple(job.views)),
        batch_size=batch_size,
        compute=ActorPoolStrategy(min_size=cluster.fewest_workers, max_size=cluster.most_workers),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=1 if cluster.use_gpu else 0,
        label_selector=cluster.train_labels or None,
    )
    rows: list[dict[str, Any]] = []
    num_bad = 0
    for row in encoded.iter_rows():
        rows.append(row)
        num_bad += bool(row["reason"])
        if on_progress is not None:
            on_progress(len(rows), len(job.manifest), num_bad)
    return _collect(job, sorted(rows, key=lambda row: int(row["id"])))


def _collect(job: FeatureJob, rows: list[dict[str, Any]]) -> FeatureTable:
    good = [row for row in rows if not row["reason"]]

    def stack(column: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([row[column] for row in good]))

    return FeatureTable(
        video_ids=tuple(job.manifest.row(int(row["id"])).video_id for row in good),
        features={
            name: {
                view: ViewFeatures(
                    joint=stack(f"joint/{name}/{view}"), pooled=stack(f"pooled/{name}/{view}")
                )
                for view in job.views
            }
            for name in (job.weights if good else ())
        },
        failures=tuple(
            ClipFailure(**{name: _to_plain(row[name]) for name in _FAILURE_FIELDS})
            for row in rows
            if row["reason"]
        ),
    )


def _to_plain(value: Any) -> Any:
    """A number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
