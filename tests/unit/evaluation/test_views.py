"""Evaluation views: which frames and squares, by hand; and what is cut from real pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.evaluation.features import decode_view, decode_views
from lssl_ray.evaluation.views import (
    EvaluationView,
    build_fast_view,
    compute_clip_windows,
    compute_crops,
    plan_evaluation_views,
)
from lssl_ray.evaluation.zero_shot import compute_zero_shot
from lssl_ray.video.cuts import Crop
from lssl_ray.video.index import index_videos
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.sampling import Window
from lssl_ray.video.views import plan_center_view


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=60.0) as process:
        yield process


def test_plan_evaluation_views_one_view_is_the_centre_view_of_training() -> None:
    for height, width in ((240, 320), (320, 240), (64, 64)):
        (plan,) = plan_evaluation_views(
            EvaluationView(num_frames=8, size=32), num_frames=75, height=height, width=width
        )
        other = plan_center_view(
            num_frames=75, frames_per_view=8, size=32, height=height, width=width
        )
        assert plan.crop == other.crop and plan.size == other.size
        np.testing.assert_array_equal(plan.frame_indices, other.frame_indices)


def test_plan_evaluation_views_clips_and_crops_by_hand() -> None:
    view = EvaluationView(num_frames=2, size=32, num_clips=2, num_crops=3)
    plans = plan_evaluation_views(view, num_frames=10, height=4, width=10)
    frames = [plan.frame_indices.tolist() for plan in plans]
    assert frames == [[0, 4]] * 3 + [[5, 9]] * 3
    squares = [Crop(0, 0, 4, 4), Crop(0, 3, 4, 4), Crop(0, 6, 4, 4)]
    assert [plan.crop for plan in plans] == squares * 2


def test_compute_crops_tall_picture_goes_from_top_to_bottom() -> None:
    crops = compute_crops(height=9, width=4, num_crops=3)
    assert crops == [Crop(0, 0, 4, 4), Crop(2, 0, 4, 4), Crop(5, 0, 4, 4)]


def test_compute_clip_windows_fewer_frames_than_clips_repeat_frames() -> None:
    windows = compute_clip_windows(2, num_clips=4)
    assert windows == [Window(0, 1), Window(0, 1), Window(1, 1), Window(1, 1)]


@given(num_frames=st.integers(1, 400), num_clips=st.integers(1, 12))
def test_compute_clip_windows_cover_the_video_and_stay_inside(
    num_frames: int, num_clips: int
) -> None:
    windows = compute_clip_windows(num_frames, num_clips=num_clips)
    covered = {
        frame for one in windows for frame in range(one.start, one.start + one.length)
    }  # fmt: skip
    assert covered == set(range(num_frames))
    assert all(one.length >= 1 and one.start + one.length <= num_frames for one in windows)
    if num_frames >= num_clips:
        lengths = {one.length for one in windows}
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("patch", "size"), [(8, 96), (16, 96), (14, 98), (32, 96), (200, 200)])
def test_build_fast_view_size_is_a_multiple_of_the_patch(patch: int, size: int) -> None:
    slow = EvaluationView(num_frames=8, size=224, num_clips=3, num_crops=3)
    fast = build_fast_view(slow, patch_size=patch)
    assert (fast.num_frames, fast.size, fast.num_views) == (64, size, 9)


@pytest.mark.parametrize("num_crops", [1, 3])
def test_decode_views_cuts_what_was_painted(
    tmp_path: Path, process: DecodeProcess, num_crops: Literal[1, 3]
) -> None:
    """Left third red, middle green, right blue; the second half of the video twice as bright."""
    frames = np.zeros((12, 32, 96, 3), dtype=np.uint8)
    for channel in range(3):
        frames[:, :, 32 * channel : 32 * (channel + 1), channel] = 100
    frames[6:] *= 2
    tiny.write_video(tmp_path / "v" / "thirds.mp4", frames)
    manifest, _ = index_videos([str(tmp_path / "v")], labels="none", deadline_seconds=60.0)
    slow = EvaluationView(num_frames=2, size=16, num_clips=2, num_crops=num_crops)
    fast = EvaluationView(num_frames=3, size=8)
    decoded = decode_views(process, manifest.row(0), [slow, fast])
    assert isinstance(decoded, list)
    assert decoded[0].shape == (2 * num_crops, 2, 16, 16, 3) and decoded[1].shape[0] == 1
    channels = [1] if num_crops == 1 else [0, 1, 2]
    for clip, level in enumerate((100, 200)):
        for place, channel in enumerate(channels):
            view = decoded[0][clip * num_crops + place].astype(int)
            inside = view[:, 4:12, 4:12]  # chroma is shared by neighbours at the edges
            assert np.abs(inside[..., channel] - level).max() < 25
            assert inside[..., [c for c in range(3) if c != channel]].max() < 40
    alone = decode_view(process, manifest.row(0), fast)
    assert isinstance(alone, np.ndarray)
    np.testing.assert_array_equal(decoded[1][0], alone)


def test_multi_crop_average_by_hand() -> None:
    """Two views of one video: cosines 0.8 and 0.28 for `a`, 0.6 and 0.96 for `b`; `b` wins."""
    views = torch.tensor([[[0.8, 0.6], [0.28, 0.96]]])
    result = compute_zero_shot(views, torch.eye(2), labels=("a", "b"), truth=["a"])
    assert result.predictions == (1,) and result.top1 == 0.0
    single = compute_zero_shot(views[:, :1], torch.eye(2), labels=("a", "b"), truth=["a"])
    assert single.top1 == 1.0
    mean = F.normalize(views.mean(dim=1), dim=-1)
    torch.testing.assert_close(mean, torch.tensor([[0.54, 0.78]]) / (0.54**2 + 0.78**2) ** 0.5)
