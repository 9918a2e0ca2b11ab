"""Indexing: probe every video file under some folders in isolation and label it.

The result is a manifest with a row for every file; a bad file is a row with a reason, never an
exception. Not here: finding files (`discovery`), the manifest's format (`manifest`), reading label
files (`labels`), choosing a reader (`probing`), decoding (`isolation`).
"""

import os
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import FoundVideo, FoundVideos, as_text, find_videos
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.labels import Assignment, LabelMatch, load_label_csv
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest

__all__ = [
    "FoundVideo",
    "FoundVideos",
    "IndexReport",
    "find_videos",
    "index_videos",
]

# What a busy or small machine can cause: these verdicts are not carried over to the next index.
_TRANSIENT_REASONS = frozenset({"deadline_exceeded", "decoder_crashed", "out_of_memory"})
_CHUNK = 4096  # files handed to the threads at once: bounds memory for millions of files


@dataclass(frozen=True)
class IndexReport:
    """What happened while indexing; the counts that are about files add up.

    Attributes:
        num_files: Rows of the manifest, num_ok + num_bad.
        num_ok: Usable videos.
        num_bad: Rows with a reason.
        bad_by_reason: Count of bad rows by reason.
        num_by_reader: Count of usable videos by the reader that decodes them.
        num_shortened: Usable videos of which not every announced frame decodes.
        num_unlabelled: Rows without a label.
        ignored_by_extension: See `FoundVideos`.
        num_reused: Rows taken over from the previous manifest without probing.
        num_duplicates: See `FoundVideos`.
        unmatched_label_rows: Rows of the label CSV that name no file found.
        seconds: Wall time.
    """

    num_files: int
    num_ok: int
    num_bad: int
    bad_by_reason: Mapping[str, int]
    num_by_reader: Mapping[str, int]
    num_shortened: int
    num_unlabelled: int
    ignored_by_extension: Mapping[str, int]
    num_reused: int
    num_duplicates: int
    unmatched_label_rows: int
    seconds: float


def index_videos(
    paths: Sequence[str],
    *,
    labels: str = "none",
    split: str | None = None,
    num_workers: int = 1,
    deadline_seconds: float = 30.0,
    on_progress: Callable[[int, int, int], None] | None = None,
    previous: Manifest | None = None,
) -> tuple[Manifest, IndexReport]:
    """Finds, probes and labels videos.

    Args:
        paths: Folders and files, see `find_videos`.
        labels: "none", "folders" (the parent folder's name) or the path of a CSV, see
            `labels.load_label_csv`.
        split: Split of every video that the CSV gives none.
        num_workers: Decode processes at work at once, at least 1.
        deadline_seconds: Time for one file; beyond it the file is bad.
        on_progress: Called after every file with (done, total, bad), in this thread.
        previous: An earlier manifest; files with the path, size and time recorded there are not
            probed again, unless the reason they are bad may have passed (a deadline, a crash).

    Returns:
        A manifest with one row per file, sorted by video_id, and the counts.

    Raises:
        DataError: Nothing found, or the labels are wrong; never because of a bad video.
        DecoderUnavailableError: The decode process can't start on this machine.
    """
    started = time.monotonic()
    found = find_videos(paths)
    match = _load_labels(labels, found)
    reusable = _compute_reusable(previous)
    records: list[VideoRecord] = []
    num_reused = num_bad = 0
    for video, record, reused in _probe_all(found.videos, reusable, num_workers, deadline_seconds):
        assignment = match.assignments.get(video.path, Assignment(label=None, split=None))
        records.append(replace(record, label=assignment.label, split=assignment.split or split))
        num_reused += reused
        num_bad += record.status == "bad"
        if on_progress is not None:
            on_progress(len(records), len(found.videos), num_bad)
    report = IndexReport(
        num_files=len(records),
        num_ok=len(records) - num_bad,
        num_bad=num_bad,
        bad_by_reason=dict(sorted(Counter(r.reason for r in records if r.reason).items())),
        num_by_reader=dict(sorted(Counter(r.reader for r in records if r.status == "ok").items())),
        num_shortened=sum(r.status == "ok" and r.detail is not None for r in records),
        num_unlabelled=sum(record.label is None for record in records),
        ignored_by_extension=found.ignored_by_extension,
        num_reused=num_reused,
        num_duplicates=found.num_duplicates,
        unmatched_label_rows=match.num_unmatched_rows,
        seconds=time.monotonic() - started,
    )
    return build_manifest(records, root=os.path.commonpath(found.roots)), report


def _load_labels(labels: str, found: FoundVideos) -> LabelMatch:
    if labels == "none":
        return LabelMatch(assignments={}, num_unmatched_rows=0)
    video_paths = [video.path for video in found.videos]
    if labels == "folders":
        names = {path: as_text(os.path.basename(os.path.dirname(path))) for path in video_paths}
        assignments = {path: Assignment(label=name, split=None) for path, name in names.items()}
        return LabelMatch(assignments=assignments, num_unmatched_rows=0)
    if not os.path.isfile(labels):
        raise DataError(
            f"labels={labels!r} must be 'none', 'folders' or the path of a CSV that exists."
        )
    return load_label_csv(labels, video_paths=video_paths, roots=found.roots)


def _compute_reusable(previous: Manifest | None) -> Callable[[FoundVideo], VideoRecord | None]:
    if previous is None:
        return lambda video: None
    manifest = previous
    columns = (manifest.table[name].to_pylist() for name in ("path", "size_bytes", "mtime_ns"))
    rows = {key: row for row, key in enumerate(zip(*columns, strict=True))}

    def find(video: FoundVideo) -> VideoRecord | None:
        row = rows.get((video.path, video.size_bytes, video.mtime_ns))
        record = None if row is None else manifest.row(row)
        if record is None or record.reason in _TRANSIENT_REASONS:
            return None
        return replace(record, video_id=video.video_id)

    return find


def _probe_all(
    videos: Sequence[FoundVideo],
    find_reusable: Callable[[FoundVideo], VideoRecord | None],
    num_workers: int,
    deadline_seconds: float,
) -> Iterator[tuple[FoundVideo, VideoRecord, bool]]:
    """Yields every video in order with its record and whether that was reused."""
    free: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()

    def work(video: FoundVideo) -> tuple[FoundVideo, VideoRecord, bool]:
        reusable = find_reusable(video)
        if reusable is not None:
            return video, reusable, True
        process = free.get()
        try:
            return video, _probe(video, process), False
        finally:
            free.put(process)

    with ExitStack() as stack:
        for _ in range(max(1, num_workers)):
            free.put(stack.enter_context(DecodeProcess(deadline_seconds=deadline_seconds)))
        threads = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="lssl_ray_index")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        for start in range(0, len(videos), _CHUNK):
            yield from threads.map(work, videos[start : start + _CHUNK])


def _probe(video: FoundVideo, process: DecodeProcess) -> VideoRecord:
    record = VideoRecord(
        video_id=video.video_id,
        path=as_text(video.path),
        label=None,
        split=None,
        status="bad",
        reason=None,
        detail=None,
        num_frames=0,
        fps=0.0,
        duration_seconds=0.0,
        width=0,
        height=0,
        codec="",
        rotation=0,
        reader="decord",
        size_bytes=video.size_bytes,
        mtime_ns=video.mtime_ns,
    )
    if record.path != video.path:
        return replace(record, reason="unreadable", detail="its name is not UTF-8; rename it")
    try:
        probe = process.probe(video.path)
    except DecodeError as error:
        return replace(record, reason=error.reason, detail=error.detail)
    return replace(record, status="ok", **vars(probe))
