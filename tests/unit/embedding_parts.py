"""A stand-in for a model that embeds, and rows of a manifest whose videos nobody opens."""

from dataclasses import replace

from lssl_ray.embedding_files import EmbeddingSource
from lssl_ray.video.manifest import VideoRecord

SOURCE = EmbeddingSource(
    name="tiny",
    source="runs/tiny",
    weights=None,
    digest="d" * 64,
    num_frames=2,
    size=32,
    decode_short_side=512,
    embedding_dim=3,
)


def build_record(number: int, **changes: object) -> VideoRecord:
    record = VideoRecord(
        video_id=f"v{number:02d}.mp4",
        path=f"/videos/v{number:02d}.mp4",
        label="a" if number % 2 else None,
        split=None,
        status="ok",
        reason=None,
        detail=None,
        num_frames=16,
        fps=8.0,
        duration_seconds=2.0,
        width=96,
        height=64,
        codec="h264",
        rotation=0,
        reader="decord",
        size_bytes=1000 + number,
        mtime_ns=1,
    )
    return replace(record, **changes)  # type: ignore[arg-type]
