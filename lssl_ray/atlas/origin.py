"""What an atlas was made of and how, as plain data, and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lssl_ray import __version__
from lssl_ray.atlas.request import AtlasRequest
from lssl_ray.atlas.thumbnails import Thumbnails
from lssl_ray.evaluating.gathering import GatheredFeatures
from lssl_ray.evaluating.sources import EvaluatedModel
from lssl_ray.evaluation.report import describe_excluded, list_indexed_failures
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest, VideoRecord

ATLAS_VERSION = 1
EXCLUSION_RULE = "A video that can't be decoded is in no list, count or map, before and after."


def describe_origin(
    request: AtlasRequest,
    model: EvaluatedModel,
    listed: Manifest,
    records: Sequence[VideoRecord],
    gathered: GatheredFeatures,
    *,
    view: EvaluationView,
) -> dict[str, Any]:
    """Model, videos and view of an atlas.

    Args:
        request: What was asked for.
        model: Whose atlas it is.
        listed: All rows of all manifests.
        records: The same as objects.
        gathered: Features of the videos that decoded.
        view: How videos were looked at.
    """
    assert model.space is not None
    bad = list_indexed_failures(records, {record.video_id for record in records})
    decoded = set(gathered.video_ids)
    return {
        "version": ATLAS_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "created_by": f"lssl_ray {__version__}",
        "command": request.describe_command(),
        "model": {
            "title": model.title,
            "clip": model.config.clip.model,
            "clip_digest": model.clip.digest,
            "checkpoint": str(model.checkpoint),
            "step": model.step,
            "digests": dict(gathered.digests),
            "templates": list(model.space.templates),
        },
        "videos": {
            "manifests": [str(path) for path in request.manifests],
            "root": listed.root,
            "digest": listed.digest(),
            "listed": len(records),
            "decoded": len(decoded),
            "labelled": sum(one.label is not None and one.video_id in decoded for one in records),
        },
        "view": view.to_json(),
        "features": {"from_cache": gathered.num_cached, "made": gathered.num_made},
        "excluded_undecodable": describe_excluded([*bad, *gathered.failures])
        | {"rule": EXCLUSION_RULE},
    }


def describe_pictures(pictures: Thumbnails) -> dict[str, Any]:
    """How many pictures there are, and which are missing."""
    return {
        "count": sum(map(bool, pictures.addresses)),
        "bytes": pictures.num_bytes,
        "height": pictures.height,
        "left_out_for_size": pictures.num_left_out,
        "failed": [asdict(failure) for failure in pictures.failures],
    }


def describe_atlas(facts: Mapping[str, Any], written: tuple[Path, Path]) -> list[str]:
    """Lines for a person."""
    videos, excluded, pictures = facts["videos"], facts["excluded_undecodable"], facts["thumbnails"]
    features = facts["features"]
    lines = [
        f"{videos['decoded']} clips of {videos['usable']} usable videos, {videos['labelled']} with "
        f"label; features: {features['from_cache']} sets from the cache, {features['made']} made"
    ]
    for space in facts["spaces"]:
        shown = f"{len(space['concepts'])} of {space['num_concepts']}"
        lines.append(f"Concepts shown ({space['kind']}): {shown}")
    if excluded["count"]:
        reasons = ", ".join(f"{name} {count}" for name, count in excluded["by_reason"].items())
        lines.append(f"excluded_undecodable: {excluded['count']} ({reasons})")
    if pictures["failed"] or pictures["left_out_for_size"]:
        lines.append(
            f"Clips without picture: {len(pictures['failed'])} gave no frames now, "
            f"{pictures['left_out_for_size']} did not fit"
        )
    size = written[0].stat().st_size / 2**20
    return [*lines, f"Atlas: {written[0]} ({size:.1f} MiB); facts: {written[1]}"]


def count_reasons(failures: Sequence[ClipFailure]) -> str:
    """Failures by reason, as a text."""
    counts = describe_excluded(failures)["by_reason"]
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "none is usable"
