"""Which frames a view looks at: pure index arithmetic, no pixels, no randomness of its own.

::

    video    0 ........................................... num_frames
    window        [--------------------------]      one clip looks here
    global        ^     ^     ^     ^     ^  ^      evenly over the window
    local                  [---]                    evenly over a sub-window

End-of-video policy `repeat`: a stretch with fewer frames than asked for gives frames repeatedly,
in order; no index is ever outside the video.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """A stretch of frames [start, start + length), length >= 1."""

    start: int
    length: int


def compute_window(num_frames: int, fps: float, *, seconds: float, offset: float) -> Window:
    """The stretch of a video that a clip looks at.

    Args:
        num_frames: Frames that really decode, >= 1.
        fps: Frames per second, > 0.
        seconds: Wanted length; a shorter video is taken whole.
        offset: Where the window lies between the earliest (0) and the latest (1) place, in [0, 1].

    Raises:
        ValueError: A video without frames or rate, an offset outside [0, 1].
    """
    if num_frames < 1 or not fps > 0 or not 0 <= offset <= 1:
        raise ValueError(
            f"num_frames={num_frames}, fps={fps}, offset={offset}: a window needs at least one "
            "frame, a positive rate, and an offset in [0, 1]."
        )
    length = min(num_frames, max(1, round(seconds * fps)))
    return Window(start=round(offset * (num_frames - length)), length=length)


def compute_sub_window(window: Window, *, share: float, offset: float) -> Window:
    """A part of a window: `share` of its length (at least one frame), placed by `offset`."""
    length = min(window.length, max(1, round(window.length * share)))
    return Window(start=window.start + round(offset * (window.length - length)), length=length)


def compute_frame_indices(window: Window, *, num_frames: int) -> NDArray[np.int64]:
    """`num_frames` indices spread evenly over the window, first to last, never descending.

    A single frame is taken from the middle.
    """
    if num_frames == 1:
        return np.array([window.start + (window.length - 1) // 2], dtype=np.int64)
    steps = np.linspace(0, window.length - 1, num_frames)
    return window.start + np.floor(steps + 0.5).astype(np.int64)
