"""The further tables of `input.py` that are no rates: memory by manifest rows, processor time.

Both look at the way to a worker with a no-op step, on a Ray of their own.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import psutil
import ray
import torch
from input_files import repeat_rows
from input_memory import sample_cpu_seconds
from input_paths import BareDecoder, BareLoop, Pass, TorchLoader
from input_ray import MemoryWatch, WorkerGroup, connect_ray, start_workers
from input_report import ResultTable, format_spread
from input_setting import Setting, build_config, build_work
from input_tables import compute_rates

from lssl_ray.video.manifest import load_manifest, save_manifest

POLL_SECONDS = 0.2
KEPT = 10**9
# The others take their time by the second.
BY_THE_CLIP = ("decode child", "decode actor", "training worker")


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


def measure_cpu(setting: Setting, *, passes: int, report: Callable[[str], None]) -> ResultTable:
    """Processor time per clip: ours by role of the process, beside the peers' all in all."""
    # Time is read from processes that live: a child that ended in between would take its own along.
    setting = replace(setting, recycle_after=KEPT)
    peers: dict[str, list[float]] = {BareLoop.name: [], TorchLoader.name: []}
    ours: list[dict[str, tuple[float, float]]] = []
    with connect_ray(setting):
        for number in range(passes):
            report(f"pass {number + 1} of {passes}")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peers[BareLoop.name].append(pool.submit(_time_bare, setting).result())
                peers[TorchLoader.name].append(pool.submit(_time_loader, setting).result())
            ours.append(_time_roles(setting))
    roles = {
        role: tuple(statistics.median(column) for column in zip(*values, strict=True))
        for role in ours[0]
        if (values := [one[role] for one in ours if role in one])
    }
    rows = [(name, format_spread(values), "") for name, values in peers.items()]
    for role, (per_clip, per_second) in sorted(roles.items(), key=lambda item: -item[1][0]):
        rows.append((f"ours: {role}", f"{per_clip:.1f}", f"{per_second:.0f}"))
    sums = {
        "ours, what grows with the clips": [
            sum(one[role][0] for role in BY_THE_CLIP) for one in ours
        ],
        "ours, all of it": [sum(per_clip for per_clip, _ in one.values()) for one in ours],
    }
    rows += [(name, format_spread(values), "") for name, values in sums.items()]
    return ResultTable(
        title="Where the processors' time goes",
        columns=("process", "ms per clip", "ms per second"),
        rows=tuple(rows),
        note=f"{setting.num_batches * setting.clips_per_batch} clips of each way in turns, "
        f"{passes} passes, medians, ranges in brackets; ours to one worker with a no-op step. Time "
        f"of processors, not of the clock; no decode child is replaced meanwhile. What grows with "
        f"the clips: {', '.join(BY_THE_CLIP)}.",
        values=peers | sums | {role: list(figures) for role, figures in roles.items()},
    )


def _time_bare(setting: Setting) -> float:
    torch.set_num_threads(1)
    bare = BareDecoder(build_work(setting))
    bare.decode(bare.visit(0))
    num_clips = setting.num_batches * setting.clips_per_batch
    started = time.process_time()
    for position in range(num_clips):
        bare.decode(bare.visit(position))
    return 1000 * (time.process_time() - started) / num_clips


def _time_loader(setting: Setting) -> float:
    """Of the loader's workers and the process that takes its batches, while all workers work."""
    torch.set_num_threads(1)
    edge = 2 * setting.num_decoders
    loader = TorchLoader(build_work(replace(setting, num_batches=setting.num_batches + 2 * edge)))
    moments = [
        _sum_cpu_seconds()
        for number, _ in enumerate(loader.iterate(), start=1)
        if number in (edge, edge + setting.num_batches)
    ]
    loader.close()
    return 1000 * (moments[1] - moments[0]) / (setting.num_batches * setting.clips_per_batch)


def _sum_cpu_seconds() -> float:
    """Processor time of this process and its children so far."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children())]
    return sum(each.user + each.system for each in times)


def _time_roles(setting: Setting) -> dict[str, tuple[float, float]]:
    """Role to ms per clip and ms per second, once warm."""
    num_clips = setting.num_batches * setting.clips_per_batch
    group = start_workers(build_config(setting, optim={"max_steps": None}))
    _wait_for_clips(group, 4 * setting.num_decoders * setting.clips_per_batch)
    (worker,) = group.workers
    first, before, started = _count(worker), sample_cpu_seconds(), time.monotonic()
    _wait_for_clips(group, first + num_clips)
    last, after, seconds = _count(worker), sample_cpu_seconds(), time.monotonic() - started
    group.close()
    used = {role: 1000 * (after[role] - before.get(role, 0.0)) for role in after}
    return {role: (spent / (last - first), spent / seconds) for role, spent in used.items()}


def _wait_for_clips(group: WorkerGroup, num_clips: int) -> None:
    ended: list[Any] = []
    while not ended and _count(group.workers[0]) < num_clips:
        ended, _ = ray.wait(list(group.arrivals), timeout=POLL_SECONDS)


def _count(worker: Any) -> int:
    return int(ray.get(worker.count_clips.remote()))
