"""One row of a manifest: what is known of a video file, good or bad."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from lssl_ray.video.readers import ReaderName

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("rotation", pa.int32(), nullable=False),
        pa.field("reader", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class VideoRecord:
    """One row of a manifest.

    Attributes:
        video_id: Unique; the path relative to the indexed folder, with "/". Randomness is keyed
            by it, so moving the folder changes nothing.
        path: Absolute path, or a URI.
        label: Class name, or None.
        split: Name of a split ("train", "test", ...), or None.
        status: "ok" or "bad". A bad video has a reason and zeros for what isn't known.
        reason: One of `isolation.DecodeReason`, or None.
        detail: One short line about the reason, or, in a usable video, about frames that its
            container announces and that don't decode; else None.
        num_frames: Frames that decode, 0 if bad.
        fps: Frames per second, average.
        duration_seconds: num_frames / fps.
        width: Pixels as displayed, rotation applied.
        height: Pixels as displayed, rotation applied.
        codec: FFmpeg's name of the codec, "" if not known.
        rotation: Clockwise degrees the container asks for, already applied when decoding.
        reader: Who decodes it; the frames were counted with it. A bad video, which nobody decodes,
            has "decord", or the one reader that was asked for.
        size_bytes: Size of the file.
        mtime_ns: Its modification time, nanoseconds since 1970.
    """

    video_id: str
    path: str
    label: str | None
    split: str | None
    status: Literal["ok", "bad"]
    reason: str | None
    detail: str | None
    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    codec: str
    rotation: int
    reader: ReaderName
    size_bytes: int
    mtime_ns: int
