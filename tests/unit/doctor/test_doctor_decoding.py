"""Decoding clips on trial, with the data path's own decoder, on good and on broken videos."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tiny
from video_records import build_record

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.doctor.decoding import Trial, choose_videos, judge_decoding, try_clips
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest


def run_trials(manifest: Manifest, config: RunConfig) -> list[Trial]:
    return try_clips(
        manifest,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        seed=0,
    )


def test_clips_of_good_videos_decode(
    videos: tiny.VideoSet, build_config: Callable[..., RunConfig]
) -> None:
    chosen = choose_videos(load_manifest(str(videos.manifest)))
    trials = run_trials(chosen, build_config())
    assert [trial.path for trial in trials] == [str(path) for path in videos.paths[:3]]
    assert all(trial.failure is None and trial.seconds > 0 for trial in trials)
    finding = judge_decoding(trials, where="one")
    assert (finding.status, "on one" in finding.found) == ("ok", True)


def test_clips_that_fail_are_named_with_their_reason(
    videos: tiny.VideoSet, build_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    first, second, *_ = load_manifest(str(videos.manifest)).records()
    damaged = tmp_path / "damaged.mp4"
    shutil.copy(first.path, damaged)
    tiny.truncate_video(damaged)
    gone = replace(second, path=str(tmp_path / "gone.mp4"))
    bad = [replace(first, path=str(damaged)), gone]
    good = replace(first, video_id="again.mp4")
    trials = run_trials(build_manifest([good, *bad], root="r"), build_config())
    assert [trial.failure is None for trial in trials] == [True, False, False]
    some = judge_decoding(trials, where="one")
    assert some.status == "warning"
    assert "gone.mp4: missing" in some.found
    assert str(damaged) in some.found
    assert first.path not in some.found
    assert judge_decoding(trials[1:], where="one").status == "problem"


def test_videos_on_trial_have_every_reader_of_the_manifest() -> None:
    readers = ["decord"] * 5 + ["pyav"] + ["decord"] * 3
    records = [build_record(f"{n}.mp4", reader=reader) for n, reader in enumerate(readers)]
    chosen = choose_videos(build_manifest(records, root="r")).records()
    assert [record.video_id for record in chosen] == ["0.mp4", "5.mp4", "1.mp4"]
    assert len(choose_videos(build_manifest(records[:1], root="r"))) == 1
