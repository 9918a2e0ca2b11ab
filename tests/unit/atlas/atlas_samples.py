"""A made-up atlas: clips whose scores are known, and the facts of it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from video_records import build_record

from lssl_ray.atlas.figures import AtlasClips, compute_figures
from lssl_ray.atlas.ranking import ConceptAxes

PICTURE = "data:image/webp;base64,UklGRg=="


def build_clips(before: Tensor, after: Tensor, labels: Sequence[str | None]) -> AtlasClips:
    records = tuple(build_record(f"{row}.mp4", label=label) for row, label in enumerate(labels))
    return AtlasClips(records, F.normalize(before, dim=1), F.normalize(after, dim=1))


def build_random_clips(num_clips: int, labels: Sequence[str | None], size: int = 8) -> AtlasClips:
    generator = torch.Generator().manual_seed(num_clips)
    before, after = torch.randn(2, num_clips, size, generator=generator)
    return build_clips(before, after, labels)


def build_axes(names: Sequence[str], size: int = 8) -> ConceptAxes:
    rows = F.normalize(torch.randn(len(names), size, generator=torch.manual_seed(7)), dim=1)
    return ConceptAxes("category", tuple(names), ("",) * len(names), tuple(names), rows)


def build_facts(
    clips: AtlasClips, axes: Sequence[ConceptAxes], *, num_top: int = 3, num_map_clips: int = 100
) -> dict[str, Any]:
    """What `lssl-ray atlas` would say of it."""
    facts, _ = compute_figures(
        clips, axes, num_top=num_top, num_concepts=500, num_map_clips=num_map_clips
    )
    number = len(clips.records)
    return {
        "version": 1,
        "created": "2026-11-21T13:00:00+00:00",
        "created_by": "lssl_ray test",
        "command": "lssl-ray atlas runs/x videos.parquet",
        "model": {
            "title": "run, step 4",
            "clip": "ViT-B-16",
            "clip_digest": "1" * 64,
            "checkpoint": "/runs/run/checkpoints/step_00000004",
            "step": 4,
            "digests": {"clip": "2" * 64, "adapted": "3" * 64},
            "templates": ["a video of {}"],
        },
        "videos": {
            "manifests": ["videos.parquet"],
            "root": "/videos",
            "digest": "4" * 64,
            "listed": number + 1,
            "usable": number,
            "looked_at": number,
            "decoded": number,
            "labelled": sum(record.label is not None for record in clips.records),
        },
        "view": {"num_frames": 8, "size": 224, "num_clips": 1, "num_crops": 1},
        "features": {"from_cache": 0, "made": 2},
        "excluded_undecodable": {
            "rule": "left out",
            "count": 1,
            "by_reason": {"no_frames": 1},
            "videos": [
                {
                    "video_id": "bad.mp4",
                    "path": "/videos/bad.mp4",
                    "reason": "no_frames",
                    "detail": "empty",
                }
            ],
        },
        **facts,
        "thumbnails": {
            "count": number,
            "bytes": 1000,
            "height": 96,
            "left_out_for_size": 0,
            "failed": [],
        },
        "seconds": 1.5,
    }
