"""How a session's clips are cut into segments and units, and what a worker refuses."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.cluster.data import (
    SCHEDULING_SECONDS,
    ClipStream,
    PacedScheduling,
    build_execution_options,
    check_positions,
)
from lssl_ray.video.order import RunPlan, compute_num_steps
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=8, size=224, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=8, num_frames=8, size=96, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.5,
    jitter_probability=0.8,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)


def build_stream(*, num_steps: int, num_workers: int, max_segment_units: int) -> ClipStream:
    return ClipStream(
        plan=RunPlan(num_videos=5, num_positions=10**6, seed=0),
        start_position=60,
        num_steps=num_steps,
        num_workers=num_workers,
        clips_per_step=4 * num_workers,
        recipe=RECIPE,
        settings=DecodeSettings(deadline_seconds=1.0, recycle_after=9, short_side=64),
        num_decoders=3,
        decode_memory_mib=1024,
        max_segment_units=max_segment_units,
    )


@pytest.mark.parametrize("num_steps", [1, 5, 6, 7, 13])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("max_segment_units", [1, 2, 7, 100])
def test_segments_hold_every_unit_once_in_order_and_whole_steps(
    num_steps: int, num_workers: int, max_segment_units: int
) -> None:
    stream = build_stream(
        num_steps=num_steps, num_workers=num_workers, max_segment_units=max_segment_units
    )
    segments = [stream.segment_units(number) for number in range(stream.num_segments)]
    assert list(itertools.chain(*segments)) == list(range(num_steps * num_workers))
    assert all(len(units) > 0 and len(units) % num_workers == 0 for units in segments)
    assert all(len(units) <= max(max_segment_units, num_workers) for units in segments)


def test_session_without_steps_has_no_segment() -> None:
    assert build_stream(num_steps=0, num_workers=2, max_segment_units=10).num_segments == 0


def test_execution_options_bound_what_lies_decoded() -> None:
    stream = build_stream(num_steps=9, num_workers=2, max_segment_units=10)
    options = build_execution_options(stream, labels={"pool": "decode"})
    pixels = 4 * 3 * (2 * 8 * 224 * 224 + 8 * 8 * 96 * 96)
    assert stream.block_bytes == pixels
    assert options.preserve_order and options.label_selector == {"pool": "decode"}
    # Some blocks for each of three decoders and two workers; not the half of any store.
    assert 5 * pixels <= options.resource_limits.object_store_memory <= 100 * pixels


@given(
    clips_per_step=st.integers(1, 12),
    num_positions=st.integers(1, 120),
    sessions=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=6),
)
def test_units_of_sessions_of_any_sizes_hold_every_position_once(
    clips_per_step: int, num_positions: int, sessions: list[tuple[int, int]]
) -> None:
    num_steps = compute_num_steps(num_positions, global_batch=clips_per_step)
    step, seen = 0, []
    for size, length in [*sessions, (1, num_steps)]:
        num_workers = min(size, clips_per_step)
        stream = replace(
            build_stream(
                num_steps=min(length, num_steps - step), num_workers=1, max_segment_units=7
            ),
            plan=RunPlan(num_videos=5, num_positions=num_positions, seed=0),
            start_position=min(step * clips_per_step, num_positions),
            num_workers=num_workers,
            clips_per_step=clips_per_step,
        )
        for segment in range(stream.num_segments):
            for unit in stream.segment_units(segment):
                positions = stream.unit_positions(unit)
                assert (
                    len(positions) <= stream.clips_per_worker == -(-clips_per_step // num_workers)
                )
                # Whatever the number of workers, a step holds the same clips.
                assert {p // clips_per_step for p in positions} <= {step + unit // num_workers}
                seen += positions
        step += stream.num_steps
    assert seen == list(range(num_positions))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([4, 5, 6], range(7, 10)),
        ([4, 6, 5], range(4, 7)),
        ([-1, -1, -1], range(4, 7)),
        ([4, -1, -1], range(4, 6)),
        ([4, 5, 6], range(4, 6)),
        ([4, 5, 6], range(4, 8)),
        ([-1, 4, 5], range(4, 6)),
    ],
    ids=["another unit", "order", "blank", "short", "more", "fewer rows", "blank first"],
)
def test_check_positions_other_clips_are_refused(positions: list[int], expected: range) -> None:
    with pytest.raises(RuntimeError, match=str(expected.start)):
        check_positions({"position": np.array(positions)}, expected=expected)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([4, 5, 6], range(4, 7)), ([8, 9, -1], range(8, 10)), ([-1, -1, -1], range(11, 10))],
)
def test_check_positions_due_clips_pass(positions: list[int], expected: range) -> None:
    check_positions({"position": np.array(positions)}, expected=expected)


def test_paced_scheduling_keeps_steps_its_time_apart() -> None:
    pace = PacedScheduling()
    before, after = [], []
    for _ in range(4):
        before.append(time.monotonic())
        pace.on_execution_step(None)
        after.append(time.monotonic())
    gaps = [later - earlier for earlier, later in zip(before, after[1:], strict=False)]
    assert min(gaps) >= SCHEDULING_SECONDS
