"""Decoding right into a block's rows gives the block that packing decoded clips gives."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from lssl_ray.video.manifest import build_manifest, load_manifest
from lssl_ray.video.order import RunPlan
from lssl_ray.video.pipeline import ClipDecoder, blank_columns, pack_clips
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

SETTINGS = DecodeSettings(deadline_seconds=60.0, recycle_after=500, short_side=512)
PLAN = RunPlan(num_videos=4, num_positions=4, seed=3)
MISSING_VIDEO = 2
NUM_ROWS = 5  # the last one is nobody's


def build_recipe(num_local: int) -> ViewRecipe:
    return ViewRecipe(
        global_views=ViewKind(count=2, num_frames=3, size=32, area=(0.4, 1.0), window_share=1.0),
        local_views=ViewKind(
            count=num_local, num_frames=2, size=16, area=(0.1, 0.4), window_share=0.5
        ),
        window_seconds=1.0,
        flip_probability=0.5,
        jitter_probability=0.8,
        jitter_strength=(0.4, 0.4, 0.2),
        grey_probability=0.2,
    )


@pytest.mark.parametrize("num_local", [0, 2])
def test_decode_into_leaves_the_block_that_pack_clips_makes(
    videos: tiny.VideoSet, num_local: int
) -> None:
    records = load_manifest(str(videos.manifest)).records()[:4]
    records[MISSING_VIDEO] = replace(records[MISSING_VIDEO], path="/nowhere/gone.mp4")
    recipe = build_recipe(num_local)
    visits = PLAN.compute_visits(0, 4)
    columns = blank_columns(recipe, NUM_ROWS)
    with ClipDecoder(
        build_manifest(records, root="/"), recipe=recipe, settings=SETTINGS, seed=PLAN.seed
    ) as decoder:
        expected = pack_clips(
            [decoder.decode(visit) for visit in visits], recipe=recipe, num_rows=NUM_ROWS
        )
        for row, visit in enumerate(visits):
            decoder.decode_into(columns, row, visit)
    assert columns["decoded"].tolist() == [*(v.video != MISSING_VIDEO for v in visits), False]
    del columns["seconds"], expected["seconds"]  # the clock's
    assert columns.keys() == expected.keys()
    for name, values in expected.items():
        assert columns[name].dtype == values.dtype, name
        assert np.array_equal(columns[name], values), name
