"""The default reader: decord, which seeks, so that a clip's place in a video costs little.

Its FFmpeg is its own, version 4, and its wheels are for Linux on x86-64. Like `readers`, it runs
inside the decode child. Not here: which files are kept from it (`probing`).
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lssl_ray.video.files import (
    ReaderError,
    check_file,
    explain_decode_failure,
    explain_open_failure,
)
from lssl_ray.video.readers import (
    ReaderInfo,
    ReaderUnavailableError,
    explain_bad_indices,
    has_decord,
    import_decoders,
    reduce_size,
    restore_order,
    split_indices,
)

__all__ = ["DecordReader", "RefusedWidthError"]

_REFUSED_WIDTH = "decord takes the padding of rows of this width for channels"


class RefusedWidthError(ReaderError):
    """decord can't hand out frames of this width; another reader can.

    It takes a row's padding to a multiple of 32 pixels for channels where the row is then a whole
    number of widths long: 2, 3, 4, 6, 8, 12, 16, 24, 48 and 72 pixels (measured with 0.6.0).
    """


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
            ReaderUnavailableError: decord is not installed.
        """
        check_file(path)
        if not has_decord():
            raise ReaderUnavailableError(
                "decord is not installed here (its wheels are for Linux on x86-64); index the "
                "videos on this machine, or anywhere with `--reader pyav`."
            )
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
        """Decodes frames by index, see `VideoReader.frames`.

        Raises:
            RefusedWidthError: The frames, reduced or not, have one of the widths it can't give.
            ReaderError: "decode_failed".
        """
        unique, places = split_indices(indices)
        num_frames = self.num_frames
        if unique.size == 0 or unique[0] < 0 or unique[-1] >= num_frames:
            raise explain_bad_indices(unique, num_frames)
        decoded = self._first_frames(unique) if self._size is None else self._batch(unique)
        return restore_order(decoded, places)

    def _first_frames(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        # decord tells a video's size only by a frame of it. One frame at full size is affordable
        # where a clip's worth is not; decoding goes on from there, so small videos pay nothing.
        if self._short_side is None:
            decoded = self._batch(unique)
            self._size = (decoded.shape[1], decoded.shape[2])
            return decoded
        first = self._batch(unique[:1])
        full = (first.shape[1], first.shape[2])
        self._size = reduce_size(*full, short_side=self._short_side)
        if self._size != full:
            height, width = self._size
            self._reader = None  # free the full-size decoder before the small one exists
            self._reader = self._open(width=width, height=height)
            return self._batch(unique)
        if unique.size == 1:
            return first
        return np.concatenate([first, self._batch(unique[1:])])

    def _batch(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        try:
            batch = self._reader.get_batch(unique)
        except (self._decord.DECORDError, RuntimeError, IndexError) as error:
            if "from_size == to_size" in str(error):
                raise RefusedWidthError("decode_failed", _REFUSED_WIDTH) from error
            raise explain_decode_failure(error) from error
        frames: npt.NDArray[Any] = np.from_dlpack(_Exported(batch))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise RefusedWidthError("decode_failed", _REFUSED_WIDTH)
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
