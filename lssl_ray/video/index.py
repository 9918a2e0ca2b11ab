"""Indexing: find videos, probe what is new, label everything; the result is a manifest.

It has a row for every file; a bad file is a row with a reason, never an exception. Not here:
finding files (`discovery`), the manifest's format (`manifest`), reading label files (`labels`),
what is known from before (`reuse`, `index_journal`), probing (`probe_files`, `cluster.index`).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import FoundVideo, FoundVideos, as_text, find_videos
from lssl_ray.video.index_journal import IndexJournal
from lssl_ray.video.labels import Assignment, LabelMatch, load_label_lists
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest_of_table, build_table
from lssl_ray.video.probe_files import Prober, ProbeSettings, build_bad_record, probe_locally
from lssl_ray.video.probing import PROBING_VERSION
from lssl_ray.video.readers import ReaderChoice
from lssl_ray.video.remote import has_scheme
from lssl_ray.video.reuse import (
    Exclusions,
    count_gone,
    find_known_rows,
    is_excluded,
    load_exclusions,
)

__all__ = [
    "FoundVideo",
    "FoundVideos",
    "IndexReport",
    "build_report",
    "find_videos",
    "index_videos",
]


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
        num_reused: Rows taken over without probing, from the previous manifest or the journal.
        num_duplicates: See `FoundVideos`.
        unmatched_label_rows: Rows of the label files that name no file found.
        seconds: Wall time.
        num_resumed: Of the reused rows, those that an interrupted run had probed.
        num_gone: Rows of the previous manifest whose file was not found any more.
        num_excluded: Rows that are bad because a quarantine list names them.
        num_repaired: Videos that a quarantine list names and that were written after it: probed.
        num_outdated: Videos probed again only because an older probing version spoke of them.
        num_unused_rows: See `FoundVideos`.
        list_formats: Format by path of every list and label file that was read.
    """

    num_files: int
    num_ok: int
    num_bad: int
    bad_by_reason: Mapping[str, int]
    num_by_reader: Mapping[str, int]
    num_shortened: int
    num_unlabelled: int
    ignored_by_extension: Mapping[str, int] = field(default_factory=dict)
    num_reused: int = 0
    num_duplicates: int = 0
    unmatched_label_rows: int = 0
    seconds: float = 0.0
    num_resumed: int = 0
    num_gone: int = 0
    num_excluded: int = 0
    num_repaired: int = 0
    num_outdated: int = 0
    num_unused_rows: int = 0
    list_formats: Mapping[str, str] = field(default_factory=dict)


def index_videos(
    paths: Sequence[str],
    *,
    labels: str | Sequence[str] = "none",
    split: str | None = None,
    root: str | None = None,
    exclude: Sequence[str] = (),
    num_workers: int = 1,
    deadline_seconds: float = 30.0,
    reader: ReaderChoice = "auto",
    on_progress: Callable[[int, int, int], None] | None = None,
    previous: Manifest | None = None,
    journal: IndexJournal | None = None,
    probe: Prober | None = None,
) -> tuple[Manifest, IndexReport]:
    """Finds, probes and labels videos.

    Args:
        paths: Folders, files, patterns, lists and URIs, see `find_videos`.
        labels: "none" (but for the labels of lists among `paths`), "folders" (the parent folder's
            name), or the paths of label files, see `labels.load_label_lists`.
        split: Split of every video that no list gives one.
        root: Where relative paths in lists start; None for each list's own folder.
        exclude: Quarantine lists of runs; what the runs could not decode is bad, unless the file
            was written after the list.
        num_workers: Decode processes at work at once, at least 1.
        deadline_seconds: Time for one file; beyond it the file is bad.
        reader: Who is to decode, or "auto" for whoever can, per file.
        on_progress: Called after every probed file with (done, total, bad), in this thread.
        previous: An earlier manifest; files with the path, size and time recorded there are not
            probed again, unless the reason they are bad may have passed (a deadline, a crash) or
            the manifest is of another `probing.PROBING_VERSION`.
        journal: Gets every probed row at once; rows that it has are not probed again.
        probe: Probes instead of `num_workers` processes on this machine.

    Returns:
        A manifest with one row per file, sorted by video_id, and the counts.

    Raises:
        DataError: Nothing found, or the labels are wrong; never because of a bad video.
        DecoderUnavailableError: The decode process can't start on this machine.
    """
    started = time.monotonic()
    if probe is None:
        settings = ProbeSettings(deadline_seconds=deadline_seconds, reader=reader)

        def probe(videos: Sequence[FoundVideo]) -> Iterator[tuple[int, VideoRecord]]:
            return probe_locally(videos, settings=settings, num_workers=num_workers)

    exclusions = load_exclusions(exclude)
    found = find_videos(paths, root=root)
    match = _load_labels(labels, found, root)
    earlier = [build_table(journal.found if journal else [])]
    if previous is not None and previous.probing_version == PROBING_VERSION:
        earlier.append(previous.table)
    table, known_rows = _probe_unknown(
        found.videos,
        pa.concat_tables(earlier),
        exclusions,
        probe,
        reader=reader,
        on_progress=on_progress,
        journal=journal,
    )
    table = _write_labels(table, found.videos, match, split)
    report = build_report(
        table,
        ignored_by_extension=found.ignored_by_extension,
        num_reused=len(known_rows),
        num_resumed=int((known_rows < earlier[0].num_rows).sum()),
        num_gone=0 if previous is None else count_gone(found.videos, previous.table),
        num_repaired=sum(map(exclusions.is_repaired, found.videos)),
        num_outdated=_count_outdated(found.videos, exclusions, previous, reader),
        num_duplicates=found.num_duplicates,
        num_unused_rows=found.num_unused_rows,
        unmatched_label_rows=match.num_unmatched_rows,
        list_formats={**found.list_formats, **match.list_formats},
        seconds=time.monotonic() - started,
    )
    return build_manifest_of_table(table, root=_describe_roots(found.roots)), report


