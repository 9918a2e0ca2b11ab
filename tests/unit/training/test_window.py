"""Figures of a window that tell whether decoders or the model set the pace."""

from pathlib import Path

import pytest
import torch

from lssl_ray.training.context import LocalContext
from lssl_ray.training.window import MetricWindow
from lssl_ray.types import ClipBatch, ClipFailure, FeedStats, Progress


def build_batch(feed: FeedStats, failures: tuple[ClipFailure, ...] = ()) -> ClipBatch:
    return ClipBatch(
        global_views=torch.zeros(1, 1, 1, 2, 2, 3, dtype=torch.uint8),
        local_views=None,
        augmentation=torch.zeros(1, 1, 5),
        positions=(0,),
        video_ids=("v",),
        failures=failures,
        feed=feed,
    )


@pytest.fixture
def context(tmp_path: Path) -> LocalContext:
    return LocalContext(
        tmp_path, device=torch.device("cpu"), append=lambda kind, row: None, num_to_keep=1
    )


def test_collect_tells_how_busy_decoders_were(context: LocalContext) -> None:
    untried = ClipFailure("v", "/v", "decoder_crashed", "", 0.0, 0, position=3, tried=False)
    window = MetricWindow()
    for feed, failures in (
        (FeedStats(decode_seconds=2.0, num_tried=4, num_fallbacks=3, batches_ready=1), ()),
        (FeedStats(decode_seconds=1.0, num_tried=2, num_fallbacks=2), (untried,)),
    ):
        window.add_time(seconds=1.0, wait_seconds=0.25)
        window.add_feed(build_batch(feed, failures))
    record = window.collect(Progress(step=2), context, num_steps=9, num_decoders=3)
    assert record["data/decode_seconds_per_clip"] == pytest.approx(3.0 / 6)
    assert record["data/decode_clips_per_core_second"] == pytest.approx(6 / 3.0)
    assert record["data/decoder_busy_share"] == pytest.approx(3.0 / (2.0 * 3))
    assert record["data/batches_ready"] == 0.5
    assert record["data/clips_not_tried"] == 1
    assert record["data/reader_fallbacks"] == 5
    assert record["data/wait_share"] == pytest.approx(0.25)


def test_collect_starts_anew_for_the_next_window(context: LocalContext) -> None:
    window = MetricWindow()
    window.add_time(seconds=1.0, wait_seconds=0.0)
    window.add_feed(build_batch(FeedStats(decode_seconds=2.0, num_tried=4, batches_ready=1)))
    window.collect(Progress(step=1), context, num_steps=9, num_decoders=1)
    record = window.collect(Progress(step=2), context, num_steps=9, num_decoders=1)
    assert record["data/decoder_busy_share"] == record["data/reader_fallbacks"] == 0.0
    assert "data/decode_seconds_per_clip" not in record  # of no clip
