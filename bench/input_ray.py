"""The library's Ray pipeline, taken apart: blocks nobody reads, workers that do nothing, training.

The data is what training builds (`build_stream`, `build_segment`, the desk), on a Ray started
as a run starts its own. Bench code names Ray directly because it looks at parts that a run hides.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
import torch
from input_memory import MIB, sample_cpu_seconds, sample_roles
from input_paths import Pass, time_arrivals
from input_setting import Setting, build_config
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from lssl_ray import build
from lssl_ray.cluster.data import ClipStream, build_segment
from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.session import start_ray, stop_ray
from lssl_ray.cluster.train import build_stream, iterate_blocks, train_on_ray
from lssl_ray.config import RunConfig
from lssl_ray.engine import TrainJob
from lssl_ray.tracking.journal import METRICS_FILE, read_rows
from lssl_ray.types import Progress
from lssl_ray.video.ahead import iterate_on_device
from lssl_ray.video.manifest import Manifest, load_manifest

MEMORY_EVERY_SECONDS = 0.5
END_SECONDS = 60.0
PIPELINE_ROLES = frozenset(
    ("decode actor", "decode child", "split coordinator", "training worker", "run desk")
)


@contextmanager
def connect_ray(setting: Setting) -> Iterator[float]:
    """A Ray of our own for a setting; gives the seconds that its start took."""
    started = time.monotonic()
    start_ray(build_config(setting))
    try:
        yield time.monotonic() - started
    finally:
        stop_ray()


def load_stream(config: RunConfig) -> tuple[ClipStream, Manifest]:
    """A training session's clips from its first step, and its usable videos."""
    manifest = load_manifest(config.data.manifest).usable()
    stream = build_stream(
        config,
        Progress(),
        num_videos=len(manifest),
        num_workers=config.cluster.most_workers,
    )
    return stream, manifest


def await_end() -> None:
    """Until this way's processes are gone: their ending takes seconds of what is measured next."""
    limit = time.monotonic() + END_SECONDS
    while not PIPELINE_ROLES.isdisjoint(sample_cpu_seconds()):
        if time.monotonic() > limit:
            raise SystemExit(f"Processes of a pass did not end within {END_SECONDS:g} s.")
        time.sleep(MEMORY_EVERY_SECONDS)


class BlockStream:
    """Decode actors and Ray Data's scheduling; blocks are dropped where they lie."""

    name = "ours on Ray, no consumer"

    def __init__(self, setting: Setting, *, preserve_order: bool = True) -> None:
        self._setting = setting
        self._preserve_order = preserve_order

    def run(self) -> Pass:
        """One pass, actors and all."""
        started, setting = time.monotonic(), self._setting
        stream, manifest = load_stream(build_config(setting))
        units = _iterate_units(stream, ray.put(manifest), preserve_order=self._preserve_order)
        done = time_arrivals(units, started=started, clips=_mean_share(stream))
        await_end()
        return done

    def close(self) -> None:
        """Nothing is held between passes."""


def _mean_share(stream: ClipStream) -> float:
    """Clips of a worker's batch: shares differ by one, and blocks are as long as the largest."""
    return stream.clips_per_step / stream.num_workers


def _iterate_units(
    stream: ClipStream, manifest: "ray.ObjectRef[Manifest]", *, preserve_order: bool
) -> Iterator[None]:
    """One item for each unit's worth of rows, whatever Ray Data bundles."""
    rows = 0
    for segment in range(stream.num_segments):
        dataset = build_segment(stream, segment, manifest, labels={}, offences={})
        dataset.context.execution_options.preserve_order = preserve_order
        for bundle in dataset.iter_internal_ref_bundles():
            rows += bundle.num_rows() or 0
            while rows >= stream.clips_per_worker:
                rows -= stream.clips_per_worker
                yield None


@ray.remote(num_cpus=1, max_concurrency=2)
class NoOpWorker:
    """A training worker whose step does nothing; its batches come as a real one's do."""

    def __init__(self) -> None:
        self._num_clips = 0
        self._stopping = False

    def consume(self, stream: ClipStream, *, rank: int, desk: Any) -> list[float]:
        """Take batches until there are no more, or `stop`; returns when each came."""
        torch.set_num_threads(1)
        arrivals = []
        blocks = iterate_blocks(stream, rank=rank, desk=desk)
        for batch in iterate_on_device(blocks, device=torch.device("cpu")):
            arrivals.append(time.monotonic())
            self._num_clips += batch.num_clips
            if self._stopping:
                break
        return arrivals

    def count_clips(self) -> int:
        """Clips so far; answers while `consume` runs."""
        return self._num_clips

    def stop(self) -> None:
        """End `consume` after its next batch."""
        self._stopping = True


