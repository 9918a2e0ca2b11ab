"""Before and after, side by side: CLIP's frame average and the adapted teacher on one split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lssl_ray.concepts.bank import resolve_label
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.errors import DataError
from lssl_ray.evaluation.features import FeatureTable
from lssl_ray.evaluation.zero_shot import ZeroShotResult, compute_zero_shot
from lssl_ray.video.manifest import Manifest

CLIP, ADAPTED = "clip", "adapted"


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
        name: compute_zero_shot(features, space.categories, labels=space.labels, truth=truth)
        for name, features in table.features.items()
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
