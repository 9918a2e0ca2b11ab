"""Readers: a video file in, RGB frames out, behind one protocol.

Everything here runs inside the decode child (`decode_child`), where a decoder may crash, leak or
hang without taking the run with it; nothing here limits time or memory, that is `isolation`'s task.
Not here: the second reader (`reader_pyav`), which reader a file gets (`probing`), which frames to
ask for (`sampling`) and what to do to them afterwards (`views`).

The child starts in a fraction of a second because this module imports NumPy only; decord and PyAV
are imported on first use, and torch, ray and jaxtyping (0.2 s) never: hence shapes in docstrings.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from lssl_ray.video.files import (
    ReaderError,
    check_file,
    explain_decode_failure,
    explain_open_failure,
)

__all__ = [
    "DecordReader",
    "ReaderInfo",
    "ReaderName",
    "VideoReader",
    "import_decoders",
]

ReaderName = Literal["decord", "pyav"]
"""Who gives a file's frames; chosen once, when the file is indexed, and kept in the manifest."""


@dataclass(frozen=True)
class ReaderInfo:
    """What a reader knows about an open file: size in pixels as displayed (rotation applied).

    `num_frames` is what the container announces (decord) or what was decoded (PyAV), `fps` 0.0 if
    not known. `damage` is one short line if frames that the container announces are missing.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    damage: str | None = None


class VideoReader(Protocol):
    """One open video file. Not thread-safe; close it after use."""

    @property
    def info(self) -> ReaderInfo:
        """Size, rate and length of the open file."""

    def frames(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decodes frames in the order asked for; see `DecordReader.frames`."""

    def close(self) -> None:
        """Frees the native decoder."""


def import_decoders() -> None:
    """Imports PyAV, then decord.

    The order matters: decord loads its own FFmpeg into the global symbol table, and a PyAV that is
    imported after it may find no codecs (dmlc/decord#128).
    """
    importlib.import_module("av")
    importlib.import_module("decord")


class DecordReader:
    """Reads with decord on one CPU thread.

    decord counts packets when it opens a file. Frames that never decode are then silently replaced
    by the one decoded before them; `probing` finds that at the end of a file, nothing finds it
    in the middle. In some containers its seeks return other frames; `probing` keeps those from it.
    """

    def __init__(self, path: str, *, short_side: int | None = None) -> None:
        """Opens a file.

        Args:
            path: A local file.
            short_side: Pixels; a video whose shorter side is larger is decoded at this size, its
                aspect kept (an 8K frame is 100 MB otherwise). Smaller videos are left alone.

        Raises:
            ReaderError: The file is missing, unreadable, not a video, without frames, or decord
                can't open it.
        """
        check_file(path)
        import_decoders()
        self._decord: Any = importlib.import_module("decord")
        self._path = path
        self._short_side = short_side
        self._reader: Any = self._open()
        self._size: tuple[int, int] | None = None  # height, width of the frames returned

    def _open(self, **size: int) -> Any:
        try:
            return self._decord.VideoReader(
                self._path, ctx=self._decord.cpu(0), num_threads=1, **size
            )
        except (self._decord.DECORDError, RuntimeError, AssertionError, UnicodeError) as error:
            raise explain_open_failure(self._path, error) from error

    @property
    def num_frames(self) -> int:
        """What the container announces; decodes nothing."""
        return len(self._reader)

    @property
    def info(self) -> ReaderInfo:
        """Size, rate and length; decodes the first frame if none was decoded yet."""
        if self._size is None:
            self.frames([0])
        assert self._size is not None
        height, width = self._size
        fps = float(self._reader.get_avg_fps())
        return ReaderInfo(num_frames=self.num_frames, fps=fps, width=width, height=height)

    def frames(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decodes frames by index.

        Args:
            indices: At least one index in [0, num_frames). Duplicates are decoded once, the order
                is kept.

        Returns:
            uint8 [len(indices), height, width, 3], RGB, values 0 to 255; may be read-only.

        Raises:
            ReaderError: "decode_failed", also for an index past the end: the file is not the one
                that was indexed.
        """
        unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        num_frames = self.num_frames
        if unique.size == 0 or unique[0] < 0 or unique[-1] >= num_frames:
            asked = f"indices {unique[0]} to {unique[-1]}" if unique.size else "no indices"
            raise ReaderError("decode_failed", f"{asked} asked of {num_frames} frames")
        decoded = self._first_frames(unique) if self._size is None else self._batch(unique)
        if unique.size == len(indices) and np.all(inverse[1:] > inverse[:-1]):
            return decoded
        return decoded[inverse]

    def _first_frames(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        # decord tells a video's size only by a frame of it. One frame at full size is affordable
        # where a clip's worth is not; decoding goes on from there, so small videos pay nothing.
        if self._short_side is None:
            decoded = self._batch(unique)
            self._size = (decoded.shape[1], decoded.shape[2])
            return decoded
        first = self._batch(unique[:1])
        height, width = first.shape[1:3]
        self._size = (height, width)
        if min(height, width) > self._short_side:
            scale = self._short_side / min(height, width)
            height, width = round(height * scale), round(width * scale)
            self._reader = None  # free the full-size decoder before the small one exists
            self._reader = self._open(width=width, height=height)
            self._size = (height, width)
            return self._batch(unique)
        if unique.size == 1:
            return first
        return np.concatenate([first, self._batch(unique[1:])])

    def _batch(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        try:
            batch = self._reader.get_batch(unique)
        except (self._decord.DECORDError, RuntimeError, IndexError) as error:
            raise explain_decode_failure(error) from error
        frames: npt.NDArray[Any] = np.from_dlpack(_Exported(batch))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            # decord pads the rows of very small videos and reports the padding as channels.
            size = "x".join(map(str, frames.shape))
            raise ReaderError("decode_failed", f"decord returned {size} instead of RGB frames")
        return frames

    def close(self) -> None:
        """Frees the native decoder."""
        self._reader = None


class _Exported:
    """Lets NumPy take over decord's memory; decord's own `asnumpy` copies it."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __dlpack__(self, **options: Any) -> Any:
        return self._batch.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU
