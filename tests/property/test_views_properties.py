"""Views: crops inside and of the asked size; random by seed, epoch, video and view only."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.types import BRIGHTNESS, CONTRAST, FLIP, GREY, SATURATION
from lssl_ray.video.cuts import Crop, compute_needed_frames
from lssl_ray.video.recipe import ViewKind, ViewRecipe
from lssl_ray.video.sampling import compute_window
from lssl_ray.video.views import (
    ViewPlan,
    build_rng,
    draw_crop,
    plan_center_view,
    plan_views,
    resize_view,
)

RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=8, size=32, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=3, num_frames=4, size=16, area=(0.05, 0.4), window_share=0.125),
    window_seconds=8.5,
    flip_probability=0.5,
    jitter_probability=0.8,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)


@st.composite
def visits(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "num_frames": draw(st.integers(1, 2000)),
        "fps": draw(st.floats(1, 120)),
        "height": draw(st.integers(16, 500)),
        "width": draw(st.integers(16, 500)),
        "seed": draw(st.integers(0, 2**32)),
        "epoch": draw(st.integers(0, 100)),
        "video_id": draw(st.text(max_size=20)),
    }


def describe(plans: list[ViewPlan]) -> list[tuple[object, ...]]:
    return [
        (plan.frame_indices.tolist(), plan.crop, plan.size, plan.augmentation.tolist())
        for plan in plans
    ]


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_draw_crop_lies_inside_any_picture(
    seed: int, height: int, width: int, area: tuple[float, float]
) -> None:
    crop = draw_crop(
        np.random.default_rng(seed), height=height, width=width, area=(min(area), max(area))
    )
    assert crop.height >= 1 and crop.width >= 1
    assert crop.top >= 0 and crop.top + crop.height <= height
    assert crop.left >= 0 and crop.left + crop.width <= width


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(64, 400),
    aspect=st.floats(0.6, 1.6),
    lowest=st.floats(0.05, 0.2),
    highest=st.floats(0.2, 0.4),
)
def test_draw_crop_keeps_area_and_aspect_within_bounds(
    seed: int, height: int, aspect: float, lowest: float, highest: float
) -> None:
    # In such pictures every draw fits, so the fallback can't hide a wrong one.
    width = round(height * aspect)
    crop = draw_crop(
        np.random.default_rng(seed), height=height, width=width, area=(lowest, highest)
    )
    # Sides are rounded to whole pixels: the drawn ones lie within half a pixel.
    assert (crop.height - 0.5) * (crop.width - 0.5) <= highest * height * width
    assert (crop.height + 0.5) * (crop.width + 0.5) >= lowest * height * width
    assert (crop.width - 0.5) / (crop.height + 0.5) <= 4 / 3
    assert (crop.width + 0.5) / (crop.height - 0.5) >= 3 / 4


def test_draw_crop_extreme_picture_gets_the_largest_centred_crop() -> None:
    rng = np.random.default_rng(0)
    assert draw_crop(rng, height=30, width=600, area=(0.9, 1.0)) == Crop(0, 280, 30, 40)
    assert draw_crop(rng, height=600, width=30, area=(0.9, 1.0)) == Crop(280, 0, 40, 30)


def test_draw_crop_covers_areas_and_places() -> None:
    rng = np.random.default_rng(0)
    crops = [draw_crop(rng, height=200, width=200, area=(0.1, 0.4)) for _ in range(500)]
    areas = [crop.height * crop.width / 200**2 for crop in crops]
    assert min(areas) < 0.12 and max(areas) > 0.38
    assert 0.2 < sum(crop.top + crop.height / 2 < 100 for crop in crops) / 500 < 0.8
    assert {crop.width > crop.height for crop in crops} == {True, False}


@given(visit=visits())
def test_plan_views_stay_inside_video_window_and_picture(visit: dict[str, Any]) -> None:
    plans = plan_views(RECIPE, **visit)
    rng = build_rng(seed=visit["seed"], epoch=visit["epoch"], video_id=visit["video_id"], view=0)
    window = compute_window(visit["num_frames"], visit["fps"], seconds=8.5, offset=rng.random())
    assert [plan.size for plan in plans] == [32, 32, 16, 16, 16]
    for number, plan in enumerate(plans):
        first, last = int(plan.frame_indices[0]), int(plan.frame_indices[-1])
        assert window.start <= first <= last < window.start + window.length
        if number < 2:
            assert (first, last) == (window.start, window.start + window.length - 1)
        else:
            assert last - first + 1 <= max(1, round(window.length / 8))
        assert plan.crop.top + plan.crop.height <= visit["height"]
        assert plan.crop.left + plan.crop.width <= visit["width"]


@given(visit=visits())
def test_plan_views_are_a_pure_function_of_their_arguments(visit: dict[str, Any]) -> None:
    expected = describe(plan_views(RECIPE, **visit))
    np.random.seed(1)
    torch.manual_seed(1)
    plan_views(RECIPE, **{**visit, "video_id": "another"})
    assert describe(plan_views(RECIPE, **visit)) == expected
    more = replace(RECIPE, local_views=replace(RECIPE.local_views, count=7))
    assert describe(plan_views(more, **visit))[:5] == expected


def test_plan_views_differ_by_seed_epoch_video_and_view() -> None:
    base: dict[str, Any] = {
        "num_frames": 500, "fps": 25.0, "height": 240, "width": 320,
        "seed": 0, "epoch": 0, "video_id": "a",
    }  # fmt: skip
    changes: tuple[dict[str, Any], ...] = ({}, {"seed": 1}, {"epoch": 1}, {"video_id": "b"})
    drawn = [plan_views(RECIPE, **{**base, **change}) for change in changes]
    crops = [plan.crop for plans in drawn for plan in plans]
    assert len(set(crops)) == len(crops) == 20


@given(visit=visits())
def test_plan_views_augmentation_stays_in_range(visit: dict[str, Any]) -> None:
    for plan in plan_views(RECIPE, **visit):
        values = plan.augmentation
        assert values.dtype == np.float32
        assert values[FLIP] in (0, 1) and values[GREY] in (0, 1)
        for column, strength in ((BRIGHTNESS, 0.4), (CONTRAST, 0.4), (SATURATION, 0.2)):
            assert 1 - strength - 1e-6 <= values[column] <= 1 + strength + 1e-6


def test_plan_views_chances_are_as_asked() -> None:
    plans = [
        plan
        for number in range(400)
        for plan in plan_views(
            RECIPE, num_frames=100, fps=10.0, height=64, width=64,
            seed=0, epoch=0, video_id=str(number),
        )
    ]  # fmt: skip
    values = np.stack([plan.augmentation for plan in plans])
    assert abs(values[:, FLIP].mean() - 0.5) < 0.05
    assert abs((values[:, BRIGHTNESS] != 1).mean() - 0.8) < 0.05
    assert abs(values[:, GREY].mean() - 0.2) < 0.05


@given(height=st.integers(1, 500), width=st.integers(1, 500), num_frames=st.integers(1, 1000))
def test_plan_center_view_is_the_largest_centred_square(
    height: int, width: int, num_frames: int
) -> None:
    plan = plan_center_view(
        num_frames=num_frames, frames_per_view=4, size=32, height=height, width=width
    )
    side = min(height, width)
    assert (plan.crop.height, plan.crop.width) == (side, side)
    assert plan.crop.top == (height - side) // 2 and plan.crop.left == (width - side) // 2
    assert plan.frame_indices[0] == 0
    assert plan.frame_indices[-1] == num_frames - 1
    assert plan.augmentation.tolist() == [0, 1, 1, 1, 0]


def test_resize_view_of_pictures_of_its_size_is_these() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    out = np.zeros_like(pictures)
    assert np.array_equal(resize_view(pictures, size=16), pictures)
    assert resize_view(pictures, size=16, out=out) is out and np.array_equal(out, pictures)


def test_resize_view_keeps_a_uniform_picture_uniform() -> None:
    pictures = np.broadcast_to(np.array([10, 200, 90], np.uint8), (1, 30, 50, 3)).copy()
    expected = np.broadcast_to([10, 200, 90], (1, 24, 24, 3))
    assert np.array_equal(resize_view(pictures, size=24), expected)


@given(visit=visits())
def test_compute_needed_frames_are_the_distinct_frames_ascending(visit: dict[str, Any]) -> None:
    plans = plan_views(RECIPE, **visit)
    expected = sorted({index for plan in plans for index in plan.frame_indices.tolist()})
    assert compute_needed_frames(plans).tolist() == expected
