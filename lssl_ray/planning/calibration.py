"""What clips, steps and checkpoints take on this machine: measured with the run's own code.

One decoder and one worker, one after the other, each alone: what several of them share (caches,
memory bandwidth, disks) shows in a run only.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lssl_ray.errors import DataError
from lssl_ray.planning.figures import Figure, summarise_mean, summarise_median
from lssl_ray.training.checkpoint import write_checkpoint
from lssl_ray.training.task import LssTask
from lssl_ray.types import Progress
from lssl_ray.video.isolation import CHILD_MODULE
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, DecodedClip

MIN_CLIPS = 3
KEPT_CLIPS = 4  # for batches to step on
TIMED_STEPS = 2  # at least, after one that warms up


@dataclass(frozen=True)
class DecodeCalibration:
    """Decoding by one decoder on one core.

    Attributes:
        seconds: Of each clip, failed ones included, without the first, which starts the child.
        num_failed: Clips that did not decode.
        child_mib: Largest resident size of the decoder's child; None where /proc does not tell.
        clips: Some of the decoded clips.
    """

    seconds: tuple[float, ...]
    num_failed: int
    child_mib: float | None
    clips: tuple[DecodedClip, ...]

    def summarise(self) -> Figure:
        """Seconds of a core per clip."""
        median = statistics.median(self.seconds)
        return summarise_mean(
            self.seconds,
            f"mean of {len(self.seconds)} clips here, median {median:.4f}, "
            f"{min(self.seconds):.4f} to {max(self.seconds):.4f}, {self.num_failed} failed",
        )


@dataclass(frozen=True)
class StepCalibration:
    """Training steps of one worker.

    Attributes:
        seconds: Of the timed steps, by clips in the batch.
        device: On what.
    """

    seconds: dict[int, tuple[float, ...]]
    device: str

    def predict(self, num_clips: int) -> Figure:
        """Seconds of a step on so many clips: as measured, or on the line through what was."""
        if num_clips in self.seconds:
            values = self.seconds[num_clips]
            note = f"median of {len(values)} steps of {num_clips} clips here, {self.device}"
            return summarise_median(values, note)
        medians = {size: statistics.median(values) for size, values in self.seconds.items()}
        value = extrapolate(medians, num_clips)
        largest = max(medians)
        spread = [one / medians[largest] for one in self.seconds[largest]]
        sizes = ", ".join(str(size) for size in sorted(medians))
        note = f"{num_clips} clips, from steps of {sizes} here, {self.device}"
        return Figure(value, value * min(spread), value * max(spread), "computed", note)


def measure_decoding(
    decoder: ClipDecoder,
    visits: Iterable[ClipVisit],
    *,
    budget_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> DecodeCalibration:
    """Decode visits one after the other until the time is over, at least `MIN_CLIPS`.

    Args:
        decoder: Of the run; its child starts with the first visit.
        visits: Of the run, in its order.
        budget_seconds: Without the first visit.
        clock: Seconds that only grow.

    Raises:
        DataError: No clip decoded.
    """
    seconds: list[float] = []
    clips: list[DecodedClip] = []
    num_failed, reason, ends = 0, "", None
    child_mib: float | None = None
    for visit in visits:
        started = clock()
        clip = decoder.decode(visit)
        ended = clock()
        if isinstance(clip, DecodedClip):
            if len(clips) < KEPT_CLIPS:
                clips.append(clip)
        else:
            num_failed, reason = num_failed + 1, f"{clip.failure.path}: {clip.failure.reason}"
        if ends is None:  # the first one started the child
            ends = ended + budget_seconds
            continue
        seconds.append(ended - started)
        child_mib = _read_child_mib() or child_mib
        if ended >= ends and len(seconds) >= MIN_CLIPS:
            break
    if not clips or not seconds:
        raise DataError(
            f"{num_failed} of the first {num_failed + len(clips)} clips did not decode ({reason}); "
            "a plan needs at least two that do. Check the manifest with `lssl-ray data check`."
        )
    return DecodeCalibration(tuple(seconds), num_failed, child_mib, tuple(clips))


def measure_steps(
    run_step: Callable[[int], None],
    *,
    num_clips: int,
    device: torch.device,
    budget_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> StepCalibration:
    """Time training steps on one clip, on the wanted number or as many as time allows, on half.

    Args:
        run_step: Takes a whole training step on so many clips.
        num_clips: Of a worker in a step of the planned run.
        device: Where the step runs.
        budget_seconds: For all steps; what one clip needs is taken in any case.
        clock: Seconds that only grow.
    """

    def time_steps(size: int, budget: float) -> tuple[float, ...]:
        run_step(size)
        _synchronise(device)
        times: list[float] = []
        while len(times) < TIMED_STEPS or sum(times) < budget:
            started = clock()
            run_step(size)
            _synchronise(device)
            times.append(clock() - started)
        return tuple(times)

    began = clock()
    seconds = {1: time_steps(1, budget_seconds / 8)}
    left = budget_seconds - (clock() - began)
    sizes = choose_sizes(statistics.median(seconds[1]), num_clips=num_clips, budget_seconds=left)
    for size in sizes:
        share = left / (2 * len(sizes))
        seconds[size] = time_steps(size, share)
    return StepCalibration(seconds, str(device))


def choose_sizes(
    seconds_of_one: float, *, num_clips: int, budget_seconds: float
) -> tuple[int, ...]:
    """Clips per step to time beside one: the wanted number if time allows, and half of it.

    Args:
        seconds_of_one: Of a step on one clip; larger ones take at most in proportion.
        num_clips: Wanted.
        budget_seconds: For all of them.
    """
    steps = 1 + TIMED_STEPS
    largest = num_clips
    while largest > 1 and steps * seconds_of_one * (largest + largest // 2) > budget_seconds:
        largest //= 2
    return tuple(sorted({size for size in (largest // 2, largest) if size > 1}))


def extrapolate(medians: dict[int, float], num_clips: int) -> float:
    """Seconds on the least-squares line through (clips, seconds); in proportion to a single one."""
    sizes, values = list(medians), list(medians.values())
    if len(sizes) == 1:
        return values[0] * num_clips / sizes[0]
    slope, base = statistics.linear_regression(sizes, values)
    if base < 0.0:  # a base cost can't be negative: the line through zero and the largest
        largest = max(sizes)
        return medians[largest] * num_clips / largest
    return max(base + slope * num_clips, max(values) if num_clips > max(sizes) else 0.0)


def measure_checkpoint(task: LssTask, optimizer: torch.optim.Optimizer) -> Figure:
    """Bytes per second of a whole checkpoint, checksums included, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lssl-plan-") as folder:
        started = time.perf_counter()
        write_checkpoint(
            Path(folder), task=task, optimizer=optimizer, progress=Progress(), run_config=""
        )
        seconds = time.perf_counter() - started
        num_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    figure = summarise_mean([num_bytes / seconds], f"{num_bytes} bytes in {seconds:.3f} s here")
    return replace(figure, low=figure.value / 2, note=f"{figure.note}; at worst half of it")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read_child_mib() -> float | None:
    """Largest resident size so far of this process' decoder child, MiB."""
    for pid in _list_children():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it ended
            continue
        if CHILD_MODULE in command:
            lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM"))
            return next((int(line[1]) / 1024 for line in lines), None)
    return None


def _list_children() -> Sequence[str]:
    children = []
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            children += task.read_text().split()
        except OSError:  # the thread ended
            continue
    return children


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
