"""The videos of a run: the same ones in the same order whenever it goes on."""

import json
from pathlib import Path

import pytest
from video_records import build_bad_record, build_record

from lssl_ray.errors import CheckpointError
from lssl_ray.tracking.journal import read_rows
from lssl_ray.training_videos import ORDER_FILE, select_training_videos
from lssl_ray.video import order
from lssl_ray.video.manifest import Manifest, build_manifest

IDS = ("a.mp4", "b.mp4", "c.mp4", "d.mp4")


def build(ids: tuple[str, ...] = IDS, *, bad: tuple[str, ...] = (), **changes: object) -> Manifest:
    records = [build_record(video_id, **changes) for video_id in ids]
    records += [build_bad_record(video_id) for video_id in bad]
    return build_manifest(records, root="/videos")


def select(manifest: Manifest, run_folder: Path, *, num_held_back: int = 0) -> list[str]:
    videos = select_training_videos(
        manifest, source="m.parquet", num_held_back=num_held_back, run_folder=run_folder
    )
    return [record.video_id for record in videos.records()]


def train(run_folder: Path) -> None:
    """What a session leaves that did a step."""
    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n')


def test_training_videos_of_a_run_that_goes_on_are_those_it_began_with(tmp_path: Path) -> None:
    assert select(build(bad=("x.mp4",)), tmp_path) == list(IDS)
    train(tmp_path)
    # Labels, lengths, places and bad videos decide no position.
    again = build(bad=("x.mp4", "y.mp4"), label="other", num_frames=3, path="/elsewhere.mp4")
    assert select(again, tmp_path) == list(IDS)
    rows = [row["video_id"] for row in read_rows(tmp_path / "quarantine.jsonl")]
    assert rows == ["x.mp4", "y.mp4"]


@pytest.mark.parametrize(
    "changed",
    [IDS[:3], (*IDS, "e.mp4"), ("a.mp4", "b.mp4", "c.mp4", "z.mp4"), IDS[::-1]],
    ids=["fewer", "more", "renamed", "in another order"],
)
def test_training_videos_changed_since_the_run_began_are_refused(
    tmp_path: Path, changed: tuple[str, ...]
) -> None:
    select(build(), tmp_path)
    train(tmp_path)
    before = (tmp_path / ORDER_FILE).read_bytes()
    with pytest.raises(CheckpointError) as caught:
        select(build(changed, bad=("x.mp4",)), tmp_path)
    for words in ("m.parquet", "4 then", "--exclude", "--run-name"):
        assert words in str(caught.value)
    assert (tmp_path / ORDER_FILE).read_bytes() == before
    assert list(read_rows(tmp_path / "quarantine.jsonl")) == []
    assert select(build(), tmp_path) == list(IDS)  # the way out


def test_training_videos_held_back_differently_are_refused(tmp_path: Path) -> None:
    assert len(select(build(), tmp_path, num_held_back=1)) == 3
    train(tmp_path)
    with pytest.raises(CheckpointError):
        select(build(), tmp_path)


def test_training_videos_of_a_run_without_a_step_may_still_change(tmp_path: Path) -> None:
    select(build(), tmp_path)
    assert select(build(IDS[:2]), tmp_path) == list(IDS[:2])
    train(tmp_path)
    assert select(build(IDS[:2]), tmp_path) == list(IDS[:2])


def test_run_of_a_release_that_filed_no_order_goes_on_where_the_order_is_the_same(
    tmp_path: Path,
) -> None:
    train(tmp_path)
    assert select(build(), tmp_path) == list(IDS)
    with pytest.raises(CheckpointError):  # filed by now
        select(build(IDS[:2]), tmp_path)


def test_run_of_a_release_that_ordered_so_many_videos_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "LARGEST_SHUFFLE", 3)
    train(tmp_path)
    with pytest.raises(CheckpointError, match="4 videos in another way"):
        select(build(), tmp_path)
    assert select(build(IDS[:3]), tmp_path) == list(IDS[:3])


def test_run_filed_by_another_rule_is_refused(tmp_path: Path) -> None:
    select(build(), tmp_path)
    train(tmp_path)
    filed = json.loads((tmp_path / ORDER_FILE).read_text())
    (tmp_path / ORDER_FILE).write_text(json.dumps({**filed, "rule": 99}))
    with pytest.raises(CheckpointError, match="in another way"):
        select(build(), tmp_path)


def test_run_with_a_checkpoint_and_no_rows_has_trained(tmp_path: Path) -> None:
    select(build(), tmp_path)
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    with pytest.raises(CheckpointError):
        select(build(IDS[:3]), tmp_path)


def test_record_of_the_order_that_is_cut_is_refused_by_name(tmp_path: Path) -> None:
    select(build(), tmp_path)
    train(tmp_path)
    (tmp_path / ORDER_FILE).write_text('{"rule": ')
    with pytest.raises(CheckpointError, match=r"clip_order\.json"):
        select(build(), tmp_path)
