"""A manifest against its files: what is gone, changed, newly bad or newly good."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from video_server import serve_folder

from lssl_ray.video.checking import CheckReport, check_manifest
from lssl_ray.video.discovery import FoundVideo
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest
from lssl_ray.video.probe_files import Prober, ProbeSettings, probe_locally
from lssl_ray.video.probing import PROBING_VERSION
from lssl_ray.video.readers import ReaderChoice

Write = Callable[..., Path]


@pytest.fixture
def folder(write_clip: Write, tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_clip(tmp_path / "v" / name / f"{name}.mp4", num_frames=4)
    (tmp_path / "v" / "bad.mp4").write_text("no video")
    return tmp_path / "v"


def _check(manifest: Manifest, *, decode: bool = False) -> tuple[CheckReport, Manifest, list[str]]:
    probed: list[str] = []

    def build_prober(reader: ReaderChoice) -> Prober:
        def probe(videos: Sequence[FoundVideo]) -> Iterator[tuple[int, VideoRecord]]:
            probed.extend(video.video_id for video in videos)
            return probe_locally(videos, settings=ProbeSettings(reader=reader), num_workers=1)

        return probe

    report, corrected = check_manifest(manifest, decode=decode, build_prober=build_prober)
    return report, corrected, probed


def _index(folder: Path) -> Manifest:
    return index_videos([str(folder)], labels="folders", split="train")[0]


def test_check_manifest_untouched_is_right_without_a_probe(folder: Path) -> None:
    manifest = _index(folder)
    report, corrected, probed = _check(manifest)
    assert (report.is_right, report.num_files, probed) == (True, 4, [])
    assert corrected.records() == manifest.records()


def test_check_manifest_decode_probes_all_and_finds_nothing(folder: Path) -> None:
    manifest = _index(folder)
    report, corrected, probed = _check(manifest, decode=True)
    assert (report.is_right, report.num_probed, len(probed)) == (True, 4, 4)
    assert corrected.records() == manifest.records()


def test_check_manifest_finds_each_kind_and_corrects_it(folder: Path, write_clip: Write) -> None:
    manifest = _index(folder)
    (folder / "a" / "a.mp4").unlink()
    (folder / "b" / "b.mp4").write_text("overwritten")
    write_clip(folder / "c" / "c.mp4", num_frames=9)
    write_clip(folder / "bad.mp4", num_frames=5)
    report, corrected, probed = _check(manifest)
    assert not report.is_right
    found = {
        name: [Path(finding.path).name for finding in getattr(report, name)]
        for name in ("missing", "changed", "newly_bad", "newly_good")
    }
    assert found == {
        "missing": ["a.mp4"],
        "changed": ["b.mp4", "c.mp4"],
        "newly_bad": ["b.mp4"],
        "newly_good": ["bad.mp4"],
    }
    assert probed == ["b/b.mp4", "bad.mp4", "c/c.mp4"]
    anew = _index(folder)
    rows = {row.video_id: row for row in corrected.records()}
    assert (rows.pop("a/a.mp4").reason, rows["b/b.mp4"].label) == ("missing", "b")
    assert list(rows.values()) == anew.records()
    assert corrected.row(0).video_id == "a/a.mp4"


def test_check_manifest_newly_good_alone_is_right(folder: Path, write_clip: Write) -> None:
    manifest = _index(folder)
    write_clip(folder / "bad.mp4", num_frames=5)
    report, _, _ = _check(manifest)
    assert (report.is_right, len(report.newly_good)) == (True, 1)


def test_check_manifest_decode_finds_what_size_and_time_hide(
    folder: Path, write_clip: Write
) -> None:
    manifest = _index(folder)
    path = folder / "c" / "c.mp4"
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    lies = [replace(row, num_frames=3) if row.label == "b" else row for row in manifest.records()]
    manifest = build_manifest(lies, root=manifest.root)
    assert _check(manifest)[0].is_right
    report, _, _ = _check(manifest, decode=True)
    assert [Path(finding.path).name for finding in report.newly_bad] == ["c.mp4"]
    (changed,) = report.changed
    assert "num_frames 3 when indexed, 4 now" in changed.detail


@pytest.mark.parametrize("decode", [False, True])
def test_check_manifest_keeps_the_probing_version_of_rows_that_it_did_not_probe(
    folder: Path, decode: bool
) -> None:
    old = replace(_index(folder), probing_version=0)
    (folder / "a" / "a.mp4").unlink()  # so that rows are replaced
    _, corrected, _ = _check(old, decode=decode)
    assert corrected.probing_version == (PROBING_VERSION if decode else 0)


def test_check_manifest_leaves_excluded_videos_alone(folder: Path, tmp_path: Path) -> None:
    row = '{"video_id": "a/a.mp4", "path": "", "reason": "decoder_crashed"}\n'
    (tmp_path / "q.jsonl").write_text(row)
    manifest, _ = index_videos([str(folder)], exclude=[str(tmp_path / "q.jsonl")])
    report, corrected, probed = _check(manifest, decode=True)
    assert (report.is_right, report.num_excluded, len(probed)) == (True, 1, 3)
    assert corrected.records() == manifest.records()


def test_check_manifest_probes_with_the_reader_that_was_asked_for(
    folder: Path, write_clip: Write
) -> None:
    manifest = index_videos([str(folder)], reader="pyav")[0]
    report, corrected, _ = _check(manifest, decode=True)
    assert (report.is_right, report.num_probed) == (True, 4)
    assert corrected.records() == manifest.records()
    # Rows of several readers: of an index with one, and of one with another later.
    write_clip(folder / "d.mp4", num_frames=5)
    manifest = index_videos([str(folder)], previous=corrected)[0]
    readers = [row.reader for row in manifest.records()]
    assert readers == ["pyav", "pyav", "decord", "pyav", "decord"]
    report, corrected, probed = _check(manifest, decode=True)
    assert (report.is_right, len(probed)) == (True, 5)
    assert corrected.records() == manifest.records()


def test_check_manifest_asks_servers_too(folder: Path) -> None:
    with serve_folder(folder) as server:
        manifest, _ = index_videos([f"{server.url}/"])
        assert _check(manifest)[0].is_right
        (folder / "a" / "a.mp4").unlink()
        report, _, _ = _check(manifest)
    assert [finding.path for finding in report.missing] == [f"{server.url}/a/a.mp4"]
