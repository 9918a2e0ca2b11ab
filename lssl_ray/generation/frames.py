"""Frames of one's own videos as JPEG files, through the library's isolated decoders."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from lssl_ray.video.discovery import find_videos
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import load_manifest
from lssl_ray.video.readers import ReaderName
from lssl_ray.video.sampling import Window, compute_frame_indices

SHORT_SIDE = 336
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Clip:
    """A video to be named; length and reader are None where it was not indexed."""

    video_id: str
    path: str
    num_frames: int | None = None
    reader: ReaderName | None = None


def find_clips(source: Path) -> list[Clip]:
    """The videos of a folder, or the usable ones of a manifest, by video_id.

    Raises:
        DataError: Nothing is there.
    """
    if source.is_dir():
        return [Clip(video.video_id, video.path) for video in find_videos([str(source)]).videos]
    clips = [
        Clip(record.video_id, record.path, record.num_frames, record.reader)
        for record in load_manifest(str(source)).usable().records()
    ]
    return sorted(clips, key=lambda clip: clip.video_id)


def sample_clips(clips: Sequence[Clip], count: int) -> list[Clip]:
    """At most `count` clips, evenly over the list: every folder has its share; not random."""
    count = min(count, len(clips))
    return [clips[index * len(clips) // count] for index in range(count)]


class FrameReader:
    """Reads clips in a child process; calls must not overlap.

    Args:
        deadline_seconds: Time for one clip; beyond it the clip is bad.
        short_side: Pixels; larger videos are made this small, aspect kept.
    """

    def __init__(self, *, deadline_seconds: float = 30.0, short_side: int = SHORT_SIDE) -> None:
        self._process = DecodeProcess(deadline_seconds=deadline_seconds, short_side=short_side)

    def __enter__(self) -> "FrameReader":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the child."""
        self._process.close()

    def read(self, clip: Clip, *, num_frames: int) -> tuple[bytes, ...]:
        """Whole frames as JPEG files, evenly over the clip; fewer where it has fewer.

        Raises:
            DecodeError: The clip is bad.
        """
        length, reader = clip.num_frames, clip.reader
        if length is None or reader is None:
            probe = self._process.probe(clip.path)
            length, reader = probe.num_frames, probe.reader
        indices = np.unique(compute_frame_indices(Window(0, length), num_frames=num_frames))
        frames = self._process.frames(clip.path, indices.tolist(), reader=reader)
        return tuple(_encode_jpeg(frame) for frame in frames)


def _encode_jpeg(frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
