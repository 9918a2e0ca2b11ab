"""Probing many files at a time with child processes of this machine; a bad file is a row.

Not here: the same on a cluster (`cluster.index`), what one probe does (`probing`), which files need
one (`index`).
"""

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from lssl_ray.video.discovery import FoundVideo, as_text
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.manifest import ROWS_PER_BATCH, VideoRecord
from lssl_ray.video.readers import ReaderChoice

__all__ = ["ProbeSettings", "Prober", "build_bad_record", "probe_file", "probe_locally"]

Prober = Callable[[Sequence[FoundVideo]], Iterator[tuple[int, VideoRecord]]]
"""Takes videos; gives each one's number among them and its row, in any order."""


@dataclass(frozen=True)
class ProbeSettings:
    """How files are probed.

    Attributes:
        deadline_seconds: Time for one file, a download included; beyond it the file is bad.
        reader: Who is to decode the videos from now on, or "auto".
    """

    deadline_seconds: float = 30.0
    reader: ReaderChoice = "auto"


def probe_locally(
    videos: Sequence[FoundVideo], *, settings: ProbeSettings, num_workers: int
) -> Iterator[tuple[int, VideoRecord]]:
    """Probes files with a few child processes, in order.

    Args:
        videos: What to probe.
        settings: How.
        num_workers: Processes at work at once, at least 1.

    Raises:
        DecoderUnavailableError: The decode process can't start on this machine.
    """
    free: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()

    def work(video: FoundVideo) -> VideoRecord:
        process = free.get()
        try:
            return probe_file(video, process, reader=settings.reader)
        finally:
            free.put(process)

    with ExitStack() as stack:
        for _ in range(max(1, num_workers)):
            process = DecodeProcess(deadline_seconds=settings.deadline_seconds)
            free.put(stack.enter_context(process))
        threads = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="lssl_ray_index")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        for start in range(0, len(videos), ROWS_PER_BATCH):  # bounds what waits in the threads
            chunk = videos[start : start + ROWS_PER_BATCH]
            yield from enumerate(threads.map(work, chunk), start)


def probe_file(
    video: FoundVideo, process: DecodeProcess, *, reader: ReaderChoice = "auto"
) -> VideoRecord:
    """Probes one file; whatever is wrong with it is in the row.

    Raises:
        DecoderUnavailableError: The decode process can't start on this machine.
    """
    if as_text(video.path) != video.path:
        return build_bad_record(video, "unreadable", "its name is not UTF-8; rename it")
    try:
        probe = process.probe(video.path, reader=reader)
    except DecodeError as error:
        record = build_bad_record(video, error.reason, error.detail)
        return record if reader == "auto" else replace(record, reader=reader)
    return replace(build_bad_record(video, None, None), status="ok", **vars(probe))


def build_bad_record(video: FoundVideo, reason: str | None, detail: str | None) -> VideoRecord:
    """The row of a file of which nothing is known but why."""
    blank: dict[str, Any] = dict.fromkeys(("num_frames", "width", "height", "rotation"), 0)
    return VideoRecord(
        video_id=video.video_id,
        path=as_text(video.path),
        label=video.label,
        split=video.split,
        status="bad",
        reason=reason,
        detail=detail,
        fps=0.0,
        duration_seconds=0.0,
        codec="",
        reader="decord",
        size_bytes=video.size_bytes,
        mtime_ns=video.mtime_ns,
        **blank,
    )
