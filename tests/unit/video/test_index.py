"""Finding, probing and labelling files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import find_videos
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import Manifest

Write = Callable[..., Path]


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture
def small_set(write_clip: Write, tmp_path: Path) -> Path:
    """Two good videos in class folders, a bad one, something else."""
    root = tmp_path / "videos"
    write_clip(root / "run" / "a.mp4", num_frames=4)
    write_clip(root / "jump" / "b.mp4", num_frames=6)
    (root / "jump" / "bad.mp4").write_text("not a video")
    (root / "readme.txt").write_text("hello")
    return root


def _ids(*paths: Path) -> list[str]:
    return [video.video_id for video in find_videos([str(path) for path in paths]).videos]


def test_find_videos_walks_sorted_and_counts_the_rest(tmp_path: Path) -> None:
    _touch(*(tmp_path / name for name in ("b.MP4", "a/z.avi", "a/y.txt", "a/x.TXT", "c", "B.gif")))
    _touch(tmp_path / "._b.mp4", tmp_path / ".cache" / "d.mp4")
    found = find_videos([str(tmp_path)])
    assert [video.video_id for video in found.videos] == ["B.gif", "a/z.avi", "b.MP4"]
    assert found.ignored_by_extension == {"": 1, ".txt": 2, "(hidden)": 2}
    assert found.videos[1].path == str(tmp_path / "a" / "z.avi")
    assert found.videos[1].size_bytes == 1


def test_find_videos_file_is_taken_as_given(tmp_path: Path) -> None:
    _touch(tmp_path / "clip.data", tmp_path / "other.mp4")
    assert _ids(tmp_path / "clip.data") == ["clip.data"]


def test_find_videos_several_roots_are_told_apart_by_name(tmp_path: Path) -> None:
    _touch(tmp_path / "k400" / "a.mp4", tmp_path / "ucf" / "a.mp4")
    assert _ids(tmp_path / "ucf", tmp_path / "k400") == ["k400/a.mp4", "ucf/a.mp4"]


def test_find_videos_same_id_twice_raises(tmp_path: Path) -> None:
    _touch(tmp_path / "x" / "train" / "a.mp4", tmp_path / "y" / "train" / "a.mp4")
    with pytest.raises(DataError, match=r"both be video_id 'train/a\.mp4'"):
        _ids(tmp_path / "x" / "train", tmp_path / "y" / "train")


def test_find_videos_links_and_loops_yield_each_file_once(tmp_path: Path) -> None:
    _touch(tmp_path / "a" / "v.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "w.mp4").symlink_to(tmp_path / "a" / "v.mp4")
    found = find_videos([str(tmp_path)])
    assert [video.video_id for video in found.videos] == ["a/v.mp4"]
    assert found.num_duplicates == 1


def test_find_videos_overlapping_roots_yield_each_file_once(tmp_path: Path) -> None:
    _touch(tmp_path / "a" / "v.mp4", tmp_path / "w.mp4")
    found = find_videos([str(tmp_path / "a"), str(tmp_path)])
    assert [video.video_id for video in found.videos] == ["a/v.mp4", f"{tmp_path.name}/w.mp4"]
    assert found.num_duplicates == 1


def test_find_videos_broken_link_and_folder_named_as_video_are_safe(tmp_path: Path) -> None:
    _touch(tmp_path / "folder.mp4" / "v.mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere")
    assert _ids(tmp_path) == ["broken.mp4", "folder.mp4/v.mp4"]


def test_find_videos_nothing_found_names_paths_and_extensions(tmp_path: Path) -> None:
    _touch(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"\.webm.*'\.txt': 1") as caught:
        find_videos([str(tmp_path)])
    assert str(tmp_path) in str(caught.value)


def test_find_videos_absent_path_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_videos([str(tmp_path / "no")])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_index_videos_gives_a_row_for_every_file(small_set: Path, num_workers: int) -> None:
    progress: list[tuple[int, int, int]] = []
    manifest, report = index_videos(
        [str(small_set)],
        labels="folders",
        split="train",
        num_workers=num_workers,
        on_progress=lambda *counts: progress.append(counts),
    )
    rows = manifest.records()
    assert [row.video_id for row in rows] == ["jump/b.mp4", "jump/bad.mp4", "run/a.mp4"]
    assert [row.label for row in rows] == ["jump", "jump", "run"]
    assert [row.num_frames for row in rows] == [6, 0, 4]
    assert (rows[0].fps, rows[0].duration_seconds, rows[0].split) == (10.0, 0.6, "train")
    assert (rows[1].status, rows[1].reason) == ("bad", "not_a_video")
    assert rows[1].size_bytes == 11
    assert progress == [(1, 3, 0), (2, 3, 1), (3, 3, 1)]
    assert (report.num_files, report.num_ok, report.num_bad) == (3, 2, 1)
    assert report.bad_by_reason == {"not_a_video": 1}
    assert (report.num_by_reader, report.num_shortened) == ({"decord": 2}, 0)
    assert report.ignored_by_extension == {".txt": 1}
    assert (report.num_reused, report.num_duplicates, report.num_unlabelled) == (0, 0, 0)
    assert manifest.root == str(small_set)


def test_index_videos_half_downloaded_video_is_usable_and_counted(
    small_set: Path, write_clip: Write
) -> None:
    path = write_clip(small_set / "half.mp4", movflags="faststart", width=320, height=240)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    manifest, report = index_videos([str(small_set)])
    row = manifest.row(0)
    assert (row.video_id, row.status, row.reader) == ("half.mp4", "ok", "pyav")
    assert 1 < row.num_frames < 19
    assert row.detail is not None and f"{row.num_frames} of 20 frames" in row.detail
    assert (report.num_by_reader, report.num_shortened) == ({"decord": 2, "pyav": 1}, 1)


def test_index_videos_moved_folder_keeps_ids_and_digest(small_set: Path) -> None:
    before, _ = index_videos([str(small_set)], labels="folders")
    moved = small_set.rename(small_set.parent / "elsewhere")
    after, _ = index_videos([str(moved)], labels="folders")
    assert after.digest() == before.digest()
    assert after.row(0).path == str(moved / "jump" / "b.mp4")


def test_index_videos_with_previous_probes_only_what_changed(
    small_set: Path, write_clip: Write
) -> None:
    first, _ = index_videos([str(small_set)])
    write_clip(small_set / "run" / "a.mp4", num_frames=9)
    write_clip(small_set / "run" / "new.mp4", num_frames=2)
    second, report = index_videos([str(small_set)], labels="folders", previous=first)
    assert report.num_reused == 2
    frames = {row.video_id: row.num_frames for row in second.records()}
    assert frames == {"jump/b.mp4": 6, "jump/bad.mp4": 0, "run/a.mp4": 9, "run/new.mp4": 2}
    assert second.labels() == ["jump", "run"]


def test_index_videos_with_previous_gives_timeouts_another_chance(small_set: Path) -> None:
    timed_out, _ = index_videos([str(small_set)], deadline_seconds=1.0e-6)
    assert {row.reason for row in timed_out.records()} == {"deadline_exceeded"}
    _, report = index_videos([str(small_set)], previous=timed_out)
    assert (report.num_reused, report.num_ok) == (0, 2)


def test_index_videos_name_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb"):
        pass
    manifest, _ = index_videos([str(tmp_path)])
    assert manifest.row(0).video_id == "caf\\xe9.mp4"
    assert manifest.row(0).reason == "unreadable"


def _index_with_csv(small_set: Path, text: str, folder: Path) -> tuple[Manifest, int, int]:
    csv_path = folder / "labels.csv"
    csv_path.write_bytes(text.encode())
    manifest, report = index_videos([str(small_set)], labels=str(csv_path), split="train")
    return manifest, report.num_unlabelled, report.unmatched_label_rows


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nrun/a.mp4,running\njump/b.mp4,\ngone.mp4,x\n",
        "\ufeffPATH , Label\r\nrun/a.mp4,running\r\n\r\ngone.mp4,x\r\n",
        "run/a.mp4,running\ngone.mp4,x\n",
        "note,label,path\n1,running,./run/a.mp4\n2,x,gone.mp4\n",
        'path,label\n"{root}/run/a.mp4",running\n/gone.mp4,x\n',
    ],
)
def test_index_videos_label_csv_in_any_allowed_form_labels_the_same(
    small_set: Path, tmp_path: Path, text: str
) -> None:
    manifest, num_unlabelled, num_unmatched = _index_with_csv(
        small_set, text.replace("{root}", str(small_set)), tmp_path
    )
    assert [row.label for row in manifest.records()] == [None, None, "running"]
    assert (num_unlabelled, num_unmatched) == (2, 1)


def test_index_videos_label_csv_beside_the_videos_may_carry_splits(small_set: Path) -> None:
    text = "path,label,split\na.mp4,running,test\n../jump/b.mp4,jumping,\n"
    manifest, _, _ = _index_with_csv(small_set, text, small_set / "run")
    labels = {row.video_id: (row.label, row.split) for row in manifest.records()}
    assert labels["run/a.mp4"] == ("running", "test")
    assert labels["jump/b.mp4"] == ("jumping", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nb.mp4,x\n", "line 2: 'b.mp4' may be"),
        ("run/a.mp4,x\nrun/a.mp4,y\n", "line 2: .* already has another label"),
        ("path,label\nrun/a.mp4\n", "line 2: .* a path and a label"),
    ],
)
def test_index_videos_contradictory_label_csv_raises(
    small_set: Path, write_clip: Write, text: str, message: str
) -> None:
    write_clip(small_set / "b.mp4")
    with pytest.raises(DataError, match=message):
        _index_with_csv(small_set, text, small_set / "jump")


def test_index_videos_labels_that_are_no_file_raise(small_set: Path) -> None:
    with pytest.raises(DataError, match="labels='folder' must be"):
        index_videos([str(small_set)], labels="folder")


def test_index_videos_real_clips_end_in_a_manifest(clips: Path) -> None:
    manifest, report = index_videos([str(clips)], num_workers=2, deadline_seconds=60.0)
    assert report.num_files == report.num_ok + report.num_bad == len(manifest)
    bad = [row.video_id for row in manifest.records() if row.status == "bad"]
    assert all(video_id.startswith("odd/") for video_id in bad)
    assert report.num_ok == sum(report.num_by_reader.values()) >= 120
    readers = {row.video_id: row.reader for row in manifest.records()}
    assert readers["v_CricketShot_g04_c01_rgb.gif"] == readers["odd/drew_sony.mts"] == "pyav"
    assert readers["Tw2yXa6CzWE.mp4"] == "decord"
    assert all(row.reason and row.detail for row in manifest.records() if row.status == "bad")
    usable = manifest.usable().records()
    assert all(row.num_frames >= 1 and 1.0 <= row.fps <= 1000.0 for row in usable)
    # In a subfolder or not: odd files are indexed like any others.
    assert any(row.video_id.startswith("odd/") for row in usable)
