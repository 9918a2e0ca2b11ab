"""The second reader: PyAV, for files that decord refuses or misreads (GIF, AV1, MPEG-PS, ...).

It is the only one that is always there. It decodes from the start of the file and never seeks:
exact and simple, and slow to reach the end of a long video. Its FFmpeg is PyAV's own, years newer
than decord's. Like `readers`, it runs inside the decode child. Not here: which files it is for
(`probing`).
"""

import importlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lssl_ray.video.files import (
    ReaderError,
    check_file,
    explain_decode_failure,
    find_video_stream,
)
from lssl_ray.video.gif import split_gif_packet
from lssl_ray.video.readers import (
    ReaderInfo,
    explain_bad_indices,
    reduce_size,
    restore_order,
    split_indices,
)

__all__ = ["PyAvReader"]


@dataclass(frozen=True)
class _Layout:
    """How frames are returned: size in pixels after `num_turns` clockwise quarter turns."""

    height: int
    width: int
    num_turns: int


class PyAvReader:
    """Reads with PyAV on one CPU thread; frame n is the n-th frame that the decoder gives.

    The frames of a file are those that really decode, contiguous from 0: they end at the decoder's
    first error, even where it could go on. All frames have the first one's size. Transparency is
    dropped as FFmpeg does for rgb24: the colour under it shows, white in its GIF decoder.
    """

    def __init__(self, path: str, *, short_side: int | None = None) -> None:
        """Looks at a file; every later call opens it anew and closes it.

        Args:
            path: A local file.
            short_side: Pixels; a video whose shorter side is larger is reduced to this size, its
                aspect kept. Smaller videos are left alone.

        Raises:
            ReaderError: The file is missing, unreadable or no regular file.
        """
        check_file(path)
        self._av: Any = importlib.import_module("av")
        self._path = path
        self._short_side = short_side
        self._info: ReaderInfo | None = None

    @property
    def info(self) -> ReaderInfo:
        """Size, rate and length, from decoding the whole file once."""
        if self._info is None:
            self._info = self._measure()
        return self._info

    def frames(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decodes frames by index, up to the largest and no further; see `VideoReader.frames`.

        Raises:
            ReaderError: "not_a_video", or "decode_failed".
        """
        unique, places = split_indices(indices)
        if unique.size == 0 or unique[0] < 0:
            raise explain_bad_indices(unique, self.info.num_frames)
        return restore_order(self._decode_wanted(unique), places)

    def close(self) -> None:
        """Frees nothing: the file is open only inside a call."""

    def _decode_wanted(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        num_frames = num_decoded = 0
        layout: _Layout | None = None
        with closing(self._decode()) as frames:
            for frame in frames:
                if layout is None:
                    layout = _compute_layout(frame, self._short_side)
                    decoded = np.empty(
                        (unique.size, layout.height, layout.width, 3), dtype=np.uint8
                    )
                if num_frames == unique[num_decoded]:
                    decoded[num_decoded] = _to_rgb(frame, layout)
                    num_decoded += 1
                num_frames += 1
                if num_decoded == unique.size:
                    return decoded
        raise explain_bad_indices(unique, num_frames)

    def _measure(self) -> ReaderInfo:
        num_frames = 0
        first: Any = None
        last: Any = None
        problem: str | None = None
        try:
            for frame in self._decode():
                first = frame if first is None else first
                last = frame
                num_frames += 1
        except ReaderError as error:
            if first is None or error.reason != "decode_failed":
                raise
            problem = error.detail
        if first is None:
            raise ReaderError("no_frames", "PyAV finds no frame that decodes")
        num_announced, fps = self._announced()
        damage = None
        # An AVI with packed B-frames has one packet more than frames, which is no damage.
        if problem is not None or num_frames < num_announced - 1:
            of = f" of {num_announced}" if num_announced > num_frames else ""
            damage = f"{num_frames}{of} frames decode" + (f", then: {problem}" if problem else "")
        seconds = (last.time or 0.0) - (first.time or 0.0)
        if fps == 0.0 and seconds > 0.0:
            fps = (num_frames - 1) / seconds
        layout = _compute_layout(first, None)
        return ReaderInfo(num_frames, fps, layout.width, layout.height, damage)

    def _announced(self) -> tuple[int, float]:
        """Number of frames and frames per second as the container says; 0 for what it doesn't."""
        with self._av.open(self._path) as container:
            stream = find_video_stream(container)
            if container.format.name == "gif":  # a delay per picture; FFmpeg guesses a rate
                return int(stream.frames), 0.0
            return int(stream.frames), float(stream.average_rate or 0.0)

    def _decode(self) -> Generator[Any, None, None]:
        """All frames from the start of the file.

        Raises:
            ReaderError: The file can't be opened or a frame doesn't decode.
        """
        try:
            container = self._av.open(self._path)
        except self._av.error.FFmpegError as error:
            failure = explain_decode_failure(error)
            memory = failure.reason == "out_of_memory"
            raise failure if memory else ReaderError("not_a_video", failure.detail) from error
        with container:
            stream = find_video_stream(container)
            stream.codec_context.thread_count = 1
            is_gif = container.format.name == "gif"
            try:
                for packet in container.demux(stream):
                    for part in self._split(packet) if is_gif else [packet]:
                        yield from part.decode()
            except self._av.error.FFmpegError as error:
                raise explain_decode_failure(error) from error

    def _split(self, packet: Any) -> list[Any]:
        pieces = split_gif_packet(bytes(packet))
        if len(pieces) < 2:
            return [packet]
        parts = []
        for number, piece in enumerate(pieces):
            part = self._av.Packet(piece)
            part.stream = packet.stream
            part.time_base = packet.time_base
            part.pts = part.dts = (packet.pts or 0) + number * (packet.duration or 0)
            parts.append(part)
        return parts


def _compute_layout(frame: Any, short_side: int | None) -> _Layout:
    num_turns = round(-frame.rotation / 90) % 4  # PyAV counts counter-clockwise degrees
    height, width = frame.height, frame.width
    if num_turns % 2:
        height, width = width, height
    return _Layout(*reduce_size(height, width, short_side=short_side), num_turns)


def _to_rgb(frame: Any, layout: _Layout) -> npt.NDArray[np.uint8]:
    height, width = layout.height, layout.width
    if layout.num_turns % 2:
        height, width = width, height
    # Bicubic is what decord's FFmpeg reduces with, too.
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    turned: npt.NDArray[np.uint8] = np.rot90(small.to_ndarray(), -layout.num_turns)
    return turned
