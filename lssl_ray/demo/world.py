"""The demo world's videos: real H.264 files of stick figures, in three disjoint splits.

Purpose: `make demo` needs real encoded videos that no licence forbids, on which adaptation can be
seen to work. It is not a benchmark and its numbers say nothing about real footage.

How hard it is, so that nobody need guess:
* 16 actions, balanced. Two pairs are exact time reversals of each other (sitting down / standing
  up, picking up / putting down a box), so a frame-wise classifier can't expect more than 87.5 %.
  Squatting, bowing, sitting and lifting a box share poses; many actions pass through standing.
* Every video draws its own size (96-240 px sides, landscape, square, portrait), frame rate (10-30),
  length (1-4 s), compression (CRF 22-38), figure scale, place, colours, thickness, lighting, noise,
  background, clutter, distractors and camera shake: `conditions.VIDEO` holds the ranges.
* Train, selection and validation follow the same distribution with disjoint random draws.
  Train files carry no label, neither in folder nor in name. The difficulty was
  chosen on selection videos, with the gain of adaptation in view: docs/demo_gain.md tells how.
"""

import argparse
import hashlib
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lssl_ray.demo.actions import ACTIONS, Action
from lssl_ray.demo.conditions import VIDEO
from lssl_ray.demo.looks import build_look, paint_frame
from lssl_ray.errors import ConfigError

__all__ = ["SPLITS", "VideoFacts", "WorldReport", "render_video", "render_world"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "selection", "validation")
_SIZES = (
    (160, 120), (176, 144), (192, 108), (240, 180), (128, 96), (128, 128), (112, 144), (108, 192),
    (120, 160), (96, 128), (240, 100), (170, 126),
)  # fmt: skip
_FRAME_RATES = (
    Fraction(10), Fraction(12), Fraction(15), Fraction(20), Fraction(24), Fraction(25),
    Fraction(30000, 1001), Fraction(30),
)  # fmt: skip
_CHUNK_VIDEOS = 8


@dataclass(frozen=True)
class VideoFacts:
    """What one rendered file is.

    Attributes:
        path: POSIX path relative to the world's folder.
        label: the action.
        num_frames: frames written.
        fps: frames per second.
        duration_seconds: num_frames / fps.
        width: pixels.
        height: pixels.
        crf: x264 quality, larger is coarser.
        figure_scale: standing body height over the picture's short side.
        size_bytes: size of the file.
    """

    path: str
    label: str
    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    crf: int
    figure_scale: float
    size_bytes: int


@dataclass(frozen=True)
class WorldReport:
    """What `render_world` wrote.

    Attributes:
        seed: the seed given.
        num_videos: files per split.
        num_per_action: files per action, per split.
        ranges: smallest and largest value over all files, per numeric field of `VideoFacts`.
        size_bytes: bytes of all files.
        seconds: wall-clock time of the rendering.
    """

    seed: int
    num_videos: dict[str, int]
    num_per_action: dict[str, dict[str, int]]
    ranges: dict[str, tuple[float, float]]
    size_bytes: int
    seconds: float


def _compute_phases(
    rng: np.random.Generator, *, action: Action, num_frames: int, fps: float
) -> list[float]:
    """Return the action's phase at every frame."""
    times = np.arange(num_frames) / fps
    if action.repeats:
        low, high = action.period_seconds
        return [float(v) for v in rng.uniform(0, 1) + times / rng.uniform(low, high)]
    # One-shot actions hold before and after. Both holds follow one distribution, so that a
    # time-reversed pair can't be told by how long the figure waits.
    before, after = rng.uniform(0.0, 0.15, size=2)
    share = times / times[-1]
    return [float(v) for v in np.clip((share - before) / (1.0 - before - after), 0.0, 1.0)]


def _compute_video_path(*, seed: int, split: str, index: int, action: Action) -> str:
    # A digest, so that neither a train file's name nor its order tells the action.
    name = hashlib.sha256(f"{seed}/{split}/{index}".encode()).hexdigest()[:12] + ".mp4"
    return f"{split}/{name}" if split == "train" else f"{split}/{action.label}/{name}"


def compute_train_labels(*, seed: int, num_train: int) -> dict[str, str]:
    """Each train file's name and true action: for supervised bounds, never for training."""
    labels = {}
    for index in range(num_train):
        action = ACTIONS[index % len(ACTIONS)]
        path = _compute_video_path(seed=seed, split="train", index=index, action=action)
        labels[Path(path).name] = action.label
    return labels


