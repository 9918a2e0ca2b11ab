"""Does memory stay flat? The Ray pipeline at full speed for a long time, every process watched.

    python bench/soak.py                            # 20 minutes; CSV, picture, verdict in runs/soak
    python bench/soak.py --minutes 2 --videos 8     # does it work

Decode actors with recycled children feed a training worker whose step does nothing; views are few
and small and key frames frequent, so that many clips pass. Every ten seconds the memory of every
process is summed by role: driver, raylet, gcs, split coordinator, decode actors, decode children,
training worker, Ray's other processes; and the object store's use. Time counts from the first
batch.

`soak_trend.py` states the rule by which a role is called flat, or growing. Ray's object store is
judged by the same rule and must not spill. The exit status is 0 only if all is flat.
"""

import csv
import io
import math
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import ray
import typer
from input_files import VideoKind, prepare_videos
from input_memory import RoleMemory, sample_roles
from input_ray import connect_ray, read_object_store, start_workers
from input_report import ResultTable, format_markdown, write_json
from input_setting import Setting, build_config, count_cores, describe_machine
from rich.console import Console
from soak_trend import WARM_UP_SHARE, Sample, Trend, compute_trend

STORE, SPILLED = "object store", "spilled"
MAX_CLIPS_PER_SECOND_AND_CORE = 150  # only bounds the length of the stream; it is cut by time


def run_soak(
    setting: Setting,
    *,
    segment_units: int,
    seconds: float,
    every_seconds: float,
    out: Path,
    console: Console,
) -> list[Sample]:
    """Run the pipeline, sample its processes, and keep the CSV up to date."""
    samples: list[Sample] = []
    with connect_ray(setting):
        group = start_workers(build_config(setting, cluster={"segment_units": segment_units}))
        (worker,) = group.workers
        while not ray.get(worker.count_clips.remote()):
            if ray.wait(list(group.arrivals), timeout=1.0)[0]:
                raise SystemExit(f"No clip came: {ray.get(list(group.arrivals))}.")
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            timeout = min(every_seconds, seconds - passed)
            ended, _ = ray.wait(list(group.arrivals), timeout=timeout)
            if ended:
                raise SystemExit(f"The stream ended early: {len(ray.get(ended[0]))} batches.")
            samples += _take_samples(worker, started)
            write_csv(out / "soak.csv", samples)
            console.print(f"{samples[-1].seconds:.0f} s, {samples[-1].clips} clips")
        worker.stop.remote()
        ray.get(list(group.arrivals))
    return samples


def _take_samples(worker: Any, started: float) -> list[Sample]:
    clips = ray.get(worker.count_clips.remote())
    seconds = time.monotonic() - started
    store = read_object_store()
    figures = [
        *sample_roles(),
        RoleMemory(SPILLED, 0, *[store.spilled] * 3),
        RoleMemory(STORE, 0, *[store.used] * 3),
    ]
    return [Sample(seconds, clips, memory) for memory in figures]


def write_csv(path: Path, samples: list[Sample]) -> None:
    """All samples, under a temporary name first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["seconds", "clips", "role", "processes", "rss_mib", "uss_mib", "anonymous_mib"]
    )
    for sample in samples:
        memory = sample.memory
        figures = (f"{value:.2f}" for value in (memory.rss, memory.uss, memory.anonymous))
        row = [f"{sample.seconds:.1f}", sample.clips, memory.role, memory.num_processes, *figures]
        writer.writerow(row)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    staging.write_text(text.getvalue(), encoding="utf-8")
    os.replace(staging, path)


def draw_memory(path: Path, roles: dict[str, list[Sample]], *, seconds: float) -> None:
    """A line per role over time, the warm-up shaded."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for role, samples in roles.items():
        minutes = [sample.seconds / 60 for sample in samples]
        axes.plot(minutes, [sample.memory.anonymous for sample in samples], label=role)
    axes.axvspan(0, WARM_UP_SHARE * seconds / 60, color="0.92", label="warm-up, not judged")
    axes.set(xlabel="minutes", ylabel="anonymous memory, MiB", yscale="log")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def tabulate(trends: list[Trend], samples: list[Sample], *, recycle_after: int) -> ResultTable:
    """The verdicts as a table."""
    last = samples[-1]
    return ResultTable(
        title="Memory over a long run",
        columns=(
            "role", "processes", "median, MiB", "MiB per 1,000 clips (95 %)",
            "growth after the warm-up, MiB", "verdict",
        ),
        rows=tuple(_format_trend(trend) for trend in trends),
        note=f"{last.seconds / 60:.1f} minutes, {last.clips} clips "
        f"({last.clips / last.seconds:.1f} a second), decode children replaced after "
        f"{recycle_after} videos; anonymous memory, summed over a role's processes.",
        values={trend.role: [trend.slope, trend.low, trend.high, trend.growth] for trend in trends},
    )  # fmt: skip


def _format_trend(trend: Trend) -> tuple[str, ...]:
    processes = str(trend.num_processes or "")
    if math.isnan(trend.slope):
        return trend.role, processes, "", "", "", trend.verdict
    slope = f"{trend.slope:+.3f} ({trend.low:+.3f} to {trend.high:+.3f})"
    return (
        trend.role, processes, f"{trend.median:.1f}", slope, f"{trend.growth:+.1f}", trend.verdict,
    )  # fmt: skip


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 20.0,
    folder: Annotated[Path, typer.Option(help="Where videos are encoded.")] = Path(
        "runs/input_bench"
    ),
    videos: Annotated[int, typer.Option(help="How many videos to encode.")] = 64,
    clips_per_batch: Annotated[int, typer.Option(help="Clips of one batch.")] = 32,
    decoders: Annotated[int, typer.Option(help="Decode actors; 0: one per core.")] = 0,
    recycle_after: Annotated[int, typer.Option(help="Videos of a decode child.")] = 500,
    segment_units: Annotated[
        int, typer.Option(help="Batches after which the pipeline starts anew.")
    ] = 400,
    every_seconds: Annotated[float, typer.Option(help="Between two samples.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder of CSV, picture and JSON.")] = Path("runs/soak"),
) -> None:
    machine, console, seconds = describe_machine(), Console(stderr=True), 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    kind = VideoKind(seconds=10, gop=30)
    folder = folder.absolute()
    manifest = prepare_videos(folder, num_videos=videos, kind=kind, num_workers=count_cores())
    num_decoders = decoders or count_cores()
    most_clips = seconds * MAX_CLIPS_PER_SECOND_AND_CORE * num_decoders
    setting = Setting(
        manifest=manifest,
        folder=folder,
        recipe="soak",
        clips_per_batch=clips_per_batch,
        num_batches=int(most_clips // clips_per_batch) + 1,
        num_decoders=num_decoders,
        recycle_after=recycle_after,
    )
    samples = run_soak(
        setting,
        segment_units=segment_units,
        seconds=seconds,
        every_seconds=every_seconds,
        out=out,
        console=console,
    )
    roles: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        roles[sample.memory.role].append(sample)
    spilled = max(sample.memory.anonymous for sample in roles.pop(SPILLED))
    trends = [compute_trend(role, each, seconds=seconds) for role, each in roles.items()]
    draw_memory(out / "soak.png", roles, seconds=seconds)
    table = tabulate(trends, samples, recycle_after=recycle_after)
    print(f"{format_markdown(table, machine)}\n\nSpilled: {spilled:.0f} MiB.")
    write_json(out / "soak.json", [table], machine)
    flat = spilled == 0 and all(trend.verdict == "flat" for trend in trends)
    raise typer.Exit(0 if flat else 1)


if __name__ == "__main__":
    typer.run(main)
