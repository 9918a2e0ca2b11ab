"""Probing: what a file holds, and which reader gets its frames from now on.

decord reads a file if it can: it seeks, so a clip from the end of a long video costs no more than
one from its start. `PyAvReader` gets the files that decord refuses, and those that it is known
to misread; all of them where decord is not installed. Who asks for one reader gets that one or an
error. Like the readers, this runs inside the decode child. Not here: the parent's side, deadlines
and crashes (`isolation`), the table that results (`index`, `manifest`).
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lssl_ray.video.files import ContainerInfo, ReaderError, check_file, read_container
from lssl_ray.video.packets import scan_packets
from lssl_ray.video.reader_decord import DecordReader
from lssl_ray.video.reader_pyav import PyAvReader
from lssl_ray.video.reader_torchcodec import TorchcodecReader
from lssl_ray.video.readers import (
    ReaderChoice,
    ReaderInfo,
    ReaderName,
    VideoReader,
    has_decord,
)

__all__ = ["PROBING_VERSION", "VideoProbe", "open_reader", "probe_video"]

# Raised whenever a file may get another reader, or other numbers, than it got before: manifests
# hold it, and indexing again then probes what an older version said.
PROBING_VERSION = 1
MAX_PLAUSIBLE_FPS = 1000.0  # above it the "rate" is a container's clock (90000 in a TS header)

_READERS: Mapping[ReaderName, Callable[..., VideoReader]] = {
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
    "pyav": PyAvReader,
}


@dataclass(frozen=True)
class VideoProbe:
    """What is known about a file after its ends (decord, torchcodec) or all of it (PyAV) decoded.

    With decord `num_frames` excludes frames at the end that the container announces and the decoder
    doesn't give reliably: an AVI's last, and whatever comes out as a copy of another frame. With
    PyAV it is the number of frames that really decode, contiguous from 0 to the first error.
    `width` and `height` are in pixels as displayed; `rotation` in clockwise degrees (0, 90, 180,
    270) is what the container asks for, already applied to decoded frames. `duration_seconds` is
    `num_frames / fps`. `reader` is who decoded, `detail` one line about announced frames that don't
    decode, or None.
    """

    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    codec: str
    rotation: int
    reader: ReaderName
    detail: str | None


def open_reader(path: str, *, reader: ReaderName, short_side: int | None = None) -> VideoReader:
    """Opens a file with the reader that it was indexed with.

    Args:
        path: A local file.
        reader: Who decodes.
        short_side: Pixels; a video whose shorter side is larger is reduced to this size.

    Raises:
        ReaderError: The file can't be read.
        ReaderUnavailableError: This machine hasn't that reader.
    """
    return _READERS[reader](path, short_side=short_side)


def probe_video(path: str, *, reader: ReaderChoice = "auto") -> VideoProbe:
    """Chooses a file's reader, decodes with it and reads the container's metadata.

    Args:
        path: A local file.
        reader: Who is to decode, and nobody else; "auto" for decord if it can, else PyAV.

    Raises:
        ReaderError: The file is missing, unreadable, not a video, has no frames, no plausible
            frame rate, or its first or last frame doesn't decode; or it is one that the reader
            asked for is known to misread. If both of auto's readers refuse it, the reason is
            decord's.
        ReaderUnavailableError: This machine hasn't the reader asked for.
    """
    check_file(path)
    container = read_container(path)
    if reader == "pyav":
        return _probe_with_pyav(path, container)
    if reader == "torchcodec":
        _refuse(reader, _explain_misreading_by_torchcodec(container))
        return _probe_with_torchcodec(path, container)
    if reader == "decord":
        _refuse(reader, _explain_misreading_by_decord(path, container))
        return _probe_with_decord(path, container)
    if not has_decord() or _explain_misreading_by_decord(path, container) is not None:
        return _probe_with_pyav(path, container)
    try:
        return _probe_with_decord(path, container)
    except ReaderError as refusal:
        if refusal.reason not in ("decode_failed", "no_frames"):
            raise
        try:
            return _probe_with_pyav(path, container)
        except ReaderError as second:
            raise refusal from second


def _explain_misreading_by_decord(path: str, container: ContainerInfo) -> str | None:
    """Why decord's seeks would silently return other frames of a file than asked for, or None.

    Measured with decord 0.6.0: up to 52 frames off in MPEG program streams and 12 in transport
    streams, which have no index; up to 40 in AVI, which has no time stamps, with B-frames (all of
    HMDB51, a sixth of UCF101) or H.264; 1 to 3 around the key frames of open groups of pictures,
    which x265 writes by default. It shows frames that an edit list hides. AVI of MPEG-4 without
    B-frames, MP4, Matroska and WebM with closed groups came out right.
    """
    if container.format in ("mpeg", "mpegts"):
        return f"seeks in {container.format}, which has no index"
    packets = scan_packets(path)
    if container.format == "avi":
        if container.has_b_frames:
            return "B-frames in AVI, which has no time stamps"
        if container.codec != "mpeg4" and not packets.only_key_frames:
            return f"{container.codec} in AVI, which has no time stamps"
    if packets.has_leading_frames:
        return "open groups of pictures"
    return "frames that the edit list hides" if packets.has_hidden_frames else None


def _explain_misreading_by_torchcodec(container: ContainerInfo) -> str | None:
    """The same for torchcodec 0.17, which orders packets by time stamps before it decodes.

    Up to 11 frames off in transport streams, 2 in program streams and in AVI with B-frames.
    """
    if container.format in ("mpeg", "mpegts"):
        return f"seeks in {container.format}, which has no index"
    if container.format == "avi" and container.has_b_frames:
        return "B-frames in AVI, which has no time stamps"
    return None


def _refuse(reader: ReaderName, misreading: str | None) -> None:
    if misreading is not None:
        raise ReaderError(
            "decode_failed", f"{reader} misreads {misreading}; index with --reader auto or pyav"
        )


def _probe_with_decord(path: str, container: ContainerInfo) -> VideoProbe:
    info, last, last_is_real = _read_ends(path, -1 - container.num_unreliable_frames)
    num_frames = 1 + (last if last_is_real else _find_last_frame(path, last))
    return _build_probe(info, container, num_frames=num_frames, reader="decord")


def _probe_with_torchcodec(path: str, container: ContainerInfo) -> VideoProbe:
    with contextlib.closing(TorchcodecReader(path)) as reader:
        info = reader.info
        reader.frames([0, info.num_frames - 1])
    return _build_probe(info, container, num_frames=info.num_frames, reader="torchcodec")


def _probe_with_pyav(path: str, container: ContainerInfo) -> VideoProbe:
    info = PyAvReader(path).info
    return _build_probe(info, container, num_frames=info.num_frames, reader="pyav")


def _build_probe(
    info: ReaderInfo, container: ContainerInfo, *, num_frames: int, reader: ReaderName
) -> VideoProbe:
    fps = info.fps
    if not 0.0 < fps <= MAX_PLAUSIBLE_FPS and container.duration_seconds > 0.0:
        fps = info.num_frames / container.duration_seconds
    if not 0.0 < fps <= MAX_PLAUSIBLE_FPS:
        raise ReaderError("decode_failed", f"no plausible frame rate (container says {info.fps})")
    return VideoProbe(
        num_frames=num_frames,
        fps=fps,
        duration_seconds=num_frames / fps,
        width=info.width,
        height=info.height,
        codec=container.codec,
        rotation=container.rotation,
        reader=reader,
        detail=info.damage,
    )


def _find_last_frame(path: str, end: int) -> int:
    """Bisects for the last real frame before `end`; frame 0 is known to be real."""
    low, high = 0, end - 1
    middle = high  # most often just one frame is missing
    while low < high:
        if _read_ends(path, middle)[2]:
            low = middle
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low


def _read_ends(path: str, last: int) -> tuple[ReaderInfo, int, bool]:
    """Decodes frame 0 and another, counted from the end if negative: which one, and is it real?

    decord replaces what it can't decode by the frame it decoded before, so a substitute equals its
    predecessor in the request, whichever that is. A reader that made one makes more of them, and
    one that decoded before may hide them, hence fresh readers.
    """
    with contextlib.closing(DecordReader(path)) as reader:
        index = last if last >= 0 else max(0, reader.num_frames + last)
        first, end = reader.frames([0, index])
        info = reader.info
    if index < 2 or not np.array_equal(first, end):
        return info, index, True
    with contextlib.closing(DecordReader(path)) as reader:
        middle, end_again = reader.frames([index // 2, index])
    static_or_loop = np.array_equal(middle, first) or np.array_equal(end_again, first)
    return info, index, bool(static_or_loop)
