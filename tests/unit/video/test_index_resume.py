"""Indexing that was interrupted, repeated, or told what to leave out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from video_server import serve_folder

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import FoundVideo
from lssl_ray.video.index import index_videos
from lssl_ray.video.index_journal import IndexJournal
from lssl_ray.video.manifest import (
    VideoRecord,
    build_manifest,
    load_manifest,
    save_manifest,
)
from lssl_ray.video.probe_files import ProbeSettings, probe_locally
from lssl_ray.video.probing import PROBING_VERSION

Write = Callable[..., Path]


@pytest.fixture
def folder(write_clip: Write, tmp_path: Path) -> Path:
    for number in range(4):
        write_clip(tmp_path / "0" / f"{number}.mp4", num_frames=2 + number)
    return tmp_path / "0"


def _count_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def test_index_killed_midway_goes_on_and_ends_in_the_same_manifest(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.parquet"
    command = [sys.executable, "-m", "lssl_ray.cli", "data", "index", str(tmp_path / "list.txt")]
    command += ["-o", str(out), "--workers", "1", "--deadline", "60", "--no-report"]
    with serve_folder(folder) as server:
        names = ["0/0.mp4", "0/1.mp4", "0/3.mp4", f"{server.url}/stall/2.mp4"]
        (tmp_path / "list.txt").write_text("\n".join(names))
        journal = Path(f"{out}.journal")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
            # Files are probed by id, so this one comes last.
            try:
                deadline = time.monotonic() + 60
                while "/stall/2.mp4" not in server.fetched:
                    assert time.monotonic() < deadline and killed.poll() is None
                    time.sleep(0.05)
            finally:
                killed.kill()
        assert _count_rows(journal) == 3 and not out.exists()
        server.released.set()
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert "4 usable" in done.stdout and "3 of them from" in done.stdout
        straight, _ = index_videos([str(tmp_path / "list.txt")], deadline_seconds=60.0)
    assert load_manifest(str(out)).records() == straight.records()
    assert not journal.exists()


class _Stopped(Exception):
    """What ends an index run in the middle."""


def _stop_after(
    count: int, probed: list[str]
) -> Callable[[Sequence[FoundVideo]], Iterator[tuple[int, VideoRecord]]]:
    def probe(videos: Sequence[FoundVideo]) -> Iterator[tuple[int, VideoRecord]]:
        settings = ProbeSettings()
        for number, record in probe_locally(videos, settings=settings, num_workers=1):
            if len(probed) == count:
                raise _Stopped
            probed.append(record.video_id)
            yield number, record

    return probe


def test_index_videos_with_journal_probes_only_the_rest(folder: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "m.journal")
    first: list[str] = []
    with IndexJournal(path) as journal, pytest.raises(_Stopped):
        index_videos([str(folder)], journal=journal, probe=_stop_after(2, first))
    with open(path, "ab") as file:
        file.write(b'{"video_id": "3.mp4", "pa')  # cut while it was written
    second: list[str] = []
    with IndexJournal(path) as journal:
        manifest, report = index_videos(
            [str(folder)], journal=journal, probe=_stop_after(9, second)
        )
        journal.remove()
    assert (first, second) == (["0.mp4", "1.mp4"], ["2.mp4", "3.mp4"])
    assert (report.num_resumed, report.num_reused) == (2, 2)
    assert manifest.records() == index_videos([str(folder)])[0].records()
    assert list(tmp_path.glob("m.*")) == []


def test_index_journal_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "m.journal")
    with IndexJournal(path), pytest.raises(DataError, match="another"):
        IndexJournal(path)
    assert list(tmp_path.iterdir()) == []


def test_index_journal_of_something_else_is_begun_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.journal").write_text('{"other": 1}\n{"video_id": "x"}\n')
    with IndexJournal(str(tmp_path / "m.journal")) as journal:
        assert journal.found == []
        _, report = index_videos([str(folder)], journal=journal)
    assert report.num_reused == 0
    with IndexJournal(str(tmp_path / "m.journal")) as journal:
        assert [record.video_id for record in journal.found] == [f"{n}.mp4" for n in range(4)]


def test_index_videos_counts_what_is_gone(folder: Path) -> None:
    first, _ = index_videos([str(folder)])
    (folder / "0.mp4").unlink()
    (folder / "1.mp4").rename(folder / "new.mp4")
    second, report = index_videos([str(folder)], previous=first)
    assert [row.video_id for row in second.records()] == ["2.mp4", "3.mp4", "new.mp4"]
    assert (report.num_gone, report.num_reused) == (2, 2)


def test_index_videos_other_reader_probes_again(folder: Path) -> None:
    (folder / "bad.mp4").write_text("no video")
    auto, _ = index_videos([str(folder)])
    pyav, report = index_videos([str(folder)], previous=auto, reader="pyav")
    assert report.num_reused == 0
    assert {row.reader for row in pyav.records()} == {"pyav"}
    _, again = index_videos([str(folder)], previous=pyav, reader="pyav")
    assert again.num_reused == 5
    _, back = index_videos([str(folder)], previous=pyav)
    assert back.num_reused == 4  # what PyAV alone refused, another reader may take


def _quarantine(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_index_videos_excluded_videos_are_bad_until_they_are_not(
    folder: Path, tmp_path: Path
) -> None:
    by_path = {"video_id": "?", "path": str(folder / "1.mp4"), "reason": "decoder_crashed"}
    by_id = {"video_id": "2.mp4", "path": "/moved/2.mp4", "reason": "decode_failed", "detail": "X"}
    lists = [_quarantine(tmp_path / "a.jsonl", by_path), _quarantine(tmp_path / "b.jsonl", by_id)]
    before, _ = index_videos([str(folder)])
    manifest, report = index_videos([str(folder)], exclude=lists, previous=before)
    rows = {row.video_id: row for row in manifest.records()}
    assert [row.status for row in rows.values()] == ["ok", "bad", "bad", "ok"]
    assert (rows["1.mp4"].reason, rows["2.mp4"].reason) == ("decoder_crashed", "decode_failed")
    assert rows["2.mp4"].detail is not None
    assert lists[1] in rows["2.mp4"].detail and rows["2.mp4"].detail.endswith("X")
    assert (report.num_excluded, report.num_reused) == (2, 2)
    after, report = index_videos([str(folder)], previous=manifest)
    assert (report.num_excluded, report.num_reused) == (0, 2)
    assert after.records() == before.records()


def test_index_videos_exclusion_is_of_what_a_run_found_in_files_as_they_were(
    folder: Path, tmp_path: Path, write_clip: Write
) -> None:
    """Rows that a run took over from its manifest, and files mended since, are probed.

    But not what its manifest had excluded for an earlier run.
    """
    (folder / "2.mp4").write_text("no video")
    before, _ = index_videos([str(folder)])
    listed = _quarantine(
        tmp_path / "q.jsonl",
        {"video_id": "0.mp4", "path": "", "reason": "decode_failed", "stage": "train"},
        {"video_id": "1.mp4", "path": "", "reason": "decode_failed", "stage": "evaluate"},
        {"video_id": "2.mp4", "path": "", "reason": "not_a_video", "stage": "index"},
        {
            "video_id": "3.mp4",
            "path": "",
            "reason": "decoder_crashed",
            "stage": "index",
            "detail": "excluded by /earlier/quarantine.jsonl: SIGSEGV",
        },
    )
    write_clip(folder / "1.mp4", num_frames=7)
    write_clip(folder / "2.mp4", num_frames=8)
    later = Path(listed).stat().st_mtime_ns + 1
    for name in ("1.mp4", "2.mp4"):
        os.utime(folder / name, ns=(later, later))
    manifest, report = index_videos([str(folder)], exclude=[listed], previous=before)
    assert [row.status for row in manifest.records()] == ["bad", "ok", "ok", "bad"]
    assert [row.num_frames for row in manifest.records()] == [0, 7, 8, 0]
    assert (report.num_excluded, report.num_repaired, report.num_reused) == (2, 1, 0)
    assert manifest.row(3).detail == "excluded by /earlier/quarantine.jsonl: SIGSEGV"


def test_index_videos_rows_of_another_probing_version_are_probed_again_and_counted(
    folder: Path, tmp_path: Path
) -> None:
    first, _ = index_videos([str(folder)])
    # As an older release chose, whose rules are no longer these.
    rows = [replace(row, reader="pyav") for row in first.records()]
    old = replace(build_manifest(rows, root=first.root), probing_version=PROBING_VERSION - 1)
    save_manifest(old, str(tmp_path / "old.parquet"))
    (folder / "0.mp4").unlink()
    os.utime(folder / "1.mp4", ns=(5, 5))  # would be probed anyway
    previous = load_manifest(str(tmp_path / "old.parquet"))
    second, report = index_videos([str(folder)], previous=previous)
    assert {row.reader for row in second.records()} == {"decord"}
    assert (report.num_reused, report.num_outdated, report.num_gone) == (0, 2, 1)
    assert second.probing_version == PROBING_VERSION
    _, again = index_videos([str(folder)], previous=second)
    assert (again.num_reused, again.num_outdated) == (3, 0)


@pytest.mark.parametrize("text", ["no json", '{"path": "a"}\n', "[1]\n", None])
def test_index_videos_exclude_of_something_else_is_refused(
    folder: Path, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "q.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"quarantine\.jsonl"):
        index_videos([str(folder)], exclude=[str(path)])
