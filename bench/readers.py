"""What the readers cost: clips a second on one core by decord, torchcodec and PyAV.

    python bench/readers.py                             # videos that the script encodes
    python bench/readers.py --videos DIR --files 20     # one's own

A clip is one open, the frames of one pattern, one close, in the decode process that training uses;
both processes are pinned to the same core. Every reader gets the same indices of the same files, in
turns, after one warm-up pass that also checks that they give the same frames. Prints one markdown
table of medians over passes. torchcodec takes part where it is installed.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from input_files import VideoKind, encode_video
from input_setting import describe_machine
from rich.console import Console
from rich.progress import track

from lssl_ray.video.index import find_videos
from lssl_ray.video.isolation import (
    DecodeError,
    DecodeProcess,
    DecoderUnavailableError,
    VideoProbe,
)
from lssl_ray.video.readers import ReaderName

READERS: tuple[ReaderName, ...] = ("decord", "torchcodec", "pyav")
PACKAGES: Mapping[ReaderName, str] = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
SAME_FRAME = 8.0  # mean difference, of 256 levels: coarse; the tests prove indices frame by frame
KINDS = (VideoKind(seconds=10, gop=250), VideoKind(seconds=10, gop=12))

Pattern = Callable[[VideoProbe, np.random.Generator], list[int]]
Processes = Mapping[ReaderName, DecodeProcess]


@dataclass(frozen=True)
class Request:
    """One clip of a file: the indices that every reader is asked for."""

    path: str
    indices: list[int]


def draw_whole(probe: VideoProbe, rng: np.random.Generator) -> list[int]:
    """8 frames spread over the whole video."""
    return np.linspace(0, probe.num_frames - 1, 8).astype(int).tolist()


def draw_window(probe: VideoProbe, rng: np.random.Generator) -> list[int]:
    """16 frames in a window of 2 s that starts anywhere."""
    length = min(probe.num_frames, max(16, round(2.0 * probe.fps)))
    start = int(rng.integers(probe.num_frames - length + 1))
    return np.linspace(start, start + length - 1, 16).astype(int).tolist()


def draw_dense(probe: VideoProbe, rng: np.random.Generator) -> list[int]:
    """64 frames in a row from anywhere."""
    length = min(probe.num_frames, 64)
    start = int(rng.integers(probe.num_frames - length + 1))
    return list(range(start, start + length))


def draw_first(probe: VideoProbe, rng: np.random.Generator) -> list[int]:
    """The first frame."""
    return [0]


PATTERNS: Mapping[str, Pattern] = {
    "8 frames over the whole video": draw_whole,
    "16 frames in 2 s": draw_window,
    "64 frames in a row": draw_dense,
    "first frame": draw_first,
}


def main(
    videos: Annotated[Path | None, typer.Option(help="One's own videos, instead.")] = None,
    files: Annotated[int, typer.Option(help="Videos of each kind.")] = 4,
    clips: Annotated[int, typer.Option(help="Clips per video, pattern and pass.")] = 3,
    passes: Annotated[int, typer.Option(help="Timed passes.")] = 5,
    short_side: Annotated[int, typer.Option(help="Reduce to, px; 0: full size.")] = 0,
    seed: Annotated[int, typer.Option(help="Of windows and order.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where videos are encoded.")] = Path(
        "runs/reader_bench"
    ),
) -> None:
    console = Console()
    machine = describe_machine()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # decode processes inherit it
    sets = {"own": list_videos(videos, files)} if videos else encode_videos(folder, files)
    with ExitStack() as stack:
        processes = start_readers(stack, short_side or None, Path(next(iter(sets.values()))[0]))
        rates: dict[tuple[str, str], dict[ReaderName, float]] = {}
        for name, paths in sets.items():
            probes = probe_all(processes, paths, console)
            for pattern, draw in PATTERNS.items():
                rng = np.random.default_rng([seed, len(rates)])
                requests = [
                    Request(path, draw(probe, rng)) for path, probe in probes for _ in range(clips)
                ]
                difference = check_same_frames(processes, requests)
                console.print(f"{name}, {pattern}: frames differ by at most {difference:.2f}")
                rates[name, pattern] = measure(processes, requests, passes=passes, rng=rng)
    print_table(console, rates, list(processes), machine)


def list_videos(folder: Path, limit: int) -> list[str]:
    """The first videos of a folder, by name."""
    return [video.path for video in find_videos([str(folder)]).videos][:limit]


def encode_videos(folder: Path, num_files: int) -> dict[str, list[str]]:
    """Encodes what is missing; the paths by kind."""
    sets = {}
    for kind in KINDS:
        place = folder / kind.name
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / f"{number:05d}.mp4" for number in range(num_files)]
        for number, path in enumerate(track(paths, kind.name, transient=True)):
            if not path.exists():
                encode_video(path, seed=number, kind=kind)
        sets[f"GOP {kind.gop}"] = [str(path) for path in paths]
    return sets


def start_readers(stack: ExitStack, short_side: int | None, sample: Path) -> Processes:
    """A decode process for each reader that this machine has."""
    processes: dict[ReaderName, DecodeProcess] = {}
    for reader in READERS:
        process = stack.enter_context(
            DecodeProcess(deadline_seconds=300.0, recycle_after=10**9, short_side=short_side)
        )
        try:
            process.frames(str(sample), [0], reader=reader)
        except DecoderUnavailableError as error:
            Console(stderr=True).print(f"Without {reader}: {error}")
            continue
        processes[reader] = process
    return processes


def probe_all(
    processes: Processes, paths: Sequence[str], console: Console
) -> list[tuple[str, VideoProbe]]:
    """The videos that every reader reads, with the smallest number of frames any finds."""
    probes = []
    for path in paths:
        try:
            found = [process.probe(path, reader=reader) for reader, process in processes.items()]
        except DecodeError as error:
            console.print(f"Left out, because not every reader reads it: {error}")
            continue
        probes.append((path, min(found, key=lambda probe: probe.num_frames)))
    if not probes:
        raise SystemExit("No video that every reader reads; nothing to measure.")
    return probes


def check_same_frames(processes: Processes, requests: Sequence[Request]) -> float:
    """Warms up; the largest mean difference of a frame between two readers, of 256 levels.

    Raises:
        SystemExit: A reader gives other frames than the others: its time would mean nothing.
    """
    largest = 0.0
    for request in requests:
        answers = {
            reader: process.frames(request.path, request.indices, reader=reader).astype(np.int16)
            for reader, process in processes.items()
        }
        first = next(iter(answers.values()))
        for reader, frames in answers.items():
            difference = float(np.abs(frames - first).mean(axis=(1, 2, 3)).max())
            if difference > SAME_FRAME:
                raise SystemExit(
                    f"{reader} gives other frames of {request.path} ({difference:.1f} of 256 off)."
                )
            largest = max(largest, difference)
    return largest


def measure(
    processes: Processes, requests: Sequence[Request], *, passes: int, rng: np.random.Generator
) -> dict[ReaderName, float]:
    """Clips a second by reader: the median over passes, readers in a new order in each."""
    rates: dict[ReaderName, list[float]] = {reader: [] for reader in processes}
    for _ in range(passes):
        for reader in rng.permutation(np.array(list(processes), dtype=object)):
            started = time.perf_counter()
            for request in requests:
                processes[reader].frames(request.path, request.indices, reader=reader)
            rates[reader].append(len(requests) / (time.perf_counter() - started))
    return {reader: statistics.median(values) for reader, values in rates.items()}


def print_table(
    console: Console,
    rates: Mapping[tuple[str, str], Mapping[ReaderName, float]],
    readers: Sequence[ReaderName],
    machine: Mapping[str, str],
) -> None:
    """The table, and below it what it was measured on."""

    def print_line(cells: Sequence[str]) -> None:
        console.print(f"| {' | '.join(cells)} |", soft_wrap=True)

    print_line(["videos", "pattern", *(f"{reader}, clips/s" for reader in readers)])
    print_line(["---", "---", *("---:" for _ in readers)])
    for (name, pattern), row in rates.items():
        print_line([name, pattern, *(f"{row[reader]:.1f}" for reader in readers)])
    versions = [f"{name} {_version(name)}" for name in PACKAGES.values()]
    for name, value in {**machine, "readers": ", ".join(versions), "cores used": "1"}.items():
        console.print(f"{name}: {value}", soft_wrap=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    typer.run(main)
