"""Rows of a manifest whose videos nobody opens."""

from typing import Any

from lssl_ray.video.manifest import VideoRecord


def build_record(video_id: str = "a.mp4", **changes: Any) -> VideoRecord:
    """A usable two-second video without label, but for the changes."""
    values: dict[str, Any] = {
        "video_id": video_id,
        "path": f"/videos/{video_id}",
        "label": None,
        "split": None,
        "status": "ok",
        "reason": None,
        "detail": None,
        "num_frames": 16,
        "fps": 8.0,
        "duration_seconds": 2.0,
        "width": 96,
        "height": 64,
        "codec": "h264",
        "rotation": 0,
        "reader": "decord",
        "size_bytes": 1000,
        "mtime_ns": 1,
    }
    return VideoRecord(**values | changes)


def build_bad_record(video_id: str = "bad.mp4", **changes: Any) -> VideoRecord:
    """A video of which nothing is known but why, but for the changes."""
    unknown = dict.fromkeys(("num_frames", "fps", "duration_seconds", "width", "height"), 0)
    values: dict[str, Any] = {
        **unknown, "status": "bad", "reason": "not_a_video", "detail": "is empty", "codec": "",
        "size_bytes": 0,
    }  # fmt: skip
    return build_record(video_id, **values | changes)
