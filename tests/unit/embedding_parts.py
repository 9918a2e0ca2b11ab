"""A stand-in for a model that embeds, and rows of a manifest whose videos nobody opens."""

import video_records

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
    values = {"label": "a" if number % 2 else None, "size_bytes": 1000 + number}
    return video_records.build_record(f"v{number:02d}.mp4", **values | changes)
