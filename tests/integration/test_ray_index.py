"""Indexing on Ray ends in the same rows, in the same order, as indexing on this machine."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tiny

from lssl_ray.errors import ClusterError
from lssl_ray.video.discovery import FoundVideo
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.probe_files import ProbeSettings, build_bad_record

NUM_VIDEOS = 20  # more than a task's worth, less than a full last task


@pytest.mark.cluster
def test_index_on_ray_equals_index_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lssl_ray.cluster.index import probe_on_ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "videos"
    for number in range(NUM_VIDEOS):
        frames = tiny.paint_frames(tiny.ACTIONS[number % 4], num_frames=2 + number)
        tiny.write_video(folder / f"{number:02d}.mp4", frames)
    for number in (3, 15):
        tiny.truncate_video(folder / f"{number:02d}.mp4")
    (folder / "09.mp4").unlink()
    (folder / "09.mp4").symlink_to("nowhere")
    progress: list[tuple[int, int, int]] = []

    def probe(videos: Sequence[FoundVideo]) -> Iterator[tuple[int, VideoRecord]]:
        return probe_on_ray(videos, settings=ProbeSettings(), num_workers=2)

    manifest, report = index_videos(
        [str(folder)],
        labels="folders",
        probe=probe,
        on_progress=lambda *counts: progress.append(counts),
    )
    local, _ = index_videos([str(folder)], labels="folders")
    assert manifest.records() == local.records()
    assert manifest.digest() == local.digest()
    assert (report.num_ok, report.num_bad) == (NUM_VIDEOS - 3, 3)
    assert progress[-1] == (NUM_VIDEOS, NUM_VIDEOS, 3)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_index_on_ray_whose_other_cores_are_held_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files must not wait for actors that get no core: training may hold it for days."""
    import ray

    from lssl_ray.cluster.index import probe_on_ray
    from lssl_ray.cluster.session import connect_ray, stop_ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    videos = [FoundVideo(f"{n}.mp4", str(tmp_path / f"{n}.mp4"), 0, 0) for n in range(NUM_VIDEOS)]
    connect_ray(address="local", num_cpus=2, remedy="none")
    try:
        held = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"] - 1}])
        assert held.wait(60)
        rows = dict(probe_on_ray(videos, settings=ProbeSettings(), num_workers=None))
    finally:
        stop_ray()
    assert [rows[number].video_id for number in range(NUM_VIDEOS)] == [v.video_id for v in videos]
    assert {record.reason for record in rows.values()} == {"missing"}


def test_check_seen_file_of_this_machine_only_is_an_error(tmp_path: Path) -> None:
    from lssl_ray.cluster.index import check_seen

    (tmp_path / "here.mp4").touch()
    here, gone = (
        build_bad_record(FoundVideo(name, str(tmp_path / name), 0, 0), "missing", "not there")
        for name in ("here.mp4", "gone.mp4")
    )
    check_seen(gone)
    with pytest.raises(ClusterError, match=r"here\.mp4"):
        check_seen(here)
