"""The ways from files to views that need no Ray, and the clock that all ways are timed by.

`BareLoop` is the limit: as many processes as decoders, each opens, decodes and cuts clip after
clip, nothing is kept. `TorchLoader` is what a user would write around the same decoding and views.
`LocalLoader` is the library's own path of `--local`. None is isolated except the last.

Spawned processes import this file: it imports neither Ray nor anything else that they don't need.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lssl_ray.video.cuts import compute_needed_frames, copy_cut
from lssl_ray.video.decode_child import decode_frames
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import Manifest, VideoRecord
from lssl_ray.video.order import ClipVisit, RunPlan
from lssl_ray.video.recipe import DecodeSettings, ViewRecipe
from lssl_ray.video.views import ViewPlan, plan_views, resize_view


@dataclass(frozen=True)
class Work:
    """What a way of reading is given, in the library's own values."""

    manifest: Manifest
    plan: RunPlan
    recipe: ViewRecipe
    settings: DecodeSettings
    clips_per_batch: int
    num_decoders: int


@dataclass(frozen=True)
class Pass:
    """One pass over the same clips.

    Attributes:
        started: Before anything of this pass existed, `time.monotonic()` seconds.
        arrivals: When each batch came, in order, same clock.
        clips_per_arrival: Clips of a batch, their mean where they differ.
    """

    started: float
    arrivals: tuple[float, ...]
    clips_per_arrival: float

    @property
    def first_batch_seconds(self) -> float:
        """From nothing to the first batch."""
        return self.arrivals[0] - self.started

    def compute_rate(self, *, trim: int, group: int) -> float:
        """Clips per second once warm.

        Args:
            trim: Batches at each end that don't count: filling up, and running empty.
            group: The counted batches are cut to a multiple of it. Loaders whose workers make
                whole batches deliver them in groups of so many.
        """
        num_counted = (len(self.arrivals) - 2 * trim) // group * group
        if trim < 1 or num_counted < 1:
            raise SystemExit(
                f"A pass of {len(self.arrivals)} batches is too short to leave out {trim} at each "
                f"end and count groups of {group}; raise --clips."
            )
        start = self.arrivals[trim - 1]
        seconds = self.arrivals[trim - 1 + num_counted] - start
        return num_counted * self.clips_per_arrival / seconds


def time_arrivals(batches: Iterable[Any], *, started: float, clips: float) -> Pass:
    """Take every batch, drop it, and note when it came."""
    return Pass(started, tuple(time.monotonic() for _ in batches), clips)


class BareDecoder:
    """Opens, decodes and cuts in this very process: no child, no deadline, no columns."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def visit(self, position: int) -> ClipVisit:
        """The clip at a position of the run."""
        (visit,) = self._work.plan.compute_visits(position, position + 1)
        return visit

    def decode(self, visit: ClipVisit) -> tuple[list[np.ndarray], np.ndarray]:
        """The clip's views, and their augmentation."""
        record = self._work.manifest.row(visit.video)
        plans = self._plan(record, visit, record.height, record.width)
        needed = compute_needed_frames(plans)
        frames = self._open(record, needed.tolist())
        if frames.shape[1:3] != (record.height, record.width):
            plans = self._plan(record, visit, *frames.shape[1:3])
        views = [resize_view(copy_cut(frames, needed, plan), size=plan.size) for plan in plans]
        return views, np.stack([plan.augmentation for plan in plans])

    def _open(self, record: VideoRecord, indices: list[int]) -> np.ndarray:
        # As `DecodeProcess.cut` does.
        short_side = self._work.settings.short_side
        small = min(record.height, record.width) <= short_side
        return decode_frames(record.path, indices, None if small else short_side, record.reader)

    def _plan(
        self, record: VideoRecord, visit: ClipVisit, height: int, width: int
    ) -> list[ViewPlan]:
        return plan_views(
            self._work.recipe,
            num_frames=record.num_frames,
            fps=record.fps,
            height=height,
            width=width,
            seed=self._work.plan.seed,
            epoch=visit.epoch,
            video_id=record.video_id,
        )


_bare: BareDecoder | None = None  # a pool's worker has no other place for it


def _start_bare(work: Work) -> None:
    global _bare
    torch.set_num_threads(1)
    _bare = BareDecoder(work)


def _run_bare(position: int) -> None:
    assert _bare is not None
    _bare.decode(_bare.visit(position))


class BareLoop:
    """The limit: processes that only decode and cut, and send nothing back."""

    name = "bare decoder loop (the limit)"

    def __init__(self, work: Work) -> None:
        self._work = work
        self._pool: Any = None

    def run(self) -> Pass:
        """One pass; the first starts the processes."""
        started, work = time.monotonic(), self._work
        if self._pool is None:
            context = get_context("spawn")
            self._pool = context.Pool(work.num_decoders, initializer=_start_bare, initargs=(work,))
        clips = self._pool.imap_unordered(_run_bare, range(work.plan.num_positions))
        return time_arrivals(
            _every(clips, work.clips_per_batch), started=started, clips=work.clips_per_batch
        )

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()


class ClipFiles(Dataset[dict[str, Tensor]]):
    """A map-style dataset as one would write it: a position in, a clip's views out."""

    def __init__(self, work: Work) -> None:
        self._decoder = BareDecoder(work)
        self._num_global = work.recipe.global_views.count
        self._num_clips = work.plan.num_positions

    def __len__(self) -> int:
        """Clips of the pass."""
        return self._num_clips

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One clip."""
        views, augmentation = self._decoder.decode(self._decoder.visit(position))
        item = {
            "global_views": torch.from_numpy(np.stack(views[: self._num_global])),
            "augmentation": torch.from_numpy(augmentation),
        }
        if views[self._num_global :]:
            item["local_views"] = torch.from_numpy(np.stack(views[self._num_global :]))
        return item


class TorchLoader:
    """`torch.utils.data.DataLoader` with spawned, persistent workers."""

    name = "torch DataLoader"

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loader: DataLoader[dict[str, Tensor]] | None = None

    def run(self) -> Pass:
        """One pass; the first starts the workers."""
        started = time.monotonic()
        return time_arrivals(self.iterate(), started=started, clips=self._work.clips_per_batch)

    def iterate(self) -> Iterator[dict[str, Tensor]]:
        """The batches of one pass."""
        work = self._work
        if self._loader is None:
            self._loader = DataLoader(
                ClipFiles(work),
                batch_size=work.clips_per_batch,
                num_workers=work.num_decoders,
                multiprocessing_context="spawn",
                persistent_workers=True,
            )
        return iter(self._loader)

    def close(self) -> None:
        """End the workers."""
        self._loader = None


class LocalLoader:
    """The library without Ray: decoder threads here, each with an isolated child."""

    name = "ours, --local loader"

    def __init__(self, work: Work) -> None:
        self._work = work

    def run(self) -> Pass:
        """One pass, children and all."""
        started, work = time.monotonic(), self._work
        batches = iterate_batches(
            work.manifest,
            work.plan,
            start_position=0,
            clips_per_step=work.clips_per_batch,
            recipe=work.recipe,
            settings=work.settings,
            num_decoders=work.num_decoders,
            device=torch.device("cpu"),
        )
        return time_arrivals(batches, started=started, clips=work.clips_per_batch)

    def close(self) -> None:
        """Nothing is held between passes."""


def _every(clips: Iterable[Any], count: int) -> Iterator[None]:
    """One item for each whole `count` items."""
    for number, _ in enumerate(clips, start=1):
        if number % count == 0:
            yield None
