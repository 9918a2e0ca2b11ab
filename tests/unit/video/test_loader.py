"""The local loader on real files: every clip once, in plan order, whoever decodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from lssl_ray.types import ClipBatch
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest
from lssl_ray.video.order import RunPlan
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=3, size=32, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=1, num_frames=2, size=16, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.5,
    jitter_probability=0.8,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)
SETTINGS = DecodeSettings(deadline_seconds=60.0, recycle_after=500, short_side=512)
PLAN = RunPlan(num_videos=8, num_positions=20, seed=3)  # two epochs and a half


def load_all(
    manifest: Manifest,
    *,
    num_decoders: int = 1,
    start: int = 0,
    clips_per_step: int = 3,
    settings: DecodeSettings = SETTINGS,
) -> list[ClipBatch]:
    return list(
        iterate_batches(
            manifest,
            PLAN,
            start_position=start,
            clips_per_step=clips_per_step,
            recipe=RECIPE,
            settings=settings,
            num_decoders=num_decoders,
            device=torch.device("cpu"),
        )
    )


@pytest.fixture(scope="module")
def batches(videos: tiny.VideoSet) -> list[ClipBatch]:
    return load_all(load_manifest(str(videos.manifest)))


def flatten(batches: list[ClipBatch]) -> dict[int, tuple[np.ndarray, ...]]:
    clips = {}
    for batch in batches:
        assert batch.local_views is not None
        for row, position in enumerate(batch.positions):
            views = (batch.global_views[row], batch.local_views[row], batch.augmentation[row])
            clips[position] = tuple(view.numpy() for view in views)
    return clips


def assert_same_clips(
    actual: dict[int, tuple[np.ndarray, ...]], expected: dict[int, tuple[np.ndarray, ...]]
) -> None:
    assert actual.keys() == expected.keys()
    for position, views in expected.items():
        pairs = zip(actual[position], views, strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs), position


def test_iterate_batches_yields_every_clip_once_in_plan_order(
    videos: tiny.VideoSet, batches: list[ClipBatch]
) -> None:
    manifest = load_manifest(str(videos.manifest))
    assert [batch.num_clips for batch in batches] == [3, 3, 3, 3, 3, 3, 2]
    assert [p for batch in batches for p in batch.positions] == list(range(20))
    expected = [manifest.row(visit.video).video_id for visit in PLAN.compute_visits(0, 20)]
    assert [name for batch in batches for name in batch.video_ids] == expected
    assert not any(batch.failures for batch in batches)
    assert len({views[0].tobytes() for views in flatten(batches).values()}) == 20


def test_iterate_batches_two_decoders_give_the_same_batches(
    videos: tiny.VideoSet, batches: list[ClipBatch]
) -> None:
    both = load_all(load_manifest(str(videos.manifest)), num_decoders=2)
    assert [batch.positions for batch in both] == [batch.positions for batch in batches]
    assert_same_clips(flatten(both), flatten(batches))


def test_iterate_batches_resumed_with_another_batch_size_gives_the_rest(
    videos: tiny.VideoSet, batches: list[ClipBatch]
) -> None:
    rest = load_all(load_manifest(str(videos.manifest)), start=9, clips_per_step=4)
    assert [p for batch in rest for p in batch.positions] == list(range(9, 20))
    expected = {p: views for p, views in flatten(batches).items() if p >= 9}
    assert_same_clips(flatten(rest), expected)


def test_iterate_batches_damaged_file_becomes_a_failure_in_its_batch(
    videos: tiny.VideoSet, batches: list[ClipBatch], tmp_path: Path
) -> None:
    records = load_manifest(str(videos.manifest)).records()
    path = tmp_path / "cut.mp4"
    path.write_bytes(Path(records[5].path).read_bytes())
    records[5] = replace(records[5], path=str(tiny.truncate_video(path)))
    damaged = load_all(build_manifest(records, root="/"))
    visits = [visit for visit in PLAN.compute_visits(0, 20) if visit.video == 5]
    found = [
        (step, failure.video_id, failure.path, failure.epoch)
        for step, batch in enumerate(damaged)
        for failure in batch.failures
    ]
    assert found == [
        (visit.position // 3, records[5].video_id, str(path), visit.epoch) for visit in visits
    ]
    bad = {visit.position for visit in visits}
    expected = {p: views for p, views in flatten(batches).items() if p not in bad}
    assert_same_clips(flatten(damaged), expected)


def test_iterate_batches_abandoned_early_ends_its_decoders(videos: tiny.VideoSet) -> None:
    feed = iterate_batches(
        load_manifest(str(videos.manifest)), PLAN,
        start_position=0, clips_per_step=3, recipe=RECIPE, settings=SETTINGS,
        num_decoders=1, device=torch.device("cpu"),
    )  # fmt: skip
    children = Path("/proc/self/task")
    if not children.is_dir():
        pytest.skip("needs /proc to count child processes")

    def count() -> int:
        return sum(
            len((task / "children").read_text().split())
            for task in children.iterdir()
            if (task / "children").exists()
        )

    before = count()
    next(feed)
    assert count() > before
    feed.close()  # type: ignore[attr-defined]
    assert count() == before


def test_iterate_batches_counts_clips_that_another_reader_gave(
    videos: tiny.VideoSet, batches: list[ClipBatch]
) -> None:
    manifest = load_manifest(str(videos.manifest))
    assert {record.reader for record in manifest.records()} == {"decord"}
    assert [batch.feed.num_fallbacks for batch in batches] == [0] * 7
    # 96 x 64 px become 72 x 48, a width that decord can't give.
    reduced = load_all(manifest, num_decoders=2, settings=replace(SETTINGS, short_side=48))
    assert [batch.num_clips for batch in reduced] == [3, 3, 3, 3, 3, 3, 2]
    assert [batch.feed.num_fallbacks for batch in reduced] == [3, 3, 3, 3, 3, 3, 2]