def render_video(out_dir: str | Path, *, seed: int, split: str, index: int) -> VideoFacts:
    """Render and encode one video, a pure function of seed, split and index.

    Args:
        out_dir: the world's folder; the split's folders are created in it.
        seed: the world's seed, >= 0.
        split: one of `SPLITS`.
        index: number within the split, >= 0; it also decides the action, round robin.

    Raises:
        ConfigError: the split is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split!r} is not a split of the demo world; choose from {SPLITS}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    action = ACTIONS[index % len(ACTIONS)]
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    rate = _FRAME_RATES[int(rng.integers(len(_FRAME_RATES)))]
    num_frames = max(8, round(float(rng.uniform(1.0, 4.0)) * float(rate)))
    crf = int(rng.integers(22, 39))
    look = build_look(rng, conditions=VIDEO, width=width, height=height)
    phases = _compute_phases(rng, action=action, num_frames=num_frames, fps=float(rate))
    relative = _compute_video_path(seed=seed, split=split, index=index, action=action)
    path = Path(out_dir) / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": str(crf), "preset": "ultrafast", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, phase in enumerate(phases):
            seconds = number / float(rate)
            frame = paint_frame(action, look=look, phase=phase, seconds=seconds, rng=rng)
            picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return VideoFacts(
        path=relative,
        label=action.label,
        num_frames=num_frames,
        fps=float(rate),
        duration_seconds=num_frames / float(rate),
        width=width,
        height=height,
        crf=crf,
        figure_scale=look.figure_scale,
        size_bytes=path.stat().st_size,
    )


def _render_chunk(out_dir: str, seed: int, split: str, start: int, stop: int) -> list[VideoFacts]:
    return [
        render_video(out_dir, seed=seed, split=split, index=index) for index in range(start, stop)
    ]


def _check_empty(out_dir: Path) -> None:
    for split in SPLITS:
        folder = out_dir / split
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} already holds something; videos of two worlds must not mix. "
                "Choose another folder or delete this one"
            )


def render_world(
    out_dir: str | Path,
    *,
    seed: int = 0,
    num_train: int = 900,
    num_selection: int = 240,
    num_validation: int = 400,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> WorldReport:
    """Render all three splits into `<out_dir>/<split>/...`.

    Selection and validation files lie in a folder per action, train files directly in `train`.

    Args:
        out_dir: a folder whose split folders do not exist yet or are empty.
        seed: any integer >= 0; equal seeds give equal files.
        num_train: number of unlabelled training videos.
        num_selection: number of labelled videos for choosing settings.
        num_validation: number of labelled videos for the final number only.
        num_workers: rendering processes, >= 1.
        on_progress: called in this process with (videos done, videos in all).

    Raises:
        ConfigError: a count is out of range, or a split's folder already holds something.
    """
    counts = dict(zip(SPLITS, (num_train, num_selection, num_validation), strict=True))
    if seed < 0 or num_workers < 1 or min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise ConfigError(
            f"seed={seed}, num_workers={num_workers}, counts={counts}: the seed must be >= 0, "
            "workers >= 1, no count negative and at least one above 0"
        )
    _check_empty(Path(out_dir))
    started, total = time.monotonic(), sum(counts.values())
    facts: list[tuple[str, VideoFacts]] = []
    # Spawned, not forked: the caller may already run threads (torch, decoders).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        pending = [
            (split, pool.submit(_render_chunk, str(out_dir), seed, split, start, min(stop, count)))
            for split, count in counts.items()
            for start, stop in (
                (first, first + _CHUNK_VIDEOS) for first in range(0, count, _CHUNK_VIDEOS)
            )
        ]
        for split, future in pending:
            facts.extend((split, fact) for fact in future.result())
            if on_progress is not None:
                on_progress(len(facts), total)
    return _build_report(facts, seed=seed, seconds=time.monotonic() - started)


def _build_report(facts: list[tuple[str, VideoFacts]], *, seed: int, seconds: float) -> WorldReport:
    numeric = (
        "num_frames", "fps", "duration_seconds", "width", "height", "crf", "figure_scale",
        "size_bytes",
    )  # fmt: skip
    ranges = {}
    for name in numeric:
        values = [float(getattr(fact, name)) for _, fact in facts]
        ranges[name] = (min(values), max(values))
    return WorldReport(
        seed=seed,
        num_videos={split: sum(owner == split for owner, _ in facts) for split in SPLITS},
        num_per_action={
            split: dict(Counter(fact.label for owner, fact in facts if owner == split))
            for split in SPLITS
        },
        ranges=ranges,
        size_bytes=sum(fact.size_bytes for _, fact in facts),
        seconds=seconds,
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description="Render the demo world's videos.")
    parser.add_argument("--out", required=True, help="folder for the three splits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report = render_world(
        options.out,
        seed=options.seed,
        num_workers=options.workers,
        on_progress=lambda done, total: logger.info("rendered %d of %d videos", done, total),
    )
    logger.info("%s", report)


if __name__ == "__main__":
    _main()
