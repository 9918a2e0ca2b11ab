"""The further tables of `input.py` that are no rates: memory by manifest rows, processor time.

Both look at the way to a worker with a no-op step, on a Ray of their own.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import ray
import torch
from input_files import repeat_rows
from input_memory import sample_cpu_seconds
from input_paths import BareDecoder, Pass, Work
from input_ray import MemoryWatch, WorkerGroup, connect_ray, start_workers
from input_report import ResultTable
from input_setting import Setting, build_config, build_work
from input_tables import compute_rates

from lssl_ray.video.manifest import load_manifest, save_manifest

POLL_SECONDS = 0.2
KEPT = 10**9


def measure_rows(
    setting: Setting, *, counts: Sequence[int], report: Callable[[str], None]
) -> ResultTable:
    """Datasets of few and of many manifest rows: memory and rate of their first clips."""
    rows: list[tuple[str, ...]] = []
    values = {}
    columns: tuple[str, ...] = ()
    for count in counts:
        report(f"{count} manifest rows")
        # Made here: what making it leaves in memory is not the pipeline's.
        manifest = repeat_rows(load_manifest(str(setting.manifest)).usable(), num_rows=count)
        path = setting.folder / f"rows_{count}.parquet"
        save_manifest(manifest, str(path))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            own = replace(setting, manifest=path)
            figures = pool.submit(_measure_epoch, own, num_rows=count).result()
        values[f"{count} rows"] = list(figures.values())
        rows.append((str(count), *(f"{figure:.1f}" for figure in figures.values())))
        columns = tuple(figures)
    return ResultTable(
        title="Growth with the manifest",
        columns=("manifest rows", *columns),
        rows=tuple(rows),
        note="The dataset is one epoch, or as many as a pass needs, and only a pass's clips are "
        "consumed; memory is the largest of samples twice a second, anonymous pages only; "
        f"{setting.clips_per_batch} clips per step; each row with processes and a Ray of its own.",
        values=values,
    )


def _measure_epoch(setting: Setting, *, num_rows: int) -> dict[str, float]:
    num_clips = setting.num_batches * setting.clips_per_batch
    epochs = -(-num_clips // num_rows)
    config = build_config(setting, optim={"max_steps": None, "epochs": epochs})
    with connect_ray(setting), MemoryWatch() as watch:
        started = time.monotonic()
        group = start_workers(config)
        _wait_for_clips(group, num_clips)
        group.workers[0].stop.remote()
        done = Pass(started, tuple(ray.get(group.arrivals[0])), setting.clips_per_batch)
    return {
        "driver, MiB": watch.peaks["driver"],
        "split coordinator, MiB": watch.peaks.get("split coordinator", 0.0),
        "raylet and gcs, MiB": watch.peaks["raylet"] + watch.peaks["gcs"],
        "object store, MiB": watch.store.used,
        "spilled, MiB": watch.store.spilled,
        "first batch, s": done.first_batch_seconds,
        "clips/s": compute_rates([done], setting)[0],
    }


def measure_cpu(setting: Setting) -> ResultTable:
    """Processor time per clip by role of the process, beside that of the bare loop."""
    # Time is read from processes that live: a child that ended in between would take its own along.
    setting = replace(setting, recycle_after=KEPT)
    num_clips = setting.num_batches * setting.clips_per_batch
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        bare = 1000 * pool.submit(_time_bare_cpu, build_work(setting), num_clips).result()
    with connect_ray(setting):
        group = start_workers(build_config(setting, optim={"max_steps": None}))
        _wait_for_clips(group, 4 * setting.num_decoders * setting.clips_per_batch)
        (worker,) = group.workers
        first, before, started = _count(worker), sample_cpu_seconds(), time.monotonic()
        _wait_for_clips(group, first + num_clips)
        last, after, seconds = _count(worker), sample_cpu_seconds(), time.monotonic() - started
        group.close()
    used = {role: 1000 * (after[role] - before.get(role, 0.0)) for role in after}
    used = dict(sorted(used.items(), key=lambda item: -item[1]))
    clips = last - first
    rows = [
        (role, f"{spent / clips:.1f}", f"{spent / seconds:.0f}") for role, spent in used.items()
    ]
    total = sum(used.values())
    rows.append(("all of them", f"{total / clips:.1f}", f"{total / seconds:.0f}"))
    return ResultTable(
        title="Where the processors' time goes",
        columns=("process", "ms per clip", "ms per second"),
        rows=(("bare decoder loop (the limit)", f"{bare:.1f}", ""), *rows),
        note=f"{clips} clips in {seconds:.0f} s to one worker with a no-op step; time of "
        "processors, not of the clock, so other work on the machine matters little; no decode "
        "child is replaced meanwhile.",
        values={role: [spent / clips, spent / seconds] for role, spent in used.items()}
        | {"bare": [bare]},
    )


def _time_bare_cpu(work: Work, num_clips: int) -> float:
    torch.set_num_threads(1)
    bare = BareDecoder(work)
    bare.decode(bare.visit(0))
    started = time.process_time()
    for position in range(num_clips):
        bare.decode(bare.visit(position))
    return (time.process_time() - started) / num_clips


def _wait_for_clips(group: WorkerGroup, num_clips: int) -> None:
    ended: list[Any] = []
    while not ended and _count(group.workers[0]) < num_clips:
        ended, _ = ray.wait(list(group.arrivals), timeout=POLL_SECONDS)


def _count(worker: Any) -> int:
    return int(ray.get(worker.count_clips.remote()))
