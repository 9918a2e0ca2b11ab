"""Features for an evaluation: from the cache where they are, else extracted and kept.

All views that are missing for a video come from one decoding of it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch

from lssl_ray.config import RunConfig
from lssl_ray.engine import EncoderWeights, Engine, FeatureJob, OnFeatures, load_encoders
from lssl_ray.evaluation.cache import (
    FeatureCache,
    FeatureKey,
    FeatureSet,
    compute_videos_digest,
    join_sets,
)
from lssl_ray.evaluation.features import FeatureTable, ViewFeatures
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.model.clip import ImageTower
from lssl_ray.model_sources import compute_model_digest
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest

# Encoders in memory at a time: of a curve over many, videos are decoded once per so many.
MAX_ENCODERS = 4

Pair = tuple[str, str]


@dataclass(frozen=True)
class GatheredFeatures:
    """Features of the videos that decoded.

    Attributes:
        video_ids: In manifest order.
        features: Encoder, then view.
        failures: The videos that did not decode.
        digests: Encoder to the digest of its weights and architecture.
        num_cached: Sets (one encoder, one view) that came from the cache.
        num_made: Sets that were extracted.
        num_damaged: Sets that were found damaged in the cache, and were extracted again.
    """

    video_ids: tuple[str, ...]
    features: Mapping[str, Mapping[str, ViewFeatures]]
    failures: tuple[ClipFailure, ...]
    digests: Mapping[str, str]
    num_cached: int
    num_made: int
    num_damaged: int


def gather_features(
    config: RunConfig,
    tower: ImageTower,
    manifest: Manifest,
    *,
    views: Mapping[str, EvaluationView],
    weights: Mapping[str, EncoderWeights],
    cache: FeatureCache,
    open_engine: Callable[[], Engine],
    on_progress: OnFeatures | None = None,
) -> GatheredFeatures:
    """Features of usable videos under named encoders and views.

    Args:
        config: Says how to open videos, and on what to compute.
        tower: The CLIP that the encoders continue.
        manifest: Usable videos only.
        views: By name.
        weights: By encoder name.
        cache: Where features are kept.
        open_engine: Starts what extracts; called once something is missing.
        on_progress: See `engine.OnFeatures`.

    Raises:
        CheckpointError: Weights that don't fit the architecture.
        DataError: The cache holds another model's features under this one's name.
    """
    digests = {name: compute_digest(config, tower, source) for name, source in weights.items()}
    videos_digest = compute_videos_digest(manifest)
    keys = {
        (name, view): FeatureKey(
            encoder_digest=digests[name],
            view=looked,
            short_side=config.data.decode_short_side,
            videos_digest=videos_digest,
        )
        for name in weights
        for view, looked in views.items()
    }
    found: dict[Pair, FeatureSet] = {}
    for pair, key in keys.items():
        kept = cache.load(key)
        if kept is not None:
            found[pair] = kept
    num_cached = len(found)
    for job in _plan_jobs(config, manifest, views, weights, have=found):
        table = open_engine().extract_features(job, on_progress=on_progress)
        for pair in ((name, view) for name in job.weights for view in job.views):
            if pair not in found:
                found[pair] = _take(table, pair)
                cache.save(keys[pair], found[pair])
    joined, features = join_sets({_join(pair): part for pair, part in found.items()})
    return GatheredFeatures(
        video_ids=joined.video_ids,
        features={
            name: {view: features[_join((name, view))] for view in views}
            for name in (weights if features else ())
        },
        failures=joined.failures,
        digests=digests,
        num_cached=num_cached,
        num_made=len(found) - num_cached,
        num_damaged=cache.num_damaged,
    )


def compute_digest(config: RunConfig, tower: ImageTower, source: EncoderWeights) -> str:
    """SHA-256 of all that decides an encoder's features but the frames."""
    cpu = torch.device("cpu")
    encoder = load_encoders(config, tower, {"one": source}, device=cpu)["one"]
    parts = [compute_model_digest(encoder), list(tower.mean), list(tower.std)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def select_videos(manifest: Manifest, video_ids: tuple[str, ...]) -> Manifest:
    """The usable videos among some, in manifest order."""
    mask = pc.is_in(manifest.table["video_id"], value_set=pa.array(video_ids, pa.string()))
    return Manifest(manifest.table.filter(mask).combine_chunks(), root=manifest.root).usable()


def _plan_jobs(
    config: RunConfig,
    manifest: Manifest,
    views: Mapping[str, EvaluationView],
    weights: Mapping[str, EncoderWeights],
    *,
    have: Mapping[Pair, FeatureSet],
) -> list[FeatureJob]:
    """What is missing, encoders that miss the same views together."""
    by_views: dict[tuple[str, ...], list[str]] = {}
    for name in weights:
        missing = tuple(view for view in views if (name, view) not in have)
        if missing:
            by_views.setdefault(missing, []).append(name)
    return [
        FeatureJob(
            config=config,
            manifest=manifest,
            views={view: views[view] for view in missing},
            weights={name: weights[name] for name in names[start : start + MAX_ENCODERS]},
        )
        for missing, names in by_views.items()
        for start in range(0, len(names), MAX_ENCODERS)
    ]


def _take(table: FeatureTable, pair: Pair) -> FeatureSet:
    name, view = pair
    features = table.features[name][view] if table.video_ids else None
    return FeatureSet(video_ids=table.video_ids, features=features, failures=table.failures)


def _join(pair: Pair) -> str:
    return "\n".join(pair)
