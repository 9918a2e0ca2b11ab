"""Frame indices: always inside, never descending, for any video and any window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.video.sampling import (
    Window,
    compute_frame_indices,
    compute_sub_window,
    compute_window,
)

shares = st.floats(0, 1)
windows = st.builds(Window, start=st.integers(0, 10**6), length=st.integers(1, 10**5))


@given(
    num_frames=st.integers(1, 10**6),
    fps=st.floats(0.01, 1000),
    seconds=st.floats(0.001, 10**4),
    offset=shares,
)
def test_compute_window_lies_inside_the_video(
    num_frames: int, fps: float, seconds: float, offset: float
) -> None:
    window = compute_window(num_frames, fps, seconds=seconds, offset=offset)
    assert window.length >= 1
    assert window.start >= 0 and window.start + window.length <= num_frames
    assert window.length == num_frames or abs(window.length - max(1, seconds * fps)) <= 0.5


@given(window=windows, share=st.floats(0.001, 1), offset=shares)
def test_compute_sub_window_lies_inside_the_window(
    window: Window, share: float, offset: float
) -> None:
    part = compute_sub_window(window, share=share, offset=offset)
    assert part.length >= 1
    assert window.start <= part.start
    assert part.start + part.length <= window.start + window.length
    assert abs(part.length - max(1, share * window.length)) <= 0.5


@given(window=windows, num_frames=st.integers(1, 64))
def test_compute_frame_indices_are_inside_monotone_and_span_the_window(
    window: Window, num_frames: int
) -> None:
    indices = compute_frame_indices(window, num_frames=num_frames)
    assert indices.shape == (num_frames,) and indices.dtype == np.int64
    assert np.all(np.diff(indices) >= 0)
    assert window.start <= indices[0] and indices[-1] < window.start + window.length
    if num_frames > 1:
        assert indices[0] == window.start
        assert indices[-1] == window.start + window.length - 1
        gaps = np.diff(indices)
        assert gaps.max() - gaps.min() <= 1
    if num_frames <= window.length:
        assert len(set(indices.tolist())) == num_frames


def test_compute_frame_indices_hand_examples() -> None:
    assert compute_frame_indices(Window(0, 9), num_frames=5).tolist() == [0, 2, 4, 6, 8]
    assert compute_frame_indices(Window(10, 8), num_frames=3).tolist() == [10, 14, 17]
    assert compute_frame_indices(Window(7, 2), num_frames=4).tolist() == [7, 7, 8, 8]
    assert compute_frame_indices(Window(3, 1), num_frames=3).tolist() == [3, 3, 3]
    assert compute_frame_indices(Window(0, 5), num_frames=1).tolist() == [2]
    assert compute_frame_indices(Window(4, 6), num_frames=1).tolist() == [6]


def test_compute_window_hand_examples() -> None:
    assert compute_window(300, 30.0, seconds=8.5, offset=0.0) == Window(0, 255)
    assert compute_window(300, 30.0, seconds=8.5, offset=1.0) == Window(45, 255)
    assert compute_window(100, 30.0, seconds=8.5, offset=0.7) == Window(0, 100)
    assert compute_sub_window(Window(40, 80), share=0.125, offset=0.5) == Window(75, 10)


@pytest.mark.parametrize(
    ("num_frames", "fps", "offset"),
    [(0, 30.0, 0.5), (10, 0.0, 0.5), (10, -1.0, 0.5), (10, float("nan"), 0.5),
     (10, 30.0, -0.1), (10, 30.0, 1.1), (10, 30.0, float("nan"))],
)  # fmt: skip
def test_compute_window_impossible_input_is_refused(
    num_frames: int, fps: float, offset: float
) -> None:
    with pytest.raises(ValueError, match="window needs"):
        compute_window(num_frames, fps, seconds=1.0, offset=offset)
