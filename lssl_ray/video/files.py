"""What a file is: reasons for refusing it, checks without a decoder, container metadata by PyAV.

PyAV serves metadata and second opinions here; frames come from `readers` and `reader_pyav`. Like
those, this runs inside the decode child and imports nothing heavy.
"""

import errno
import importlib
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lssl_ray.errors import DataError

__all__ = [
    "WAYS_OUT",
    "ContainerInfo",
    "DecodeReason",
    "ReaderError",
    "check_file",
    "explain_decode_failure",
    "explain_open_failure",
    "find_video_stream",
    "first_line",
    "read_container",
]

logger = logging.getLogger(__name__)

DecodeReason = Literal[
    "missing",
    "unreadable",
    "fetch_failed",
    "too_large",
    "not_a_video",
    "no_frames",
    "decode_failed",
    "deadline_exceeded",
    "decoder_crashed",
    "out_of_memory",
]
"""Why a file gave no frames; the same words stand in manifests, reports and quarantine lists."""

WAYS_OUT: Mapping[DecodeReason, str] = {
    "missing": "index the folder again with `lssl-ray data index`",
    "unreadable": "check its permissions and the disk",
    "fetch_failed": "check the address, the network and the credentials in the environment",
    "too_large": "cut it into shorter videos, or copy it to a disk and index it there",
    "not_a_video": "remove it or index the folder again with `lssl-ray data index`",
    "no_frames": "it is a header without content: fetch it again or remove it",
    "decode_failed": "fetch it again, or convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`",
    "deadline_exceeded": "raise the deadline if the machine is slow, else convert or remove it",
    "decoder_crashed": "convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4` or remove it",
    "out_of_memory": "decode at a smaller short side, ask for fewer frames or raise the limit",
}


@dataclass(frozen=True)
class ContainerInfo:
    """Metadata of a container.

    Attributes:
        format: FFmpeg's name of the container ("avi", "mpeg"), "" if not known.
        codec: FFmpeg's name, "" if not known.
        rotation: Clockwise degrees to turn frames by: 0, 90, 180 or 270.
        duration_seconds: What the container says, 0.0 if nothing.
        has_b_frames: Whether frames are stored in another order than they are shown in.
        num_unreliable_frames: Frames at the end that decord doesn't give reliably. In an AVI, which
            has no time stamps, that is the last frame: decord races with its own decoder thread
            there and, one time in five on a busy machine, returns another frame instead (measured
            on UCF101 and HMDB51 with decord 0.6.0).
    """

    format: str
    codec: str
    rotation: int
    duration_seconds: float
    has_b_frames: bool
    num_unreliable_frames: int


class ReaderError(DataError):
    """A file can't be read, for one of the known reasons.

    Attributes:
        reason: One of `DecodeReason`.
        detail: One short line: the decoder's message, or what was found instead of a video.
    """

    def __init__(self, reason: DecodeReason, detail: str) -> None:
        """Keeps both parts; the message is `reason: detail`."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Both parts."""
        return f"{self.reason}: {self.detail}"


def check_file(path: str) -> None:
    """Says quickly, without a decoder, that a path can't be a readable video.

    Raises:
        ReaderError: "missing", "unreadable" or "not_a_video" (a folder, a device, an empty file).
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ReaderError("not_a_video", "is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ReaderError("not_a_video", "is not a regular file")
        if status.st_size == 0:
            raise ReaderError("not_a_video", "is empty (0 bytes)")
        with open(path, "rb", buffering=0):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        broken = os.path.islink(path)
        detail = "is a broken symbolic link" if broken else "does not exist"
        raise ReaderError("missing", detail) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        raise ReaderError("unreadable", error.strerror or str(error)) from error
    except ValueError as error:  # a NUL byte in the path
        raise ReaderError("unreadable", str(error)) from error


def read_container(path: str) -> ContainerInfo:
    """What PyAV tells of a file before a reader opens it; blanks for what it can't tell."""
    av: Any = importlib.import_module("av")
    name, codec, degrees, seconds, has_b_frames = "", "", 0, 0.0, False
    try:
        with av.open(path) as container:
            name = str(container.format.name)
            stream = find_video_stream(container)
            codec = str(stream.codec_context.codec.canonical_name)
            seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
            frame = next(container.decode(stream), None)
            degrees = -int(frame.rotation) % 360 if frame is not None else 0
            has_b_frames = bool(stream.codec_context.has_b_frames)
    except (av.error.FFmpegError, ReaderError) as error:
        # The readers judge whether the file is good; here only extras are lost.
        logger.info("%s: PyAV can't read all of its metadata: %s", path, error)
    return ContainerInfo(name, codec, degrees, seconds, has_b_frames, int(name == "avi"))


def find_video_stream(container: Any) -> Any:
    """The stream of an open PyAV container that decord takes as well: FFmpeg's "best" one.

    Raises:
        ReaderError: "not_a_video": there is none, or only the cover picture of a sound file.
    """
    av: Any = importlib.import_module("av")
    stream = container.streams.best("video")
    if stream is None:
        raise ReaderError("not_a_video", "has no video stream")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise ReaderError("not_a_video", "has a cover picture but no video stream")
    return stream


def explain_open_failure(path: str, error: Exception, *, reader: str = "decord") -> ReaderError:
    """Turns a reader's refusal into a reason, with PyAV's second opinion (newer FFmpeg)."""
    av: Any = importlib.import_module("av")
    message = first_line(error)
    try:
        with av.open(path) as container:
            stream = find_video_stream(container)
            name = container.format.name
            if name.endswith("_pipe") or name == "image2":
                return ReaderError("not_a_video", f"is a still image ({name.split('_')[0]})")
            codec = stream.codec_context.codec.canonical_name
            if not any(packet.size for packet in container.demux(stream)):
                return ReaderError("no_frames", f"a {codec} header without any frame")
            return ReaderError(
                "decode_failed", f"{reader} can't open this {codec} video: {message}"
            )
    except ReaderError as second:
        return second
    except (av.error.FFmpegError, IndexError, AttributeError, UnicodeError) as second:
        return ReaderError("not_a_video", first_line(second))


def explain_decode_failure(error: Exception) -> ReaderError:
    """Turns a decoder's error in an open file into a reason."""
    message = str(error)
    if "bad_alloc" in message or "Cannot allocate memory" in message:
        return ReaderError("out_of_memory", first_line(error))
    return ReaderError("decode_failed", first_line(error))


def first_line(error: Exception) -> str:
    """A native message in a sentence: no time stamps, source positions, conditions or stack."""
    text = getattr(error, "strerror", None) or str(error)  # PyAV's str repeats number and path
    line = (text.strip() or type(error).__name__).splitlines()[0]
    line = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", line)
    line = re.sub(r"^\[/[^]]*\] ", "", line.strip())  # the file's own path
    said = re.sub(r"^Check failed: .*? \(\S+ vs\. \S+\)\s*(ERROR )?", "", line)
    return (said or line)[:200] or type(error).__name__
