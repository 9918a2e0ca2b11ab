"""Cuts: which rectangle of which frames of a video; what a decode child hands to its parent.

A clip's views need a third of the pixels of the frames that they are cut from, so only these cross
from one process to the other. Plain NumPy: the decode child imports this.
"""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Crop", "Cut", "compute_needed_frames", "copy_cut", "lay_out"]


@dataclass(frozen=True)
class Crop:
    """A rectangle in px: row and column of its corner, height, width."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Cut:
    """The same rectangle of some frames.

    Attributes:
        frame_indices: Of the video, int64; some may repeat.
        crop: Inside the pictures of the size that it was planned for.
    """

    frame_indices: npt.NDArray[np.int64]
    crop: Crop

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width, 3 colours."""
        return len(self.frame_indices), self.crop.height, self.crop.width, 3


def compute_needed_frames(cuts: Sequence[Cut]) -> npt.NDArray[np.int64]:
    """The distinct frames of all cuts, ascending: what one decoding pass must deliver."""
    return np.unique(np.concatenate([cut.frame_indices for cut in cuts]))


def copy_cut(
    frames: npt.NDArray[np.uint8],
    frame_numbers: npt.NDArray[np.int64],
    cut: Cut,
    *,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Copy a cut out of decoded frames.

    Args:
        frames: uint8 [needed, height, width, 3].
        frame_numbers: Their indices in the video, ascending; all of the cut's are among them.
        cut: Inside these pictures.
        out: uint8 of the cut's shape; None for an array of its own.

    Returns:
        `out`, or that array.
    """
    out = np.empty(cut.shape, dtype=np.uint8) if out is None else out
    crop = cut.crop
    rows = slice(crop.top, crop.top + crop.height)
    columns = slice(crop.left, crop.left + crop.width)
    places = np.searchsorted(frame_numbers, cut.frame_indices)
    for target, place in zip(out, places, strict=True):
        np.copyto(target, frames[place, rows, columns])
    return out


def lay_out(memory: mmap.mmap, shapes: Sequence[Sequence[int]]) -> list[npt.NDArray[np.uint8]]:
    """Views on a memory, one behind the other: where parent and child expect them."""
    sizes = [math.prod(shape) for shape in shapes]
    flat = np.frombuffer(memory, dtype=np.uint8, count=sum(sizes))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
