"""Videos behind URIs: found, probed and decoded; a bad server costs its own files only."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from s3_server import serve_bucket
from video_server import VideoServer, serve_folder

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import find_videos
from lssl_ray.video.fetching import open_local
from lssl_ray.video.files import ReaderError
from lssl_ray.video.index import index_videos
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.remote import stat_remote

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[VideoServer]:
    with serve_folder(folder) as server:
        yield server


@pytest.fixture
def clip(folder: Path, write_clip: Write) -> Path:
    path = folder / "run" / "a b.mp4"
    return path if path.exists() else write_clip(path, num_frames=6)


def test_index_videos_of_web_folder_equals_that_of_the_disk(
    folder: Path, server: VideoServer, clip: Path
) -> None:
    (folder / "notes.txt").write_text("x")
    local, _ = index_videos([str(folder)], labels="folders")
    remote, report = index_videos([f"{server.url}/"], labels="folders")
    assert remote.digest() == local.digest()
    row = remote.row(0)
    assert (row.video_id, row.label) == ("run/a b.mp4", "run")
    assert row.path == f"{server.url}/run/a%20b.mp4"
    assert row.size_bytes == clip.stat().st_size
    assert row.mtime_ns // 10**9 == int(clip.stat().st_mtime)
    assert report.ignored_by_extension == {".txt": 1}
    num_fetched = len(server.fetched)
    _, again = index_videos([f"{server.url}/"], previous=remote)
    assert again.num_reused == 1
    assert not any(path.endswith(".mp4") for path in server.fetched[num_fetched:])


def test_decode_process_frames_of_uri_are_those_of_the_file(
    server: VideoServer, clip: Path, process: DecodeProcess
) -> None:
    local = process.frames(str(clip), [0, 5]).copy()
    for uri in (f"{server.url}/run/a%20b.mp4", f"file://{clip}".replace(" ", "%20")):
        np.testing.assert_array_equal(process.frames(uri, [0, 5]), local)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("cut", "fetch_failed"), ("forbidden", "fetch_failed"), ("no", "missing")],
)
def test_decode_process_bad_server_costs_the_clip_only(
    server: VideoServer, clip: Path, process: DecodeProcess, trouble: str, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        process.frames(f"{server.url}/{trouble}/run/a%20b.mp4", [0])
    assert caught.value.reason == reason
    assert len(process.frames(f"{server.url}/run/a%20b.mp4", [0])) == 1


def test_decode_process_no_server_is_a_reason(process: DecodeProcess) -> None:
    with pytest.raises(DecodeError) as caught:
        process.probe("http://127.0.0.1:9/a.mp4")
    assert caught.value.reason == "fetch_failed"


def test_decode_process_stalled_server_costs_the_deadline(server: VideoServer, clip: Path) -> None:
    with DecodeProcess(deadline_seconds=3.0) as process:
        process.probe(f"{server.url}/run/a%20b.mp4")  # the web client's import is paid for
        started = time.monotonic()
        with pytest.raises(DecodeError) as caught:
            process.probe(f"{server.url}/stall/run/a%20b.mp4")
        assert caught.value.reason == "deadline_exceeded", caught.value
        assert 2.9 < time.monotonic() - started < 20.0
        assert process.probe(f"{server.url}/run/a%20b.mp4").num_frames == 6


def _count_memory_files() -> int:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the web client closes its own meanwhile
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum("lssl_ray_remote" in target for target in targets)


def test_open_local_refuses_what_is_too_large_and_leaves_nothing_open(
    server: VideoServer, clip: Path
) -> None:
    uri, size = f"{server.url}/run/a%20b.mp4", clip.stat().st_size
    with open_local(uri, max_bytes=size) as path:
        assert Path(path).read_bytes() == clip.read_bytes()
    before = _count_memory_files()
    with pytest.raises(ReaderError) as caught, open_local(uri, max_bytes=size - 1):
        pass
    assert caught.value.reason == "too_large"
    assert _count_memory_files() == before == 0


def test_open_local_leaves_local_paths_alone(tmp_path: Path) -> None:
    with open_local(str(tmp_path / "x.mp4")) as path:
        assert path == str(tmp_path / "x.mp4")


def test_find_videos_list_on_the_web_marks_missing_rows(
    folder: Path, server: VideoServer, clip: Path
) -> None:
    (folder / "list.csv").write_text("run/a%20b.mp4,running\nrun/gone.mp4,running\n")
    found = find_videos([f"{server.url}/list.csv"])
    rows = {video.video_id: (video.label, video.missing is None) for video in found.videos}
    assert rows == {"run/a b.mp4": ("running", True), "run/gone.mp4": ("running", False)}
    assert found.videos[0].size_bytes == clip.stat().st_size


def test_index_videos_server_that_is_down_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://127.0.0.1:9/a.mp4\n")
    manifest, _ = index_videos([str(tmp_path / "list.txt")])
    assert (manifest.row(0).video_id, manifest.row(0).reason) == (
        "127.0.0.1:9/a.mp4",
        "fetch_failed",
    )
    _, again = index_videos([str(tmp_path / "list.txt")], previous=manifest)
    assert again.num_reused == 0


def test_find_videos_file_uri_is_its_path(folder: Path, clip: Path) -> None:
    quoted = str(clip).replace(" ", "%20")
    assert find_videos([f"file://{quoted}"]).videos == find_videos([str(clip)]).videos
    assert find_videos([f"file://{folder}/run"]).roots == (str(folder / "run"),)
    with pytest.raises(DataError, match="this machine"):
        find_videos(["file://elsewhere/a.mp4"])


def test_find_videos_uri_that_cant_be_asked_is_refused(server: VideoServer) -> None:
    for uri in ("http://127.0.0.1:9/videos/", f"{server.url}/gone.mp4", "nonsense://x/y.mp4"):
        with pytest.raises(DataError, match=uri):
            find_videos([uri])


def test_stat_remote_keys_in_the_address_are_refused_unseen() -> None:
    with pytest.raises(DataError, match="environment") as caught:
        stat_remote("http://me:SECRET@127.0.0.1:9/a.mp4")
    assert "SECRET" not in str(caught.value)


def use_bucket(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let `s3://` mean this store."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


def test_index_videos_object_without_access_is_a_row_of_its_own(
    write_clip: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "set" / "a.mp4", num_frames=4)
    write_clip(tmp_path / "set" / "secret.mp4", num_frames=4)
    (tmp_path / "set" / "list.csv").write_text("a.mp4,running\nsecret.mp4,running\n")
    with serve_bucket(tmp_path, "guarded", denied={"set/secret.mp4"}) as endpoint:
        use_bucket(monkeypatch, endpoint)
        manifest, report = index_videos(["s3://guarded/set/list.csv"])
    assert (report.num_ok, report.bad_by_reason) == (1, {"fetch_failed": 1})
    assert [video.video_id for video in manifest.records() if video.status == "ok"] == ["a.mp4"]


def test_index_videos_of_bucket_equals_that_of_the_disk(
    write_clip: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    write_clip(folder / "run" / "a b.mp4", num_frames=4)
    write_clip(folder / "c.mp4", num_frames=3)
    (folder / "bad.mp4").write_text("no video")
    (folder / "list.csv").write_text("run/a b.mp4,running\ngone.mp4,running\n")
    with serve_bucket(tmp_path, "bucket") as endpoint:
        use_bucket(monkeypatch, endpoint)
        remote, report = index_videos(["s3://bucket/set"], labels="folders")
        listed = find_videos(["s3://bucket/set/list.csv"])
        matched = find_videos(["s3://bucket/set/*/*.mp4"])
        in_folders = find_videos(["s3://bucket/set/r*"])
        local, _ = index_videos([str(folder)], labels="folders")
        with pytest.raises(DataError, match="AWS_REGION"):
            find_videos(["s3://bucket/set?region=us-east-1"])
    assert remote.records()[2].path == "s3://bucket/set/run/a b.mp4"
    kept = ("video_id", "status", "reason", "num_frames", "size_bytes", "label")
    for one, other in zip(remote.records(), local.records(), strict=True):
        assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]
        assert one.mtime_ns // 10**9 == other.mtime_ns // 10**9
    assert (report.num_ok, report.bad_by_reason) == (2, {"not_a_video": 1})
    rows = {video.video_id: (video.label, video.missing is None) for video in listed.videos}
    assert rows == {"run/a b.mp4": ("running", True), "gone.mp4": ("running", False)}
    for found in (matched, in_folders):
        assert [video.video_id for video in found.videos] == ["run/a b.mp4"]
