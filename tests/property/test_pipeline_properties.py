"""Packing clips into columns and back: nothing lost, nothing invented, failures in their place."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.types import ClipFailure
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import DecodedClip, FailedClip, pack_clips, unpack_batch
from lssl_ray.video.recipe import ViewKind, ViewRecipe

CPU = torch.device("cpu")
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def build_recipe(num_local: int) -> ViewRecipe:
    return ViewRecipe(
        global_views=ViewKind(count=2, num_frames=3, size=8, area=(0.4, 1.0), window_share=1.0),
        local_views=ViewKind(
            count=num_local, num_frames=2, size=4, area=(0.1, 0.4), window_share=0.1
        ),
        window_seconds=1.0,
        flip_probability=0.5,
        jitter_probability=0.5,
        jitter_strength=(0.4, 0.4, 0.2),
        grey_probability=0.2,
    )


def build_decoded(position: int, video_id: str, num_local: int) -> DecodedClip:
    rng = np.random.default_rng(position)
    return DecodedClip(
        visit=ClipVisit(position=position, epoch=position // 5, video=position % 5),
        video_id=video_id,
        global_views=rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8),
        local_views=rng.integers(0, 256, (num_local, 2, 4, 4, 3), dtype=np.uint8),
        augmentation=rng.random((2 + num_local, 5), dtype=np.float32),
    )


def build_failed(position: int, video_id: str) -> FailedClip:
    failure = ClipFailure(
        video_id=video_id,
        path=f"/videos/{video_id}",
        reason="decode_failed",
        detail=f"line {position}",
        seconds=position / 8,
        epoch=position // 5,
        position=position,
        tried=position % 2 == 0,
    )
    return FailedClip(
        visit=ClipVisit(position=position, epoch=position // 5, video=position % 5),
        failure=failure,
    )


@given(
    kinds=st.lists(st.tuples(st.booleans(), names), max_size=6),
    start=st.integers(0, 1000),
    num_missing=st.integers(0, 3),
    num_local=st.integers(0, 2),
)
def test_pack_and_unpack_give_back_clips_and_failures(
    kinds: list[tuple[bool, str]], start: int, num_missing: int, num_local: int
) -> None:
    clips = [
        build_decoded(start + i, name, num_local) if good else build_failed(start + i, name)
        for i, (good, name) in enumerate(kinds)
    ]
    decoded = [clip for clip in clips if isinstance(clip, DecodedClip)]
    failed = [clip for clip in clips if isinstance(clip, FailedClip)]
    num_rows = len(clips) + num_missing
    columns = pack_clips(clips, recipe=build_recipe(num_local), num_rows=num_rows)
    assert {len(values) for values in columns.values()} == {num_rows}
    batch = unpack_batch(columns, device=CPU)
    assert batch.num_clips == len(decoded)
    assert batch.positions == tuple(clip.visit.position for clip in decoded)
    assert batch.video_ids == tuple(clip.video_id for clip in decoded)
    assert batch.failures == tuple(clip.failure for clip in failed)
    assert batch.global_views.shape == (len(decoded), 2, 3, 8, 8, 3)
    assert (batch.local_views is None) == (num_local == 0)
    for row, clip in enumerate(decoded):
        assert np.array_equal(batch.global_views[row].numpy(), clip.global_views)
        assert np.array_equal(batch.augmentation[row].numpy(), clip.augmentation)
        if batch.local_views is not None:
            assert np.array_equal(batch.local_views[row].numpy(), clip.local_views)


def test_pack_clips_shapes_do_not_depend_on_what_failed() -> None:
    recipe = build_recipe(2)
    packed = [
        pack_clips(clips, recipe=recipe, num_rows=2)
        for clips in (
            [build_decoded(0, "a", 2), build_decoded(1, "b", 2)],
            [build_failed(0, "a"), build_failed(1, "b")],
            [],
        )
    ]
    layouts = [{k: (v.shape, v.dtype) for k, v in columns.items()} for columns in packed]
    assert layouts[0] == layouts[1] == layouts[2]


def test_unpack_batch_does_not_hand_out_read_only_memory() -> None:
    columns = pack_clips([build_decoded(0, "a", 1)], recipe=build_recipe(1), num_rows=1)
    for values in columns.values():
        values.setflags(write=False)
    batch = unpack_batch(columns, device=CPU)
    batch.global_views.zero_()
    assert columns["global_views"].any()