@dataclass(frozen=True)
class WorkerGroup:
    """No-op workers at work.

    Attributes:
        stream: What they consume.
        desk: Opens their shares of it.
        workers: The actors.
        arrivals: What each will return: when its batches came.
    """

    stream: ClipStream
    desk: Any
    workers: tuple[Any, ...]
    arrivals: tuple[Any, ...]

    def close(self) -> None:
        """End the workers and the desk."""
        for actor in (*self.workers, self.desk):
            ray.kill(actor)


def start_workers(config: RunConfig) -> WorkerGroup:
    """Let workers consume a session's data by the iterator that training uses."""
    stream, manifest = load_stream(config)
    folder = Path(config.run.folder) / "desk"
    folder.mkdir(parents=True, exist_ok=True)
    desk = open_desk(folder, manifest, decode_labels={})
    ray.get(desk.begin_session.remote(0))
    workers = tuple(NoOpWorker.remote() for _ in range(stream.num_workers))
    arrivals = tuple(
        worker.consume.remote(stream, rank=rank, desk=desk) for rank, worker in enumerate(workers)
    )
    return WorkerGroup(stream, desk, workers, arrivals)


class WorkerStream:
    """The whole way to training workers: split, fetched, unpacked to tensors, and dropped."""

    name = "ours on Ray, workers with a no-op step"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def run(self) -> Pass:
        """One pass, actors and all; batches of all workers in one row."""
        started, setting = time.monotonic(), self._setting
        group = start_workers(build_config(setting))
        arrivals = sorted(moment for moments in ray.get(list(group.arrivals)) for moment in moments)
        group.close()
        await_end()
        return Pass(started, tuple(arrivals), _mean_share(group.stream))

    def close(self) -> None:
        """Nothing is held between passes."""


def run_training(setting: Setting, *, num_steps: int) -> dict[str, float]:
    """A real session on the smallest CLIP: rate and data-wait share after its first fifth."""
    config = build_config(
        setting,
        run={"name": "training", "log_every": max(1, num_steps // 5)},
        optim={"max_steps": num_steps},
    )
    run_folder = Path(config.run.folder) / config.run.name
    shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True)
    job = TrainJob(
        config=config,
        run_folder=run_folder,
        manifest=load_manifest(config.data.manifest).usable(),
        space=build.build_space(config, build.build_clip(config)),
    )
    started = time.monotonic()
    progress = train_on_ray(job)
    wall_seconds = time.monotonic() - started
    rows = list(read_rows(run_folder / METRICS_FILE))
    seconds = [
        now["time/train_seconds"] - before["time/train_seconds"] for before, now in pairwise(rows)
    ]
    if not seconds:
        raise SystemExit("Training wrote a single row of metrics; raise --train-steps.")
    waited = sum(s * row["data/wait_share"] for s, row in zip(seconds, rows[1:], strict=True))
    clips = rows[-1]["data/clips_trained"] - rows[0]["data/clips_trained"]
    return {
        "clips_per_second": clips / sum(seconds),
        "wait_share": waited / sum(seconds),
        "outside_loop_seconds": wall_seconds - progress.train_seconds,
    }


@dataclass(frozen=True)
class ObjectStore:
    """The object store of the connected Ray, MiB: now in use, and spilled since its start."""

    used: float
    spilled: float


def read_object_store() -> ObjectStore:
    """Ask the node's Ray; about a millisecond."""
    # Ray has no public call for it without its dashboard; Ray Data's own statistics use this one.
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stats = get_memory_info_reply(state).store_stats
    return ObjectStore(stats.object_store_bytes_used / MIB, stats.spilled_bytes_total / MIB)


class MemoryWatch:
    """Samples this run's processes in a thread while something else goes on; use with `with`.

    Attributes:
        peaks: Largest anonymous memory by role, MiB, summed over the role's processes.
        store: Largest use of the object store, and what was spilled.
        num_samples: Samples that these are made of.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.store = ObjectStore(0.0, 0.0)
        self.num_samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        """Starts."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_EVERY_SECONDS):
            for memory in sample_roles():
                self.peaks[memory.role] = max(self.peaks.get(memory.role, 0.0), memory.anonymous)
            store = read_object_store()
            self.store = ObjectStore(max(self.store.used, store.used), store.spilled)
            self.num_samples += 1
