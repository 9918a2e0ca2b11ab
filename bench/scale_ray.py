"""What `scale_simulation.py --with-ray` asks of a real Ray on this machine.

Whether processes of a node share one copy of the manifest, how many rows per second the run's desk
takes, and how many blocks per second one coordinator deals. Nothing is decoded.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, cast

import ray
from driver_memory import build_stream

from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.session import connect_ray, stop_ray
from lssl_ray.cluster.train import iterate_blocks
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest

MIB = 2**20
ROWS_IN_FLIGHT = 1000  # as many workers, each with a row on its way


@ray.remote(num_cpus=0)
class Reader:
    """Opens a manifest as a decode actor does."""

    def measure(self, manifest: "list[ray.ObjectRef[Manifest]]") -> tuple[float, float]:
        """Seconds to open it, and MiB of memory that this process then has for itself."""
        before = read_own_mib()
        started = time.perf_counter()
        opened = ray.get(manifest[0])
        opened.row(len(opened) - 1)
        return time.perf_counter() - started, read_own_mib() - before


def read_own_mib() -> float:
    """Anonymous memory of this process: what no file and no shared object backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure_sharing(manifest: Manifest, *, num_readers: int) -> list[tuple[float, float]]:
    """Seconds and own MiB of each reader."""
    box = [ray.put(manifest)]
    readers = [cast(Any, Reader).remote() for _ in range(num_readers)]
    return [ray.get(reader.measure.remote(box)) for reader in readers]


def measure_desk(num_rows: int) -> float:
    """Rows per second that a run's desk files, with a thousand always on their way."""
    row = {"video_id": "a", "path": "/a", "reason": "missing", "step": 1, "stage": "train"}
    with tempfile.TemporaryDirectory() as folder:
        desk = open_desk(
            Path(folder), build_manifest([_build_record()], root="/"), decode_labels={}
        )
        ray.get(desk.append.remote("quarantine", row))
        started = time.perf_counter()
        waiting: list[Any] = []
        for _ in range(num_rows):
            if len(waiting) == ROWS_IN_FLIGHT:
                _, waiting = ray.wait(waiting, num_returns=ROWS_IN_FLIGHT // 2)
            waiting.append(desk.append.remote("quarantine", row))
        ray.get(waiting)
        return num_rows / (time.perf_counter() - started)


def measure_blocks(num_units: int) -> float:
    """Blocks per second from source through decode actor and split to one worker."""
    stream = build_stream(num_units, num_units, 1)
    with tempfile.TemporaryDirectory() as folder:
        desk = open_desk(
            Path(folder), build_manifest([_build_record()], root="/"), decode_labels={}
        )
        times = [time.perf_counter() for _ in iterate_blocks(stream, rank=0, desk=desk)]
    settled = times[len(times) // 4 :]
    return (len(settled) - 1) / (settled[-1] - settled[0])


def describe_ray(manifest: Manifest, *, num_rows: int, num_units: int) -> list[str]:
    """All three, in lines."""
    connect_ray(address="local", num_cpus=4, memory_bytes=2**34, remedy="run it without --with-ray")
    try:
        shared = measure_sharing(manifest, num_readers=2)
        lines = [
            f"Reader {number}: the manifest ({manifest.table.nbytes / MIB:.0f} MiB) opened in "
            f"{seconds:.2f} s, {own:.1f} MiB of its own"
            for number, (seconds, own) in enumerate(shared)
        ]
        lines.append(f"Desk: {measure_desk(num_rows):.0f} rows/s")
        lines.append(f"Coordinator: {measure_blocks(num_units):.0f} blocks/s to one worker")
    finally:
        stop_ray()
    return lines


def _build_record() -> VideoRecord:
    return VideoRecord(
        "none", "/nowhere.mp4", None, None, "ok", None, None, 8, 8.0, 1.0, 64, 64, "", 0,
        "decord", 0, 0,
    )  # fmt: skip
