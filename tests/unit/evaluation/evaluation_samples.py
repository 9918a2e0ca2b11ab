"""A made-up evaluation: two models, features that are known to the number."""

from typing import Any

import torch
import torch.nn.functional as F

from lssl_ray.evaluation.features import ViewFeatures
from lssl_ray.evaluation.outcome import Outcome
from lssl_ray.evaluation.protocols import Setting, run_protocol
from lssl_ray.evaluation.targets import Division, Target


def build_setting(
    *, labels: tuple[str, ...] = ("a", "b", "c"), per_label: int = 6, num_test: int = 2
) -> Setting:
    """Per label training and test videos; `adapted` is right, `clip` always says the first label.

    The last test video of the last label did not decode.
    """
    truth = [label for label in labels for _ in range(per_label)]
    places = range(len(truth))
    test = tuple(row for row in places if row % per_label >= per_label - num_test)
    train = tuple(row for row in places if row not in test)
    target = Target(
        benchmark="own",
        video_ids=tuple(f"{row}.mp4" for row in places),
        truth=tuple(truth),
        labels=labels,
        divisions=(Division("val", train, test),),
    )
    decoded = len(truth) - 1
    right = F.one_hot(torch.tensor([labels.index(name) for name in truth[:decoded]]), len(labels))
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(decoded, 2, len(labels), generator=generator)
    good = right[:, None].float() + noise
    poor = torch.zeros_like(good)
    poor[..., 0] = 1.0
    poor += noise

    def build(rows: torch.Tensor) -> ViewFeatures:
        return ViewFeatures(joint=F.normalize(rows, dim=-1), pooled=3 * rows)

    return Setting(
        target=target,
        video_ids=target.video_ids[:decoded],
        features={
            "clip": {"slow": build(poor), "fast": build(poor)},
            "adapted": {"slow": build(good), "fast": build(good)},
        },
        categories=torch.eye(len(labels)),
        readings={"clip": "none", "adapted": "vocabulary"},
    )


def build_outcomes(setting: Setting) -> list[Outcome]:
    """Zero-shot and k-NN on it."""
    return [*run_protocol("zero_shot", setting), *run_protocol("knn", setting)]


def build_report(setting: Setting, outcomes: list[Outcome], **changes: Any) -> dict[str, Any]:
    """What `lssl-ray evaluate` would say of it."""
    target = setting.target
    report: dict[str, Any] = {
        "version": 1,
        "name": "sample",
        "created": "2026-11-21T13:00:00+00:00",
        "created_by": "lssl_ray test",
        "command": "lssl-ray evaluate runs/x val.parquet",
        "model": {
            "title": "run, step 4",
            "clip": "ViT-B-16",
            "clip_weights": None,
            "clip_digest": "1" * 64,
            "checkpoint": "/runs/run/checkpoints/step_00000004",
            "alpha": 1.0,
            "digests": {"clip": "2" * 64, "adapted": "3" * 64},
        },
        "benchmark": target.benchmark,
        "manifest": {"root": "/videos", "digest": "4" * 64},
        "coverage": None,
        "divisions": [],
        "labels": {"source": "labels.yaml", "names": list(target.labels)},
        "templates": ["a video of {}."],
        "transductive": {
            "transductive": "vocabulary",
            "labels_in_training_vocabulary": 3,
            "labels": 3,
            "videos_seen_in_training": 0,
            "videos": 18,
        },
        "excluded_undecodable": {
            "rule": "the rule",
            "count": 1,
            "by_reason": {"decode_failed": 1},
            "videos": [
                {
                    "video_id": "17.mp4",
                    "path": "/videos/17.mp4",
                    "reason": "decode_failed",
                    "detail": "cut",
                }
            ],
        },
        "excluded_unlabelled": 0,
        "videos": list(target.video_ids),
        "truth": list(target.truth),
        "views": {
            "slow": {"num_frames": 8, "size": 224, "num_clips": 2, "num_crops": 1},
        },
        "view_average": "features",
        "outcomes": [outcome.to_json() for outcome in outcomes],
        "sweep": None,
        "features": {"folder": "/f", "from_cache": 0, "made": 2, "damaged_made_again": 0},
        "versions": {},
        "git_commit": None,
        "seconds": 12.0,
    }
    return report | changes
