"""Probing files on Ray: actors with a decode process each, a few files at a time.

Paths must mean the same on every node: a shared disk, or URIs. Not here: what one probe does
(`video.probe_files`), which files need one (`video.index`).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import ray
from ray.exceptions import RayError

from lssl_ray.cluster.session import connect_ray, stop_ray
from lssl_ray.errors import ClusterError
from lssl_ray.video.discovery import FoundVideo
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.probe_files import ProbeSettings, probe_file
from lssl_ray.video.remote import has_scheme

FILES_PER_TASK = 8
TASKS_PER_ACTOR = 2  # one at work, one waiting
PATIENCE_SECONDS = 30.0
REMEDY = "without Ray: --engine local"
Batch = list[tuple[int, VideoRecord]]

logger = logging.getLogger(__name__)


class ProbeActor:
    """Probes files one after another in a child process of its own."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._reader = settings.reader
        self._process = DecodeProcess(deadline_seconds=settings.deadline_seconds)

    def probe(self, first: int, videos: Sequence[FoundVideo]) -> Batch:
        """Rows of files that are numbered from `first`."""
        return [
            (number, probe_file(video, self._process, reader=self._reader))
            for number, video in enumerate(videos, first)
        ]


def probe_on_ray(
    videos: Sequence[FoundVideo], *, settings: ProbeSettings, num_workers: int | None
) -> Iterator[tuple[int, VideoRecord]]:
    """Probes files on the Ray that RAY_ADDRESS names, or on one of this machine's own.

    Args:
        videos: What to probe.
        settings: How.
        num_workers: Actors, one core each; None for one per core that Ray has.

    Yields:
        Each video's number and its row, as they get ready.

    Raises:
        ClusterError: Ray can't be started or joined, loses its actors for good, or a worker
            doesn't see a file that this machine sees.
    """
    with _connected(num_workers):
        cores = int(ray.cluster_resources().get("CPU", 1))
        num_tasks = -(-len(videos) // FILES_PER_TASK)
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3)(ProbeActor)
        starts = iter(range(0, len(videos), FILES_PER_TASK))
        # No files yet: an actor that gets no core would hold them for as long as it waits.
        waiting = {
            worker.probe.remote(0, []): worker
            for worker in (
                actor.remote(settings) for _ in range(max(1, min(num_workers or cores, num_tasks)))
            )
        }
        num_left, has_begun = len(videos), False
        try:
            while num_left:
                ended, _ = ray.wait(list(waiting), num_returns=1, timeout=PATIENCE_SECONDS)
                if not ended:
                    if not has_begun:
                        logger.warning("No core of this Ray is free to probe on yet: %s.", REMEDY)
                    continue
                worker, batch, has_begun = waiting.pop(ended[0]), ray.get(ended[0]), True
                for start in islice(starts, 1 if batch else TASKS_PER_ACTOR):
                    task = worker.probe.remote(start, videos[start : start + FILES_PER_TASK])
                    waiting[task] = worker
                del worker  # with no files left to probe it ends, and its core is free
                num_left -= len(batch)
                for number, record in batch:
                    check_seen(record)
                    yield number, record
        except RayError as error:
            raise ClusterError(
                f"Ray lost the probes ({str(error).splitlines()[-1]}); what was probed is kept: "
                "run the same command again, with --engine local to do without Ray."
            ) from error


def check_seen(record: VideoRecord) -> None:
    """Refuse to call a file missing that only this machine has.

    Raises:
        ClusterError: It is here, and was not where Ray probed it.
    """
    if record.reason == "missing" and not has_scheme(record.path) and os.path.exists(record.path):
        raise ClusterError(
            f"{record.path} exists here but not where Ray probed it; put the videos where every "
            "node sees them under the same path, or use --engine local."
        )


@contextmanager
def _connected(num_workers: int | None) -> Iterator[None]:
    """The Ray that is there already, or one for the time of the probes."""
    if ray.is_initialized():
        yield
        return
    connect_ray(
        address="auto" if os.environ.get("RAY_ADDRESS") else "local",
        num_cpus=num_workers or 1,
        remedy=REMEDY,
    )
    try:
        yield
    finally:
        stop_ray()
