"""A file that kills its decoder: what it costs per visit, and when it is left alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest
from lssl_ray.video.offenders import Offence, count_offences
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, DecodedClip, FailedClip
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

RECIPE = ViewRecipe(
    global_views=ViewKind(count=1, num_frames=2, size=16, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=0, num_frames=1, size=8, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.0,
    jitter_probability=0.0,
    jitter_strength=(0.0, 0.0, 0.0),
    grey_probability=0.0,
)
DEADLINE = 0.5


@pytest.fixture(autouse=True)
def _child_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def behaviours(videos: tiny.VideoSet) -> Manifest:
    """Videos whose paths tell the decode child what to do: hang, segfault, raise, work."""
    records = load_manifest(str(videos.manifest)).records()
    names = ("hang", "segfault", "raise", "good")
    return build_manifest(
        [replace(record, path=name) for record, name in zip(records, names, strict=False)], root="/"
    )


@pytest.fixture
def decoder(behaviours: Manifest) -> Iterator[ClipDecoder]:
    with open_decoder(behaviours) as decoder:
        yield decoder


def open_decoder(manifest: Manifest, offences: Mapping[str, Offence] | None = None) -> ClipDecoder:
    settings = DecodeSettings(
        deadline_seconds=DEADLINE,
        recycle_after=500,
        short_side=512,
        child_module="misbehaving_child",
    )
    return ClipDecoder(manifest, recipe=RECIPE, settings=settings, seed=0, offences=offences)


def visit(decoder: ClipDecoder, video: int, times: int) -> list[ClipFailure | None]:
    """What became of some visits of a video, in epochs of four videos."""
    outcomes: list[ClipFailure | None] = []
    for epoch in range(times):
        clip = decoder.decode(ClipVisit(position=4 * epoch + video, epoch=epoch, video=video))
        assert isinstance(clip, FailedClip | DecodedClip)
        outcomes.append(clip.failure if isinstance(clip, FailedClip) else None)
    return outcomes


@pytest.mark.parametrize(
    ("video", "reason"), [(0, "deadline_exceeded"), (1, "decoder_crashed")], ids=["hang", "crash"]
)
def test_decode_video_that_kills_is_tried_twice_then_left_alone(
    decoder: ClipDecoder, video: int, reason: str
) -> None:
    failures = visit(decoder, video, times=5)
    assert all(failure is not None and failure.reason == reason for failure in failures)
    # Every visit has its row, tried or not: the count of quarantined clips stays exact.
    assert [f.position for f in failures if f] == [4 * epoch + video for epoch in range(5)]
    assert [f.tried for f in failures if f] == [True, True, False, False, False]
    assert [f.seconds == 0.0 for f in failures if f] == [False, False, True, True, True]


def test_decode_hanging_video_costs_one_deadline_per_tried_visit(decoder: ClipDecoder) -> None:
    (first,) = visit(decoder, 3, times=1)
    assert first is None  # the child is up
    for failure in visit(decoder, 0, times=2):
        assert failure is not None and DEADLINE <= failure.seconds < 2 * DEADLINE
    assert visit(decoder, 3, times=1) == [None]


def test_decode_video_that_fails_without_killing_is_tried_at_every_visit(
    decoder: ClipDecoder,
) -> None:
    failures = visit(decoder, 2, times=4)
    assert [failure.tried for failure in failures if failure] == [True] * 4


def test_decode_offender_known_from_before_is_left_alone_at_once(behaviours: Manifest) -> None:
    name = behaviours.row(0).video_id
    with open_decoder(behaviours, {name: Offence(count=2, reason="out_of_memory")}) as decoder:
        (failure,) = visit(decoder, 0, times=1)
    assert failure is not None and (failure.tried, failure.reason) == (False, "out_of_memory")


def test_decode_success_clears_a_first_offence(behaviours: Manifest) -> None:
    name = behaviours.row(3).video_id
    with open_decoder(behaviours, {name: Offence(count=1, reason="decoder_crashed")}) as decoder:
        assert visit(decoder, 3, times=3) == [None] * 3


def test_count_offences_counts_tried_killing_clips_of_training_only() -> None:
    def row(name: str, reason: str, stage: str = "train", tried: bool = True) -> dict[str, object]:
        return {"video_id": name, "reason": reason, "stage": stage, "tried": tried}

    rows = [
        row("a", "deadline_exceeded"),
        row("a", "decoder_crashed"),
        row("a", "decoder_crashed", tried=False),
        row("b", "missing"),
        row("c", "out_of_memory", stage="evaluate"),
        row("d", "out_of_memory"),
    ]
    assert count_offences(rows) == {
        "a": Offence(count=2, reason="decoder_crashed"),
        "d": Offence(count=1, reason="out_of_memory"),
    }
