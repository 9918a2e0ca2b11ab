"""Cuts: what leaves the decode child is what is inside the rectangles, at any size of picture."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lssl_ray.video.cuts import Crop, Cut, copy_cut
from lssl_ray.video.isolation import DecodeError, DecodeProcess

HEIGHT, WIDTH = 64, 112  # neither this width nor half of it is one that decord refuses
SMALL = Cut(np.array([2, 7, 7]), Crop(top=5, left=11, height=20, width=33))
OTHER = Cut(np.array([4]), Crop(top=0, left=0, height=7, width=WIDTH))


@pytest.fixture
def clip(tmp_path: Path, write_clip: Callable[..., Path]) -> str:
    return str(write_clip(tmp_path / "clip.mp4", height=HEIGHT, width=WIDTH))


@pytest.fixture
def reducing_process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=30.0, short_side=HEIGHT // 2) as process:
        yield process


def slice_cut(process: DecodeProcess, path: str, cut: Cut) -> npt.NDArray[np.uint8]:
    """The same from whole frames, by plain slices."""
    crop = cut.crop
    frames = process.frames(path, cut.frame_indices.tolist())
    return frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width].copy()


def test_copy_cut_takes_the_frames_and_pixels_that_were_planned() -> None:
    # Each pixel tells its frame, row and column.
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    numbers = np.array([3, 5, 9])
    frames = np.stack(
        [np.stack([rows, columns, np.full_like(rows, n)], -1) for n in numbers]
    ).astype(np.uint8)
    cut = Cut(np.array([9, 3, 9]), Crop(top=7, left=11, height=16, width=18))
    assert np.array_equal(copy_cut(frames, numbers, cut), frames[[2, 0, 2], 7:23, 11:29])


@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_cut_gives_slices_of_the_frames(process: DecodeProcess, clip: str, reader: str) -> None:
    expected = [slice_cut(process, clip, cut) for cut in (SMALL, OTHER)]
    cuts = process.cut(
        clip, lambda height, width: [SMALL, OTHER], reader=reader, size=(HEIGHT, WIDTH)
    )
    assert [cut for cut, _ in cuts] == [SMALL, OTHER]
    for (_, pictures), sliced in zip(cuts, expected, strict=True):
        assert np.array_equal(pictures, sliced)


def test_cut_overlapping_cuts_of_more_pixels_than_the_frames(
    process: DecodeProcess, clip: str
) -> None:
    whole = Cut(np.array([1, 3]), Crop(top=0, left=0, height=HEIGHT, width=WIDTH))
    expected = slice_cut(process, clip, whole)
    cuts = process.cut(
        clip, lambda height, width: [whole, whole, SMALL], reader="decord", size=(HEIGHT, WIDTH)
    )
    assert all(np.array_equal(pictures, expected) for _, pictures in cuts[:2])
    assert np.array_equal(cuts[2][1], slice_cut(process, clip, SMALL))


def test_cut_of_a_reduced_video_is_planned_for_the_reduced_size(
    reducing_process: DecodeProcess, clip: str
) -> None:
    asked: list[tuple[int, int]] = []

    def plan(height: int, width: int) -> list[Cut]:
        asked.append((height, width))
        return [Cut(np.array([0, 6]), Crop(0, 0, height // 2, width // 2))]

    ((cut, pictures),) = reducing_process.cut(clip, plan, reader="decord", size=(HEIGHT, WIDTH))
    assert asked == [(HEIGHT // 2, WIDTH // 2)]
    assert pictures.shape == (2, HEIGHT // 4, WIDTH // 4, 3)
    pictures = pictures.copy()  # the next call overwrites it
    assert np.array_equal(pictures, slice_cut(reducing_process, clip, cut))


def test_cut_of_a_file_that_changed_its_size_is_planned_anew(
    process: DecodeProcess, clip: str
) -> None:
    def plan(height: int, width: int) -> list[Cut]:
        return [Cut(np.array([0, 6]), Crop(height // 2, 0, height // 2, width))]

    # As indexed it was larger: that crop would not fit.
    ((cut, pictures),) = process.cut(clip, plan, reader="decord", size=(4 * HEIGHT, 4 * WIDTH))
    assert cut.crop == Crop(HEIGHT // 2, 0, HEIGHT // 2, WIDTH)
    assert np.array_equal(pictures, slice_cut(process, clip, cut))


def test_cut_of_a_frame_past_the_end_is_the_files_fault(process: DecodeProcess, clip: str) -> None:
    cut = Cut(np.array([2, 10_000]), SMALL.crop)
    with pytest.raises(DecodeError, match="decode_failed"):
        process.cut(clip, lambda height, width: [cut], reader="decord", size=(HEIGHT, WIDTH))
