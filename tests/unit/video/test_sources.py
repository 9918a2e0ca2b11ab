"""What may be indexed besides folders: patterns and lists, with their labels and missing files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import FoundVideo, find_videos
from lssl_ray.video.index import index_videos

Write = Callable[..., Path]


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _find(*paths: object, root: Path | None = None) -> dict[str, FoundVideo]:
    found = find_videos([str(path) for path in paths], root=None if root is None else str(root))
    return {video.video_id: video for video in found.videos}


def test_find_videos_pattern_names_as_its_folder_would(tmp_path: Path) -> None:
    _touch(*(tmp_path / "v" / name for name in ("run/a.mp4", "jump/b.mp4", "run/n.txt", "c.mp4")))
    assert set(_find(tmp_path / "v" / "*" / "*")) == {"run/a.mp4", "jump/b.mp4"}
    assert set(_find(tmp_path / "v" / "**" / "*.mp4")) == {"run/a.mp4", "jump/b.mp4", "c.mp4"}
    assert set(_find(tmp_path / "v" / "r*")) == {"run/a.mp4"}
    found = find_videos([str(tmp_path / "v" / "run" / "*")])
    assert (found.ignored_by_extension, found.num_duplicates) == ({".txt": 1}, 0)


def test_find_videos_pattern_without_match_or_file_with_brackets(tmp_path: Path) -> None:
    _touch(tmp_path / "clip [1].mp4")
    assert set(_find(tmp_path / "clip [1].mp4")) == {"clip [1].mp4"}
    with pytest.raises(DataError, match="no file matches"):
        _find(tmp_path / "*.mkv")


def test_find_videos_files_of_one_folder_have_plain_ids(tmp_path: Path) -> None:
    _touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert set(_find(tmp_path / "a.mp4", tmp_path / "b.mp4")) == {"a.mp4", "b.mp4"}


def test_find_videos_list_gives_labels_and_missing_rows(tmp_path: Path) -> None:
    _touch(tmp_path / "data" / "run" / "a.mp4", tmp_path / "elsewhere" / "b.mp4")
    outside = tmp_path / "elsewhere" / "b.mp4"
    lines = ["run/a.mp4,running,train", "run/gone.mp4,running,test", f"{outside},x,test"]
    (tmp_path / "list.csv").write_text("\n".join([*lines, lines[0]]))
    found = find_videos([str(tmp_path / "list.csv")], root=str(tmp_path / "data"))
    by_id = {video.video_id: video for video in found.videos}
    assert set(by_id) == {"run/a.mp4", "run/gone.mp4", str(outside).lstrip("/")}
    assert (by_id["run/a.mp4"].label, by_id["run/a.mp4"].split) == ("running", "train")
    assert by_id["run/a.mp4"].missing is None
    assert by_id["run/gone.mp4"].path == str(tmp_path / "data" / "run" / "gone.mp4")
    assert "list.csv line 2" in str(by_id["run/gone.mp4"].missing)
    assert (found.num_duplicates, len(found.list_formats)) == (1, 1)


def test_find_videos_list_starts_at_its_own_folder(tmp_path: Path) -> None:
    _touch(tmp_path / "run" / "a.mp4")
    (tmp_path / "list.txt").write_text("run/a.mp4\n")
    assert _find(tmp_path / "list.txt")["run/a.mp4"].path == str(tmp_path / "run" / "a.mp4")


def test_find_videos_kinetics_list_finds_either_name_in_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "k400"
    _touch(root / "val" / "air_drumming" / "abc_000026_000036.mkv", root / "x" / "d-f.mp4")
    rows = "air drumming,abc,26,36,val\nabseiling,d-f,0,10,val\nabseiling,gone,5,15,val\n"
    (tmp_path / "val.csv").write_text(f"label,youtube_id,time_start,time_end,split\n{rows}")
    found = _find(tmp_path / "val.csv", root=root)
    labels = {video_id: (video.label, video.missing is None) for video_id, video in found.items()}
    assert labels == {
        "val/air_drumming/abc_000026_000036.mkv": ("air drumming", True),
        "x/d-f.mp4": ("abseiling", True),
        "gone_000005_000015.mp4": ("abseiling", False),
    }


def test_find_videos_hmdb51_lists_leave_unused_out(tmp_path: Path) -> None:
    root = tmp_path / "hmdb51"
    _touch(root / "wave" / "a.avi", root / "wave" / "b.avi", root / "run" / "c.avi")
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 1 \nb.avi 0 \n")
    (tmp_path / "run_test_split1.txt").write_text("c.avi 2 \n")
    found = find_videos([str(tmp_path / "*_test_split1.txt")], root=str(root))
    rows = {video.video_id: (video.label, video.split) for video in found.videos}
    assert rows == {"wave/a.avi": ("wave", "train"), "run/c.avi": ("run", "test")}
    assert found.num_unused_rows == 1


def test_find_videos_list_beside_its_folder_keeps_labels(tmp_path: Path) -> None:
    _touch(tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4")
    (tmp_path / "v" / "list.csv").write_text("a.mp4,running\n")
    found = find_videos([str(tmp_path / "v"), str(tmp_path / "v" / "list.csv")])
    assert {video.video_id: video.label for video in found.videos} == {
        "a.mp4": "running",
        "b.mp4": None,
    }
    assert found.num_duplicates == 1


def test_find_videos_lists_that_disagree_raise(tmp_path: Path) -> None:
    _touch(tmp_path / "a.mp4")
    (tmp_path / "one.csv").write_text("a.mp4,running\n")
    (tmp_path / "two.csv").write_text("a.mp4,walking\n")
    with pytest.raises(DataError, match=r"a\.mp4: .*'running' and .*'walking'"):
        _find(tmp_path / "one.csv", tmp_path / "two.csv")


def test_index_videos_of_list_has_missing_files_as_bad_rows(
    write_clip: Write, tmp_path: Path
) -> None:
    write_clip(tmp_path / "a.mp4", num_frames=4)
    (tmp_path / "list.csv").write_text("a.mp4,running\ngone.mp4,jumping\n")
    manifest, report = index_videos([str(tmp_path / "list.csv")], split="train")
    rows = [(row.video_id, row.status, row.reason, row.label) for row in manifest.records()]
    assert rows == [("a.mp4", "ok", None, "running"), ("gone.mp4", "bad", "missing", "jumping")]
    assert report.bad_by_reason == {"missing": 1}
    assert {row.split for row in manifest.records()} == {"train"}
    write_clip(tmp_path / "gone.mp4", num_frames=3)
    manifest, report = index_videos([str(tmp_path / "list.csv")], previous=manifest)
    assert (report.num_ok, report.num_reused) == (2, 1)


def test_index_videos_labels_may_be_several_published_lists(
    write_clip: Write, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    for name in ("v_Archery_g08_c01", "v_Archery_g01_c01", "v_Diving_g01_c01"):
        write_clip(videos / f"{name}.mp4", num_frames=2)
    train, test = tmp_path / "trainlist01.txt", tmp_path / "testlist01.txt"
    train.write_text("Archery/v_Archery_g08_c01.avi 3\nArchery/v_Archery_g09_c01.avi 3\n")
    test.write_text("Archery/v_Archery_g01_c01.avi\n")
    manifest, report = index_videos([str(videos)], labels=[str(train), str(test)])
    assert [(row.label, row.split) for row in manifest.records()] == [
        ("Archery", "test"),
        ("Archery", "train"),
        (None, None),
    ]
    assert (report.unmatched_label_rows, report.num_unlabelled) == (1, 1)
    assert set(report.list_formats.values()) == {"UCF101 split"}


def test_index_videos_labels_and_sources_share_a_relative_root(
    write_clip: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "data" / "run" / "a.mp4", num_frames=2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "videos.txt").write_text("run/a.mp4\n")
    (tmp_path / "lists" / "labels.csv").write_text("run/a.mp4,running\n")
    monkeypatch.chdir(tmp_path)
    manifest, report = index_videos(["lists/videos.txt"], labels="lists/labels.csv", root="data")
    (row,) = manifest.records()
    assert (row.video_id, row.label) == ("run/a.mp4", "running")
    assert (row.path, report.unmatched_label_rows) == (str(tmp_path / "data/run/a.mp4"), 0)
