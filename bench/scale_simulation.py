"""What a run's bookkeeping takes at a million to a hundred million videos and 1,000 workers.

The library's own code on synthetic rows, each size in a process of its own: no video is opened, and
no Ray started but with --with-ray. Memory is what the process holds after each part, and its peak.

    python bench/scale_simulation.py --rows 1000000,10000000
    python bench/scale_simulation.py --rows 100000000 --folder /big/disk   # about 40 GiB of memory
"""

import gc
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import typer
from scale_rows import write_synthetic_manifest

from lssl_ray.tracking.journal import Journal, read_rows
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest, load_manifest
from lssl_ray.video.offenders import count_offences
from lssl_ray.video.order import RunPlan, compute_share

MIB = 2**20
HELD_BACK = 1000
Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """One part's cost.

    Attributes:
        name: What was done.
        seconds: Wall time.
        cpu_seconds: Of all cores together: what counts where other work runs beside it.
        kept_mib: Resident memory afterwards, less that before.
        peak_mib: Largest resident memory during it, less that before.
        note: A figure of its own.
    """

    name: str
    seconds: float
    cpu_seconds: float
    kept_mib: float
    peak_mib: float
    note: str = ""


def measure_part(name: str, run: Callable[[], Result], *, note: str = "") -> tuple[Part, Result]:
    """Run one part and see what it takes; Linux only."""
    before = _read_resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    started, cpu_started = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = _read_status("VmHWM") - before
    kept = _read_resident_mib() - before
    return Part(name, seconds, cpu_seconds, kept, peak, note), result


def measure_manifest(path: Path) -> tuple[list[Part], Manifest]:
    """Load, select, identify and hand over a manifest as a run does."""
    load, manifest = measure_part("load_manifest", lambda: load_manifest(str(path)))
    rows = len(manifest)
    parts = [
        Part(**vars(load) | {"note": f"{manifest.table.nbytes / rows:.0f} bytes per row in Arrow"}),
    ]
    bad, _ = measure_part("bad().records()", lambda: len(manifest.bad().records()))
    select, usable = measure_part("usable()", manifest.usable)
    digest, _ = measure_part("digest()", usable.digest)
    hold, _ = measure_part(
        f"split_held_back({HELD_BACK})", lambda: split_held_back(usable, num_held_back=HELD_BACK)
    )
    hand, sizes = measure_part("serialise for decoders", lambda: measure_pickled(usable))
    note = f"{sizes[0]} bytes copied per process, {sizes[1] / MIB:.0f} MiB shared per node"
    parts += [bad, select, digest, hold, Part(**vars(hand) | {"note": note})]
    return parts, usable


def measure_pickled(manifest: Manifest) -> tuple[int, int]:
    """Bytes inside the pickle, and bytes beside it, which readers of a Ray node map, not copy."""
    buffers: list[pickle.PickleBuffer] = []
    inside = pickle.dumps(manifest, protocol=5, buffer_callback=buffers.append)
    return len(inside), sum(buffer.raw().nbytes for buffer in buffers)


def measure_order(num_videos: int, num_workers: int, clips_per_worker: int) -> list[Part]:
    """An epoch's order where a decoder asks for it, and one step of all workers."""
    plan = RunPlan(num_videos=num_videos, num_positions=20 * num_videos, seed=0)
    first, _ = measure_part("first block of an epoch", lambda: plan.compute_visits(0, 8))
    blocks = 200
    later, _ = measure_part(
        f"{blocks} further blocks",
        lambda: [plan.compute_visits(8 * block, 8 * block + 8) for block in range(blocks)],
    )
    step, _ = measure_part(
        f"one step of {num_workers} workers",
        lambda: check_split(plan, num_workers=num_workers, clips_per_worker=clips_per_worker),
        note=f"{num_workers * clips_per_worker} clips, each position once",
    )
    return [first, later, step]


def check_split(plan: RunPlan, *, num_workers: int, clips_per_worker: int) -> None:
    """Deal one step to all workers and require that every position is dealt once.

    Raises:
        RuntimeError: It is not.
    """
    clips_per_step = num_workers * clips_per_worker
    positions = []
    for rank in range(num_workers):
        share = compute_share(clips_per_step, rank=rank, num_workers=num_workers)
        positions += [visit.position for visit in plan.compute_visits(share.start, share.stop)]
    if positions != list(range(min(plan.num_positions, clips_per_step))):
        raise RuntimeError("Some positions were dealt twice, or not at all.")


