"""Before and after, side by side: CLIP's frame average and the adapted teacher on one split."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lssl_ray.concepts.bank import resolve_label
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.errors import DataError
from lssl_ray.evaluation.features import FeatureTable
from lssl_ray.evaluation.zero_shot import ZeroShotResult, compute_zero_shot
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest, VideoRecord

CLIP, ADAPTED = "clip", "adapted"
EXCLUSION_RULE = (
    "A video that can't be decoded is left out of every figure (excluded_undecodable), for all "
    "models alike; beside each top-1 stands the one that counts it as wrong."
)
SWEEP_WARNING = (
    "Alpha must not be chosen on these videos: a value picked at the best point here has seen the "
    "test. Choose it on other labelled videos, or report the whole curve."
)


@dataclass(frozen=True)
class SplitResult:
    """Zero-shot accuracy of both encoders on the same videos.

    Attributes:
        clip: Frame-averaged CLIP, through the same code.
        adapted: The teacher.
        num_excluded: Videos that could not be decoded, excluded from both.
    """

    clip: ZeroShotResult
    adapted: ZeroShotResult
    num_excluded: int

    @property
    def gain(self) -> float:
        """Adapted minus CLIP, in points (percent)."""
        return 100 * (self.adapted.top1 - self.clip.top1)

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        labels = self.clip.per_class
        return {
            "videos": self.clip.num_videos,
            "excluded_undecodable": self.num_excluded,
            "clip_top1": round(100 * self.clip.top1, 2),
            "adapted_top1": round(100 * self.adapted.top1, 2),
            "gain_points": round(self.gain, 2),
            "per_class": {
                label: {
                    "videos": labels[label][1],
                    "clip_right": labels[label][0],
                    "adapted_right": self.adapted.per_class[label][0],
                }
                for label in labels
            },
        }


def compare_zero_shot(table: FeatureTable, manifest: Manifest, space: ConceptSpace) -> SplitResult:
    """Score both encoders' features on the videos that have labels.

    Labels may be the published names of a dataset in the bank (`ApplyEyeMakeup`).

    Raises:
        DataError: Videos without labels, or labels the space does not know.
    """
    if not table.video_ids:
        raise DataError(
            f"None of {len(table.failures)} evaluation videos could be decoded; quarantine.jsonl "
            "has the reasons."
        )
    truth_by_id = {record.video_id: record.label for record in manifest.records()}
    labels = require_labels([truth_by_id[video_id] for video_id in table.video_ids])
    truth = [resolve_label(label, space.labels) for label in labels]
    results = {
        name: compute_zero_shot(
            table.joint(name), space.categories, labels=space.labels, truth=truth
        )
        for name in table.features
    }
    return SplitResult(
        clip=results[CLIP], adapted=results[ADAPTED], num_excluded=len(table.failures)
    )


def require_labels(labels: Sequence[str | None]) -> list[str]:
    """The labels, when every video has one.

    Raises:
        DataError: Some have none.
    """
    known = [label for label in labels if label is not None]
    if not known or len(known) < len(labels):
        raise DataError(
            f"{len(labels) - len(known)} of {len(labels)} videos of the evaluation manifest have "
            "no label. Index them again with --labels folders or --labels FILE.csv."
        )
    return known


def describe_excluded(failures: Sequence[ClipFailure]) -> dict[str, Any]:
    """Videos that take part in no figure: counts by reason, then every one."""
    counts = Counter(failure.reason for failure in failures)
    return {
        "rule": EXCLUSION_RULE,
        "count": len(failures),
        "by_reason": dict(counts.most_common()),
        "videos": [
            {
                "video_id": failure.video_id,
                "path": failure.path,
                "reason": failure.reason,
                "detail": failure.detail,
            }
            for failure in failures
        ],
    }


def list_indexed_failures(
    records: Sequence[VideoRecord], video_ids: Collection[str]
) -> list[ClipFailure]:
    """Videos among some that the index found bad, as decoding would report them."""
    return [
        ClipFailure(
            video_id=record.video_id,
            path=record.path,
            reason=record.reason or "bad",
            detail=record.detail or "found by the index",
            seconds=0.0,
            epoch=0,
        )
        for record in records
        if record.status != "ok" and record.video_id in video_ids
    ]
