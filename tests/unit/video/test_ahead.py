"""Batches prepared in the background: the same ones, in the same order, and no thread left."""

import threading
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
import torch

from lssl_ray.types import ClipFailure
from lssl_ray.video.ahead import iterate_on_device
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import (
    Columns,
    DecodedClip,
    FailedClip,
    pack_clips,
    unpack_batch,
)
from lssl_ray.video.recipe import ViewKind, ViewRecipe

CPU = torch.device("cpu")
RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=2, size=4, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=1, num_frames=1, size=2, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.5,
    jitter_probability=0.5,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)


def build_block(step: int) -> Columns:
    """Two clips with random pixels; in every third step the second one failed."""
    rng = np.random.default_rng(step)
    clips: list[DecodedClip | FailedClip] = [
        DecodedClip(
            visit=ClipVisit(position=2 * step + row, epoch=0, video=row),
            video_id=f"video-{row}",
            global_views=rng.integers(0, 256, (2, 2, 4, 4, 3), dtype=np.uint8),
            local_views=rng.integers(0, 256, (1, 1, 2, 2, 3), dtype=np.uint8),
            augmentation=rng.random((3, 5), dtype=np.float32),
            seconds=0.5,
        )
        for row in range(2)
    ]
    if step % 3 == 0:
        failure = ClipFailure("b", "/b", "missing", "gone", 0.25, 0, position=2 * step + 1)
        clips[1] = FailedClip(visit=ClipVisit(2 * step + 1, 0, 1), failure=failure)
    return pack_clips(clips, recipe=RECIPE, num_rows=2)


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def count_threads() -> int:
    return sum(thread.name == "batches-ahead" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    wait_until(lambda: count_threads() == 0)


def test_iterate_on_device_gives_what_unpacking_in_turn_gives() -> None:
    expected = [unpack_batch(build_block(step), device=CPU) for step in range(7)]
    actual = list(iterate_on_device((build_block(step) for step in range(7)), device=CPU))
    assert len(actual) == 7
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.positions, ours.video_ids) == (theirs.positions, theirs.video_ids)
        assert ours.failures == theirs.failures
        assert torch.equal(ours.global_views, theirs.global_views)
        assert ours.local_views is not None and theirs.local_views is not None
        assert torch.equal(ours.local_views, theirs.local_views)
        assert torch.equal(ours.augmentation, theirs.augmentation)
    assert [batch.feed.num_tried for batch in actual] == [2] * 7
    assert [batch.feed.decode_seconds for batch in actual] == [0.75, 1, 1, 0.75, 1, 1, 0.75]


def test_iterate_on_device_works_ahead_by_so_many_batches_and_no_more() -> None:
    read: list[int] = []

    def source() -> Generator[Columns, None, None]:
        for step in range(9):
            read.append(step)
            yield build_block(step)

    feed = iterate_on_device(source(), device=CPU, num_ahead=2)
    next(feed)
    wait_until(lambda: len(read) == 3)  # one handed out, two waiting
    second = next(feed)
    wait_until(lambda: len(read) == 4)
    assert second.feed.batches_ready in (1, 2)
    feed.close()  # type: ignore[attr-defined]
    assert len(read) == 4


def test_iterate_on_device_raises_the_source_s_error_after_the_batches_before_it() -> None:
    def source() -> Generator[Columns, None, None]:
        yield build_block(0)
        yield build_block(1)
        raise RuntimeError("clips in the wrong order")

    feed = iterate_on_device(source(), device=CPU)
    assert [next(feed).positions[0] for _ in range(2)] == [0, 2]
    with pytest.raises(RuntimeError, match="wrong order"):
        next(feed)


def test_iterate_on_device_closed_early_closes_its_source() -> None:
    closed = threading.Event()

    def source() -> Generator[Columns, None, None]:
        try:
            for step in range(100):
                yield build_block(step)
        finally:
            closed.set()

    feed = iterate_on_device(source(), device=CPU)
    next(feed)
    feed.close()  # type: ignore[attr-defined]
    assert closed.is_set()