def build_report(table: pa.Table, **counts: Any) -> IndexReport:
    """Counts a manifest's rows.

    Args:
        table: A manifest's table.
        counts: The figures of `IndexReport` that are not in a table.
    """
    ok = pc.equal(table["status"], "ok")
    good, bad = table.filter(ok), table.filter(pc.invert(ok))
    return IndexReport(
        num_files=table.num_rows,
        num_ok=good.num_rows,
        num_bad=bad.num_rows,
        bad_by_reason=_count(bad["reason"]),
        num_by_reader=_count(good["reader"]),
        num_shortened=good.num_rows - good["detail"].null_count,
        num_unlabelled=table["label"].null_count,
        num_excluded=int(pc.sum(is_excluded(bad)).as_py() or 0),
        **counts,
    )


def _count_outdated(
    videos: Sequence[FoundVideo],
    exclusions: Exclusions,
    previous: Manifest | None,
    reader: ReaderChoice,
) -> int:
    """How many more rows would have been reused but for the manifest's probing version."""
    if previous is None or previous.probing_version == PROBING_VERSION:
        return 0
    probed = [one for one in videos if one.missing is None and exclusions.find(one) is None]
    return int((find_known_rows(probed, previous.table, reader=reader) >= 0).sum())


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column.sort()).to_pylist()}


def _probe_unknown(
    videos: Sequence[FoundVideo],
    earlier: pa.Table,
    exclusions: Exclusions,
    probe: Prober,
    *,
    reader: ReaderChoice,
    on_progress: Callable[[int, int, int], None] | None,
    journal: IndexJournal | None,
) -> tuple[pa.Table, np.ndarray]:
    """The videos' rows in their order, and which earlier rows are among them."""
    rows = find_known_rows(videos, earlier, reader=reader)
    given: dict[int, VideoRecord] = {}
    for position, video in enumerate(videos):
        record = exclusions.find(video)
        if record is None and video.missing is not None:
            record = build_bad_record(video, "missing", video.missing)
        if record is not None:
            given[position] = record
    rows[list(given)] = -1
    known = earlier.take(rows[rows >= 0])
    todo = [position for position in np.flatnonzero(rows < 0).tolist() if position not in given]
    order = [*np.flatnonzero(rows >= 0).tolist(), *given]
    num_bad = int(pc.sum(pc.equal(known["status"], "bad")).as_py() or 0) + len(given)
    if on_progress is not None and not todo:
        on_progress(len(videos), len(videos), num_bad)

    def probed() -> Iterator[VideoRecord]:
        nonlocal num_bad
        for number, record in probe([videos[position] for position in todo]):
            order.append(todo[number])
            num_bad += record.status == "bad"
            if journal is not None:
                journal.append(record)
            if on_progress is not None:
                on_progress(len(order), len(videos), num_bad)
            yield record

    table = pa.concat_tables([known, build_table(given.values()), build_table(probed())])
    return table.take(np.argsort(order, kind="stable")), rows[rows >= 0]


def _write_labels(
    table: pa.Table, videos: Sequence[FoundVideo], match: LabelMatch, split: str | None
) -> pa.Table:
    """Ids, labels and splits as of this run, whatever earlier rows say."""
    columns: dict[str, list[str | None]] = {"video_id": [], "label": [], "split": []}
    for video in videos:
        own = Assignment(label=video.label, split=video.split)
        assignment = match.assignments.get(video.path, own)
        columns["video_id"].append(video.video_id)
        columns["label"].append(assignment.label)
        columns["split"].append(assignment.split or split)
    for name, values in columns.items():
        field_ = table.schema.field(name)
        column = pa.array(values, field_.type)
        table = table.set_column(table.schema.get_field_index(name), field_, column)
    return table


def _load_labels(labels: str | Sequence[str], found: FoundVideos, root: str | None) -> LabelMatch:
    words = [labels] if isinstance(labels, str) else list(labels)
    if words in ([], ["none"]):
        return LabelMatch(assignments={}, num_unmatched_rows=0, list_formats={})
    video_paths = [video.path for video in found.videos]
    if words == ["folders"]:
        assignments = {path: Assignment(_name_folder(path), split=None) for path in video_paths}
        return LabelMatch(assignments=assignments, num_unmatched_rows=0, list_formats={})
    for word in words:
        if not has_scheme(word) and not os.path.isfile(word):
            raise DataError(
                f"labels={word!r} must be 'none', 'folders' or the path of a label file that "
                "exists."
            )
    return load_label_lists(words, video_paths=video_paths, roots=found.roots, list_root=root)


def _name_folder(path: str) -> str:
    folder = os.path.basename(os.path.dirname(path))
    return unquote(folder) if path.startswith(("http://", "https://")) else as_text(folder)


def _describe_roots(roots: Sequence[str]) -> str:
    """The folder above all, or all of them where there is none; for people."""
    if any(map(has_scheme, roots)):
        return " ".join(roots)
    return os.path.commonpath(roots)
