"""Checking a manifest against the files: gone, changed, newly bad, newly good.

Not here: probing (`probe_files`, `cluster.index`), files that are new (`index`).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lssl_ray.video.discovery import FoundVideo
from lssl_ray.video.manifest import (
    ROWS_PER_BATCH,
    Manifest,
    VideoRecord,
    build_manifest_of_table,
    build_table,
)
from lssl_ray.video.probe_files import Prober, build_bad_record
from lssl_ray.video.probing import PROBING_VERSION
from lssl_ray.video.readers import ReaderChoice
from lssl_ray.video.remote import NUM_REQUESTS, has_scheme, stat_remote
from lssl_ray.video.reuse import is_excluded
from lssl_ray.video.walking import as_hit, stat_file

__all__ = ["CheckReport", "Finding", "check_manifest"]

_GONE = "is not there any more"
_PROBED_FIELDS = ("num_frames", "fps", "width", "height", "codec", "rotation", "reader")


@dataclass(frozen=True)
class Finding:
    """One video that is not as the manifest says, and in what."""

    path: str
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        num_files: Rows of the manifest.
        num_probed: Files that were probed again.
        num_excluded: Rows that are bad because a quarantine list names them; not probed.
        missing: Usable videos whose file is gone.
        changed: Files of another size or time, or whose probe says something else.
        newly_bad: Usable videos that a probe refuses now.
        newly_good: Bad videos that a probe takes now.
        seconds: Wall time.
    """

    num_files: int
    num_probed: int
    num_excluded: int
    missing: tuple[Finding, ...]
    changed: tuple[Finding, ...]
    newly_bad: tuple[Finding, ...]
    newly_good: tuple[Finding, ...]
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether every usable video is there as the manifest says."""
        return not (self.missing or self.changed or self.newly_bad)


def check_manifest(
    manifest: Manifest,
    *,
    decode: bool,
    build_prober: Callable[[ReaderChoice], Prober],
    on_progress: Callable[[int, int, int], None] | None = None,
) -> tuple[CheckReport, Manifest]:
    """Looks at every file of a manifest; probes those that changed, or all.

    Args:
        manifest: What to check.
        decode: Whether every file is probed again.
        build_prober: Who probes with a reader. That of a row stays; decord's rows may get another,
            as when they are indexed.
        on_progress: Called after every probe with (done, total, bad), in this thread.

    Returns:
        What was found, and the manifest as it should be: same rows, ids, labels and splits.

    Raises:
        DataError: A remote store can't be asked.
    """
    started = time.monotonic()
    excluded = is_excluded(manifest.table).to_numpy()
    missing, changed = [], []
    rows: dict[int, VideoRecord] = {}
    todo: dict[ReaderChoice, list[tuple[int, FoundVideo]]] = defaultdict(list)
    for number, (record, video) in enumerate(_look_at_all(manifest)):
        if video.missing is not None:
            if record.status == "ok":
                missing.append(Finding(record.path, _GONE))
                rows[number] = build_bad_record(video, "missing", _GONE)
            continue
        same = (video.size_bytes, video.mtime_ns) == (record.size_bytes, record.mtime_ns)
        if not same and record.status == "ok":
            changed.append(Finding(record.path, _describe_change(record, video)))
        if not excluded[number] and (decode or not same):
            todo["auto" if record.reader == "decord" else record.reader].append((number, video))
    num_probed = sum(map(len, todo.values()))
    newly_bad, newly_good = [], []
    seen = {finding.path for finding in changed}
    num_bad = 0
    for done, (number, after) in enumerate(_probe(todo, build_prober), 1):
        before = manifest.row(number)
        rows[number] = after
        num_bad += after.status == "bad"
        if on_progress is not None:
            on_progress(done, num_probed, num_bad)
        if before.status == "ok" and after.status == "bad":
            newly_bad.append(Finding(after.path, f"{after.reason}: {after.detail}"))
        elif before.status == "bad" and after.status == "ok":
            newly_good.append(Finding(after.path, f"was {before.reason}: {before.detail}"))
        elif (difference := _describe_difference(before, after)) and after.path not in seen:
            changed.append(Finding(after.path, difference))
    report = CheckReport(
        num_files=len(manifest),
        num_probed=num_probed,
        num_excluded=int(excluded.sum()),
        missing=tuple(missing),
        changed=tuple(changed),
        newly_bad=tuple(sorted(newly_bad, key=lambda finding: finding.path)),
        newly_good=tuple(sorted(newly_good, key=lambda finding: finding.path)),
        seconds=time.monotonic() - started,
    )
    version = PROBING_VERSION if decode else manifest.probing_version
    return report, replace(_replace_rows(manifest, rows), probing_version=version)


def _probe(
    todo: Mapping[ReaderChoice, Sequence[tuple[int, FoundVideo]]],
    build_prober: Callable[[ReaderChoice], Prober],
) -> Iterator[tuple[int, VideoRecord]]:
    """The numbers of rows and what they should be, reader after reader."""
    for reader, numbered in todo.items():
        probe = build_prober(reader)
        for position, record in probe([video for _, video in numbered]):
            yield numbered[position][0], record


def _look_at_all(manifest: Manifest) -> Iterator[tuple[VideoRecord, FoundVideo]]:
    """Every row with its file as it is now; several are asked for at a time."""
    with ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="lssl_ray_check") as threads:
        for batch in manifest.table.to_batches(max_chunksize=ROWS_PER_BATCH):
            records = [VideoRecord(**row) for row in batch.to_pylist()]
            yield from zip(records, threads.map(_look_at, records), strict=True)


def _look_at(record: VideoRecord) -> FoundVideo:
    if has_scheme(record.path):
        file = stat_remote(record.path)
        hit = None if file is None else as_hit(file)
    else:
        hit = stat_file(record.path, identity=record.path, missing=_GONE)
    size_bytes, mtime_ns = (hit.size_bytes, hit.mtime_ns) if hit else (0, 0)
    return FoundVideo(
        video_id=record.video_id,
        path=record.path,
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        label=record.label,
        split=record.split,
        missing=_GONE if hit is None else hit.missing,
    )


def _describe_change(record: VideoRecord, video: FoundVideo) -> str:
    if record.size_bytes != video.size_bytes:
        return f"{record.size_bytes} bytes when indexed, {video.size_bytes} now"
    return "written anew since it was indexed"


def _describe_difference(before: VideoRecord, after: VideoRecord) -> str | None:
    if before.status == "bad":
        return None
    parts = [
        f"{name} {getattr(before, name)} when indexed, {getattr(after, name)} now"
        for name in _PROBED_FIELDS
        if getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(parts) or None


def _replace_rows(manifest: Manifest, rows: dict[int, VideoRecord]) -> Manifest:
    if not rows:
        return manifest
    order = np.arange(len(manifest))
    order[list(rows)] = len(manifest) + np.arange(len(rows))
    table = pa.concat_tables([manifest.table, build_table(rows.values())])
    return build_manifest_of_table(table.take(order), root=manifest.root)
