"""Decoded views: made once, made anew for other videos or another look, and never half."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from video_records import build_record

from lssl_ray.errors import DataError
from lssl_ray.types import ClipFailure
from lssl_ray.validation.decoded import DecodedVideo, DecodedVideos, load_or_decode
from lssl_ray.video.manifest import build_manifest

SHAPE = (2, 3, 4, 4, 3)
IDS = ("a.mp4", "bad.mp4", "c.mp4")


class Decoder:
    """Gives each video its own pixels, and counts."""

    def __init__(self, *, augmented: bool = False) -> None:
        self.count = 0
        self.augmented = augmented

    def __call__(self, number: int) -> DecodedVideo | ClipFailure:
        self.count += 1
        if IDS[number].startswith("bad"):
            return ClipFailure(IDS[number], "/videos/bad.mp4", "no_frames", "empty", 0.1, 0)
        values = np.full((2, 5), number / 3, dtype=np.float32) if self.augmented else None
        return DecodedVideo(np.full(SHAPE, 50 + number, dtype=np.uint8), values)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., DecodedVideos]:
    def load_videos(
        decoder: Decoder, *, look: int = 1, ids: tuple[str, ...] = IDS
    ) -> DecodedVideos:
        manifest = build_manifest([build_record(video_id) for video_id in ids], root="/videos")
        return load_or_decode(
            tmp_path, "val", manifest, look={"size": (look,)}, shape=SHAPE, decode=decoder
        )

    return load_videos


@pytest.mark.parametrize("augmented", [False, True])
def test_decoded_videos_are_decoded_once(
    load: Callable[..., DecodedVideos], augmented: bool
) -> None:
    first, second = Decoder(augmented=augmented), Decoder(augmented=augmented)
    for found in (load(first), load(second)):
        assert found.video_ids == ("a.mp4", "c.mp4")
        assert found.frames.shape == (2, *SHAPE)
        assert [int(frames.min()) for frames in found.frames] == [50, 52]
        assert [int(frames.max()) for frames in found.frames] == [50, 52]
        assert [failure.reason for failure in found.failures] == ["no_frames"]
        if augmented:
            assert found.augmentation is not None and found.augmentation.dtype == np.float32
            np.testing.assert_array_equal(found.augmentation[1], np.float32(2 / 3))
        else:
            assert found.augmentation is None
    assert (first.count, second.count) == (3, 0)


def test_decoded_videos_of_another_look_or_list_are_decoded_anew(
    load: Callable[..., DecodedVideos],
) -> None:
    load(Decoder())
    other, fewer = Decoder(), Decoder()
    load(other, look=2)
    assert load(fewer, look=2, ids=IDS[:1]).video_ids == ("a.mp4",)
    assert (other.count, fewer.count) == (3, 1)


def test_decoded_videos_after_a_kill_are_decoded_anew(
    load: Callable[..., DecodedVideos], tmp_path: Path
) -> None:
    class Killed(Decoder):
        def __call__(self, number: int) -> DecodedVideo | ClipFailure:
            if number == 2:
                raise KeyboardInterrupt
            return super().__call__(number)

    with pytest.raises(KeyboardInterrupt):
        load(Killed())
    decoder = Decoder()
    assert load(decoder).video_ids == ("a.mp4", "c.mp4")
    assert decoder.count == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val.json", "val.rgb"]


def test_decoded_videos_that_all_fail_are_refused_with_a_reason(
    load: Callable[..., DecodedVideos],
) -> None:
    class Failing(Decoder):
        def __call__(self, number: int) -> DecodedVideo | ClipFailure:
            return super().__call__(1)

    with pytest.raises(DataError, match="no_frames"):
        load(Failing())
