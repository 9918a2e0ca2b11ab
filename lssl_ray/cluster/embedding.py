"""Rows of embeddings through Ray Data: decode actors, then encoder actors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy

from lssl_ray.cluster.required_paths import require_embedding_paths
from lssl_ray.cluster.rows import number_rows
from lssl_ray.cluster.session import start_ray, stop_ray
from lssl_ray.config import RunConfig
from lssl_ray.embedding_files import EmbeddedVideo, EmbeddingSource
from lssl_ray.errors import CheckpointError
from lssl_ray.evaluation.features import decode_view
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.inference import load_model
from lssl_ray.predictions import open_decoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.recipe import DecodeSettings

VIDEOS_PER_BATCH = 16


class DecodeForEmbedding:
    """Ray Data actor: manifest rows in, frames out; a bad video is a row that says why."""

    def __init__(
        self,
        manifest: "ray.ObjectRef[Manifest]",
        view: EvaluationView,
        settings: DecodeSettings,
    ) -> None:
        self._manifest = ray.get(manifest)
        self._view = view
        self._process = open_decoder(settings)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decode a batch of videos."""
        numbers = rows["id"]
        view = self._view
        frames = np.zeros((len(numbers), view.num_frames, view.size, view.size, 3), dtype=np.uint8)
        reasons, details = [""] * len(numbers), [""] * len(numbers)
        for row, number in enumerate(numbers.tolist()):
            decoded = decode_view(self._process, self._manifest.row(number), view)
            if isinstance(decoded, ClipFailure):
                reasons[row], details[row] = decoded.reason, decoded.detail
            else:
                frames[row] = decoded
        return {
            "id": numbers,
            "frames": frames,
            "reason": np.array(reasons, dtype=object),
            "detail": np.array(details, dtype=object),
        }


class EmbedVideos:
    """Ray Data actor: views in, embeddings out.

    Raises:
        CheckpointError: This node finds another model than the driver did.
    """

    def __init__(self, source: EmbeddingSource, num_threads: int, device: str) -> None:
        torch.set_num_threads(num_threads)
        self._model = load_model(source.source, weights=source.weights, device=device)
        if self._model.digest != source.digest:
            raise CheckpointError(
                f"{source.source} is {self._model.digest[:12]} on this node and "
                f"{source.digest[:12]} on the driver's; give every node the same files."
            )

    def __call__(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode a batch; the pixels go no further."""
        # Copied, because Ray's memory can't be written to and torch warns of that.
        frames = columns.pop("frames").copy()
        return columns | {"embedding": self._model.encode_frames(frames).cpu().numpy()}


def embed_on_ray(
    config: RunConfig, source: EmbeddingSource, settings: DecodeSettings, manifest: Manifest
) -> Iterator[EmbeddedVideo]:
    """Rows of usable videos, in any order, on a Ray that is started or joined for it.

    Args:
        config: Its cluster section alone says where and how wide.
        source: What every worker loads.
        settings: How videos are opened.
        manifest: Usable videos.
    """
    start_ray(config)
    try:
        require_embedding_paths(config, source, manifest)
        encoded = _build_dataset(config, source, settings, ray.put(manifest))
        for batch in encoded.iter_batches(batch_size=None, batch_format="numpy"):
            yield from _read_rows(batch, manifest)
    finally:
        stop_ray()


def _build_dataset(
    config: RunConfig,
    source: EmbeddingSource,
    settings: DecodeSettings,
    manifest: "ray.ObjectRef[Manifest]",
) -> "ray.data.Dataset":
    cluster = config.cluster
    num_videos = len(ray.get(manifest))
    view = EvaluationView(num_frames=source.num_frames, size=source.size)
    decoded = number_rows(num_videos, batch_size=VIDEOS_PER_BATCH).map_batches(
        DecodeForEmbedding,
        fn_constructor_args=(manifest, view, settings),
        batch_size=VIDEOS_PER_BATCH,
        compute=ActorPoolStrategy(size=cluster.num_decoders),
        num_cpus=1,
        memory=cluster.decode_memory_mib * 2**20,
        **_place_on(cluster.decode_labels),
    )
    return decoded.map_batches(
        EmbedVideos,
        fn_constructor_args=(
            source,
            cluster.cpus_per_worker,
            "cuda" if cluster.use_gpu else "cpu",
        ),
        batch_size=VIDEOS_PER_BATCH,
        compute=ActorPoolStrategy(min_size=cluster.fewest_workers, max_size=cluster.most_workers),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=1 if cluster.use_gpu else 0,
        **_place_on(cluster.train_labels),
    )


def _place_on(labels: dict[str, str]) -> dict[str, Any]:
    return {"label_selector": labels} if labels else {}


def _read_rows(batch: dict[str, Any], manifest: Manifest) -> Iterator[EmbeddedVideo]:
    for row, number in enumerate(batch["id"].tolist()):
        record = manifest.row(number)
        reason, detail = str(batch["reason"][row]), str(batch["detail"][row])
        if reason:
            yield EmbeddedVideo(record, None, reason, detail)
        else:
            embedding = np.asarray(batch["embedding"][row], dtype=np.float32)
            yield EmbeddedVideo(record, embedding, None, None)
