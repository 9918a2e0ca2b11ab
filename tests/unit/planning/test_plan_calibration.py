"""What calibration measures and how it goes from small batches to large ones."""

from dataclasses import replace

import pytest
import tiny
import torch

from lssl_ray.errors import DataError
from lssl_ray.planning.calibration import (
    StepCalibration,
    choose_sizes,
    extrapolate,
    measure_decoding,
    measure_steps,
)
from lssl_ray.planning.figures import Figure, summarise_mean
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

VIEW = ViewKind(count=1, num_frames=2, size=16, area=(0.5, 1.0), window_share=1.0)
RECIPE = ViewRecipe(
    global_views=VIEW,
    local_views=VIEW,
    window_seconds=1.0,
    flip_probability=0.0,
    jitter_probability=0.0,
    jitter_strength=(0.0, 0.0, 0.0),
    grey_probability=0.0,
)
SETTINGS = DecodeSettings(deadline_seconds=60.0, recycle_after=100, short_side=64)
CPU = torch.device("cpu")


class Clock:
    """Time that passes when told so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def list_visits(count: int) -> list[ClipVisit]:
    return [ClipVisit(position=i, epoch=0, video=i) for i in range(count)]


def test_mean_of_measurements_has_two_standard_errors() -> None:
    figure = summarise_mean([1.0, 2.0, 3.0], "")
    assert figure.value == 2.0
    assert figure.high - figure.value == pytest.approx(2 / 3**0.5)
    assert figure.low == pytest.approx(2 - 2 / 3**0.5)


def test_mean_of_two_far_apart_reaches_down_to_the_least_and_not_to_zero() -> None:
    figure = summarise_mean([0.01, 1.99], "")  # two errors are 1.98, more than the mean of 1
    assert (figure.low, figure.value) == (0.01, 1.0)


def test_figure_out_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="2"):
        Figure(2.0, 0.0, 1.0, "assumed", "")


def test_decoding_without_time_still_measures_three_clips(videos: tiny.VideoSet) -> None:
    manifest = load_manifest(str(videos.manifest))
    with ClipDecoder(manifest, recipe=RECIPE, settings=SETTINGS, seed=0) as decoder:
        found = measure_decoding(decoder, list_visits(8), budget_seconds=0.0)
    assert len(found.seconds) == 3  # of four: the first one started the child
    assert found.num_failed == 0
    assert found.child_mib is not None
    assert 5 < found.child_mib < 2000
    assert [clip.visit.position for clip in found.clips] == [0, 1, 2, 3]
    assert found.summarise().source == "measured"


def test_decoding_counts_failed_clips_and_their_time(videos: tiny.VideoSet) -> None:
    records = load_manifest(str(videos.manifest)).records()
    records[2] = replace(records[2], path="/nowhere.mp4")
    manifest = build_manifest(records, root="/")
    with ClipDecoder(manifest, recipe=RECIPE, settings=SETTINGS, seed=0) as decoder:
        found = measure_decoding(decoder, list_visits(8), budget_seconds=600.0)
    assert (len(found.seconds), found.num_failed) == (7, 1)  # all visits there were
    assert "1 failed" in found.summarise().note


def test_decoding_nothing_is_refused_with_the_reason(videos: tiny.VideoSet) -> None:
    records = [
        replace(record, path="/nowhere.mp4")
        for record in load_manifest(str(videos.manifest)).records()
    ]
    manifest: Manifest = build_manifest(records, root="/")
    with (
        ClipDecoder(manifest, recipe=RECIPE, settings=SETTINGS, seed=0) as decoder,
        pytest.raises(DataError, match="missing"),
    ):
        measure_decoding(decoder, list_visits(8), budget_seconds=0.0)


def test_steps_are_timed_at_the_wanted_size_when_time_allows() -> None:
    clock = Clock()
    taken: list[int] = []

    def run_step(size: int) -> None:
        taken.append(size)
        clock.now += 0.1 + 0.2 * size

    found = measure_steps(run_step, num_clips=8, device=CPU, budget_seconds=600.0, clock=clock)
    assert set(found.seconds) == {1, 4, 8}
    figure = found.predict(8)
    assert (figure.value, figure.source) == (pytest.approx(1.7), "measured")
    assert clock.now < 700  # the budget holds, but for the last step


def test_steps_too_long_for_the_time_are_extrapolated() -> None:
    clock = Clock()

    def run_step(size: int) -> None:
        clock.now += 1.0 + 3.0 * size

    found = measure_steps(run_step, num_clips=64, device=CPU, budget_seconds=60.0, clock=clock)
    assert 1 in found.seconds
    assert 64 not in found.seconds
    figure = found.predict(64)
    assert (figure.value, figure.source) == (pytest.approx(1.0 + 3.0 * 64), "computed")
    assert clock.now < 120


@pytest.mark.parametrize(
    ("one", "wanted", "budget", "sizes"),
    [
        (1.0, 8, 36.0, (4, 8)),  # 3 steps x (8 + 4) s
        (1.0, 8, 35.9, (2, 4)),
        (1.0, 2, 9.0, (2,)),  # half of two is one, which is timed already
        (1.0, 8, 0.0, ()),
        (1.0, 1, 100.0, ()),
    ],
)
def test_sizes_fit_into_the_time(
    one: float, wanted: int, budget: float, sizes: tuple[int, ...]
) -> None:
    assert choose_sizes(one, num_clips=wanted, budget_seconds=budget) == sizes


@pytest.mark.parametrize(
    ("medians", "wanted", "seconds"),
    [
        ({1: 0.3, 4: 0.6, 8: 1.0}, 16, 1.8),  # 0.2 + 0.1 per clip
        ({1: 0.5}, 4, 2.0),
        ({1: 0.1, 2: 0.5}, 4, 1.0),  # steeper than in proportion: not below zero clips' cost
        ({1: 1.0, 2: 0.9}, 4, 1.0),  # noise: more clips never take less
    ],
)
def test_extrapolation_follows_the_line(
    medians: dict[int, float], wanted: int, seconds: float
) -> None:
    assert extrapolate(medians, wanted) == pytest.approx(seconds)


def test_prediction_keeps_the_spread_of_the_largest_batch() -> None:
    calibration = StepCalibration({1: (1.0,), 2: (1.8, 2.0, 2.4)}, "cpu")
    figure = calibration.predict(4)
    assert figure.value == pytest.approx(4.0)
    assert (figure.low, figure.high) == pytest.approx((3.6, 4.8))
