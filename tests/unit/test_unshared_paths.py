"""What a node says of the paths it is asked for, and what a job asks it for; nodes are in
integration/test_shared_paths.py."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lssl_ray.cluster import shared_paths
from lssl_ray.cluster.required_paths import (
    describe_unshared,
    list_clip_files,
    list_first_videos,
    require_lasting_places,
)
from lssl_ray.cluster.shared_paths import ExpectedPath, UnsharedPath, examine_paths
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError
from lssl_ray.video.manifest import build_manifest, load_manifest


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_paths, "VISIBLE_SECONDS", 0.0)


def test_examine_paths_finds_nothing_wrong_with_what_is_as_expected(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    (tmp_path / "weights.bin").write_bytes(b"12345")
    expected = [
        ExpectedPath(str(tmp_path), "marker", None),
        ExpectedPath(str(tmp_path / "weights.bin"), None, 5),
        ExpectedPath(str(tmp_path / "weights.bin"), None, None),
    ]
    assert examine_paths(expected) == [None, None, None]


def test_examine_paths_tells_another_folder_from_none(tmp_path: Path) -> None:
    expected = [
        ExpectedPath(str(tmp_path), "marker", None),
        ExpectedPath(str(tmp_path / "nowhere"), "marker", None),
    ]
    assert examine_paths(expected) == ["is another folder", "is not there"]


def test_examine_paths_tells_another_file_from_none(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"1234")
    expected = [
        ExpectedPath(str(tmp_path / "weights.bin"), None, 5),
        ExpectedPath(str(tmp_path / "gone.bin"), None, 5),
    ]
    problems = examine_paths(expected)
    assert "4 bytes, not 5" in (problems[0] or "")
    assert problems[1] == "is not there"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_examine_paths_finds_a_folder_that_can_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    tmp_path.chmod(0o500)
    try:
        problems = examine_paths([ExpectedPath(str(tmp_path), "marker", None)])
    finally:
        tmp_path.chmod(0o700)
    assert problems == ["can't be written"]


def test_examine_paths_waits_for_what_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = []

    def appear(seconds: float) -> None:
        naps.append(seconds)
        (tmp_path / "late").touch()

    monkeypatch.setattr(shared_paths, "VISIBLE_SECONDS", 60.0)
    monkeypatch.setattr(shared_paths.time, "sleep", appear)
    assert examine_paths([ExpectedPath(str(tmp_path), "late", None)]) == [None]
    assert len(naps) == 1


def test_list_clip_files_names_the_files_of_a_local_folder(
    build_config: Callable[..., RunConfig], tiny_clip_dir: Path
) -> None:
    paths = list_clip_files(build_config()).values()
    names = {path.name for path in paths}
    assert names == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert {path.parent for path in paths} == {tiny_clip_dir}


def test_list_clip_files_names_a_weights_file_and_no_tag(
    build_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "clip.bin").touch()
    named = build_config("clip.model=ViT-B-16", f"clip.weights={tmp_path / 'clip.bin'}")
    assert list_clip_files(named) == {"clip.weights": tmp_path / "clip.bin"}
    assert list_clip_files(build_config("clip.model=ViT-B-16", "clip.weights=openai")) == {}


def test_list_first_videos_names_files_and_no_uris(videos: tiny.VideoSet) -> None:
    records = load_manifest(str(videos.manifest)).records()
    records[1] = replace(records[1], path="s3://bucket/a.mp4")
    listed = list_first_videos(build_manifest(records, root=str(videos.folder)))
    assert list(listed.values()) == [Path(records[0].path), Path(records[2].path)]
    assert list_first_videos(build_manifest([], root="")) == {}


def test_describe_unshared_says_which_path_on_which_node_and_no_endless_list() -> None:
    one = UnsharedPath("run.folder", Path("/here/only"), "abcdef" * 9, "10.1.2.3", "is not there")
    text = describe_unshared([one] * 20)
    assert "run.folder: /here/only is not there on node 10.1.2.3 (abcdefabcdef)" in text
    assert "14 more" in text and len(text.splitlines()) < 12
    assert "run.storage" in text and "cluster.train_labels" in text


# As Ray 2.60 names a job's working directory; integration/test_ray_jobs.py looks at a real one.
COPY = "/tmp/ray/session_2026-11-21/runtime_resources/working_dir_files/_ray_pkg_0123"


def test_run_folder_in_a_jobs_own_copy_is_refused(build_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ClusterError, match=r"run\.folder.*--set run\.folder=/.*run\.storage"):
        require_lasting_places(build_config(f"run.folder={COPY}/runs"))


def test_tracking_file_in_a_jobs_own_copy_is_told_once_and_taken(
    build_config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    require_lasting_places(build_config(f"tracking.uri=sqlite:///{COPY}/mlflow.db"))
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{COPY}/mlflow.db" in told.getMessage()


@pytest.mark.parametrize(
    "override",
    [
        "run.folder=/shared/runs",
        "run.folder=/shared/working_dir_files/runs",
        "tracking.uri=null",
        "tracking.uri=sqlite:////shared/mlflow.db",
        "tracking.uri=http://127.0.0.1:5000",
    ],
)
def test_places_that_stay_are_taken_without_a_word(
    build_config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture, override: str
) -> None:
    require_lasting_places(build_config(override))
    assert not caplog.records


def test_working_copy_of_a_stored_run_may_go_with_a_job(
    build_config: Callable[..., RunConfig],
) -> None:
    stored = ("run.storage=s3://bucket/runs", "tracking.uri=null")
    require_lasting_places(build_config(f"run.folder={COPY}/runs", *stored))
