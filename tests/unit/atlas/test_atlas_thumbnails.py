"""Thumbnails: what is in the video, in the order asked for, within the budget."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from lssl_ray.atlas.thumbnails import LEVELS, NUM_FRAMES, draw_thumbnails, encode_strip
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.recipe import DecodeSettings

SETTINGS = DecodeSettings(deadline_seconds=60.0, recycle_after=100, short_side=512)
PLENTY = 10**8


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[VideoRecord]:
    """Six videos, each of one grey, brighter and brighter; the fourth is gone since."""
    folder = tmp_path_factory.mktemp("grey")
    for number in range(6):
        frames = np.full((8, 64, 96, 3), 40 * number + 20, dtype=np.uint8)
        tiny.write_video(folder / f"{number}.mp4", frames)
    manifest, _ = index_videos([str(folder)], labels="none", deadline_seconds=60.0)
    (folder / "3.mp4").unlink()
    return manifest.records()


def read(address: str) -> Image.Image:
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_show_each_clip_in_order_and_list_those_without(
    records: list[VideoRecord],
) -> None:
    told = []
    drawn = draw_thumbnails(
        records,
        settings=SETTINGS,
        budget_bytes=PLENTY,
        on_progress=lambda *numbers: told.append(numbers),
    )
    assert [bool(address) for address in drawn.addresses] == [True, True, True, False, True, True]
    (failure,) = drawn.failures
    assert failure.path == records[3].path and drawn.num_left_out == 0
    for number, address in enumerate(drawn.addresses):
        if address:
            with read(address) as image:
                assert image.size == (NUM_FRAMES * LEVELS[0][0], LEVELS[0][0])
                mean = np.asarray(image.convert("L")).mean()
            assert abs(mean - (40 * number + 20)) < 12
    assert told[-1] == (6, 6, 1)


def test_thumbnails_of_too_small_a_budget_are_smaller_then_fewer(
    records: list[VideoRecord],
) -> None:
    whole = draw_thumbnails(records, settings=SETTINGS, budget_bytes=PLENTY)
    smaller = draw_thumbnails(records, settings=SETTINGS, budget_bytes=whole.num_bytes - 1)
    assert smaller.height < whole.height and smaller.num_left_out == 0
    assert smaller.num_bytes <= whole.num_bytes - 1
    with read(smaller.addresses[0]) as image:
        assert image.size[1] == smaller.height
    few = draw_thumbnails(records, settings=SETTINGS, budget_bytes=200)
    assert few.height == LEVELS[-1][0] and few.num_bytes <= 200 and few.num_left_out > 0
    kept = [bool(address) for address in few.addresses]
    assert kept == sorted(kept, reverse=True)  # the most important ones, which come first


def test_strip_holds_frames_side_by_side() -> None:
    frames = np.zeros((4, 48, 48, 3), dtype=np.uint8)
    for number in range(4):
        frames[number] = 60 * number
    with read(encode_strip(frames, height=48, quality=90)) as image:
        pixels = np.asarray(image.convert("L")).astype(float)
    middles = [pixels[24, 24 + 48 * number] for number in range(4)]
    np.testing.assert_allclose(middles, [0, 60, 120, 180], atol=12)


def test_thumbnails_of_no_clip_are_none(tmp_path: Path) -> None:
    drawn = draw_thumbnails([], settings=SETTINGS, budget_bytes=PLENTY)
    assert drawn.addresses == () and drawn.num_bytes == 0