def measure_journal(num_rows: int) -> list[Part]:
    """What the desk does with failures of many workers: append each, read all at a segment."""
    row = {
        "video_id": "class_1/video_000000001.mp4",
        "path": "/shared/videos/collection/class_1/video_000000001.mp4",
        "reason": "decoder_crashed",
        "detail": "killed by SIGSEGV",
        "seconds": 0.1,
        "epoch": 0,
        "position": 1,
        "tried": True,
        "step": 1,
        "stage": "train",
    }
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))

        def append() -> None:
            for number in range(num_rows):
                journal.append("quarantine", {**row, "video_id": str(number)})

        written, _ = measure_part(f"append {num_rows} failures", append)
        path = Path(folder) / "quarantine.jsonl"
        read, _ = measure_part("read them at a segment", lambda: count_offences(read_rows(path)))
    return [
        Part(**vars(written) | {"note": f"{num_rows / written.seconds:.0f} rows/s"}),
        Part(**vars(read) | {"note": f"{num_rows / read.seconds:.0f} rows/s"}),
    ]


def measure_units(num_units: int) -> list[Part]:
    """The list of read tasks that Ray Data gets for a segment."""
    from ray import cloudpickle

    from lssl_ray.cluster.data import UnitSource

    part, tasks = measure_part(
        f"read tasks of {num_units} units", lambda: UnitSource(range(num_units)).get_read_tasks(1)
    )
    size = len(cloudpickle.dumps(tasks[0]))
    return [Part(**vars(part) | {"note": f"{size} bytes each when sent"})]


def simulate(num_rows: int, folder: str, num_workers: int, clips_per_worker: int) -> list[Part]:
    """All parts at one size; for a process of its own."""
    path = Path(folder) / f"synthetic_{num_rows}.parquet"
    if not path.exists():
        write_synthetic_manifest(path, num_rows=num_rows)
    parts, usable = measure_manifest(path)
    parts[0] = Part(
        **vars(parts[0])
        | {"note": f"{parts[0].note}, {path.stat().st_size / num_rows:.0f} in the file"}
    )
    num_videos = len(usable)
    del usable
    return parts + measure_order(num_videos, num_workers, clips_per_worker)


def _read_resident_mib() -> float:
    """Resident memory, once Arrow has given back what it only kept for later."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    return _read_status("VmRSS")


def _read_status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}; this bench needs Linux.")


def print_parts(title: str, parts: list[Part]) -> None:
    """A Markdown table."""
    print(f"\n{title}\n\n| part | seconds | of a core | kept, MiB | peak, MiB | |")
    print("|---|--:|--:|--:|--:|---|")
    for part in parts:
        print(
            f"| {part.name} | {part.seconds:.3f} | {part.cpu_seconds:.3f} | {part.kept_mib:.0f} | "
            f"{part.peak_mib:.0f} | {part.note} |",
            flush=True,
        )


def _run_alone(function: Callable[..., list[Part]], *arguments: Any) -> list[Part]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main(
    rows: Annotated[str, typer.Option(help="Comma-separated sizes.")] = "1000000,10000000",
    plan_rows: Annotated[
        int, typer.Option(help="Also order and split so many, without a manifest; 0: don't.")
    ] = 100_000_000,
    workers: Annotated[int, typer.Option(help="Training workers of the simulated step.")] = 1000,
    clips_per_worker: Annotated[int, typer.Option(help="Clips of a worker's step.")] = 8,
    failures: Annotated[int, typer.Option(help="Rows for the journal.")] = 100_000,
    units: Annotated[int, typer.Option(help="Worker-steps of a segment.")] = 10_000,
    with_ray: Annotated[
        bool, typer.Option("--with-ray", help="Also what only a started Ray can tell.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps the manifests; default: a temporary one.")
    ] = None,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = (folder or Path(temporary)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        print(f"Load average before the start: {os.getloadavg()[0]:.1f}")
        for number in (int(size) for size in rows.split(",")):
            parts = _run_alone(simulate, number, str(place), workers, clips_per_worker)
            print_parts(f"{number:,} rows", parts)
        if plan_rows:
            parts = _run_alone(measure_order, plan_rows, workers, clips_per_worker)
            print_parts(f"{plan_rows:,} rows, order and split alone", parts)
        parts = _run_alone(measure_journal, failures) + _run_alone(measure_units, units)
        print_parts("The desk and a segment", parts)
        if with_ray:
            # Imported here, because it starts Ray.
            from scale_ray import describe_ray

            first = place / f"synthetic_{int(rows.split(',')[0])}.parquet"
            manifest = load_manifest(str(first)).usable()
            lines = describe_ray(manifest, num_rows=failures // 10, num_units=units // 5)
            print("\n" + "\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
