"""Readers: a video file in, RGB frames out, behind one protocol.

Everything here runs inside the decode child (`decode_child`), where a decoder may crash, leak or
hang without taking the run with it; nothing here limits time or memory, that is `isolation`'s task.
Not here: the readers themselves (`reader_decord`, `reader_pyav`, `reader_torchcodec`), which of
them a file gets (`probing`), which frames to ask for (`sampling`) and what to do to them afterwards
(`views`).

The child starts in a fraction of a second because this module imports NumPy only; the decoders are
imported on first use, and torch (seconds) only by the reader that is made of it: hence shapes in
docstrings.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from lssl_ray.errors import LsslError
from lssl_ray.video.files import ReaderError

__all__ = [
    "ReaderChoice",
    "ReaderInfo",
    "ReaderName",
    "ReaderUnavailableError",
    "VideoReader",
    "explain_bad_indices",
    "has_decord",
    "import_decoders",
    "reduce_size",
    "restore_order",
    "split_indices",
]

ReaderName = Literal["decord", "torchcodec", "pyav"]
"""Who gives a file's frames; chosen once, when the file is indexed, and kept in the manifest."""

ReaderChoice = Literal["auto", "decord", "torchcodec", "pyav"]
"""What a user may ask for: one reader for every file, or the best for each."""


@dataclass(frozen=True)
class ReaderInfo:
    """What a reader knows about an open file: size in pixels as displayed (rotation applied).

    `num_frames` is what the container announces (decord), how many packets it holds (torchcodec) or
    what was decoded (PyAV), `fps` 0.0 if not known. `damage` is one short line if frames that the
    container announces are missing.
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

    def close(self) -> None:
        """Frees the native decoder."""


class ReaderUnavailableError(LsslError):
    """A reader can't be used on this machine: no file is to blame."""


def has_decord() -> bool:
    """Whether decord is installed: it has wheels for Linux on x86-64 only."""
    return importlib.util.find_spec("decord") is not None


def import_decoders() -> None:
    """Imports PyAV, then decord where it is installed.

    The order matters: decord loads its own FFmpeg into the global symbol table, and a PyAV that is
    imported after it may find no codecs (dmlc/decord#128).
    """
    importlib.import_module("av")
    if has_decord():
        importlib.import_module("decord")


def split_indices(
    indices: Sequence[int],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """What to decode, ascending and each once, and where each index asked for is in it."""
    unique, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
    return unique, places.astype(np.intp, copy=False)


def restore_order(
    decoded: npt.NDArray[np.uint8], places: npt.NDArray[np.intp]
) -> npt.NDArray[np.uint8]:
    """Frames as they were asked for; no copy if that is how they were decoded."""
    if np.array_equal(places, np.arange(len(decoded))):
        return decoded
    return decoded[places]


def explain_bad_indices(unique: npt.NDArray[np.int64], num_frames: int) -> ReaderError:
    """The error for indices that a video hasn't, or for none."""
    asked = f"indices {unique[0]} to {unique[-1]}" if unique.size else "no indices"
    return ReaderError("decode_failed", f"{asked} asked of {num_frames} frames")


def reduce_size(height: int, width: int, *, short_side: int | None) -> tuple[int, int]:
    """Height and width in pixels with at most `short_side` on the shorter side, aspect kept."""
    if short_side is None or min(height, width) <= short_side:
        return height, width
    scale = short_side / min(height, width)
    return round(height * scale), round(width * scale)
