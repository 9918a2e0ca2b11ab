"""From a visit to pixels and from pixels to a batch: the data path without any engine.

`ClipDecoder` turns one visit into arrays or into a recorded failure; `pack_clips` lays the clips
of one worker's step into fixed-shape columns (what crosses the object store), `unpack_batch` turns
columns into the batch a task takes. Ray Data and the local loader both run exactly these.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from lssl_ray.types import NUM_AUGMENTATION_VALUES, ClipBatch, ClipFailure, FeedStats
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.manifest import Manifest, VideoRecord
from lssl_ray.video.offenders import Offence, RepeatOffenders
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe
from lssl_ray.video.views import ViewPlan, plan_views, resize_view

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class DecodedClip:
    """All views of one visit, from one open and one pass over the frames.

    `fell_back`: another reader gave the frames than the manifest names.
    """

    visit: ClipVisit
    video_id: str
    global_views: UInt8[np.ndarray, "globals frames size size 3"]
    local_views: UInt8[np.ndarray, "locals local_frames local_size local_size 3"]
    augmentation: Float32[np.ndarray, "views values"]
    seconds: float = 0.0
    fell_back: bool = False


@dataclass(frozen=True)
class FailedClip:
    """A visit whose video could not be decoded."""

    visit: ClipVisit
    failure: ClipFailure


class ClipDecoder:
    """Decodes visits in a killable child process; use as a context manager or call `close`.

    Args:
        manifest: Usable videos; a visit's `video` is a row of it.
        recipe: Which views to cut.
        settings: How videos are opened.
        seed: Seed of the run.
        offences: Video id to what it did to decoders before; see `offenders`.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        recipe: ViewRecipe,
        settings: DecodeSettings,
        seed: int,
        offences: Mapping[str, Offence] | None = None,
    ) -> None:
        self._manifest = manifest
        self._recipe = recipe
        self._seed = seed
        self._offenders = RepeatOffenders(offences)
        self._process = DecodeProcess(
            deadline_seconds=settings.deadline_seconds,
            recycle_after=settings.recycle_after,
            short_side=settings.short_side,
            memory_limit_mib=settings.memory_limit_mib,
            child_module=settings.child_module,
        )

    def __enter__(self) -> "ClipDecoder":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        self._process.close()

    def decode(self, visit: ClipVisit) -> DecodedClip | FailedClip:
        """Decode and cut all views of one visit; a bad video is a value, not an exception."""
        recipe = self._recipe
        return self._decode(visit, _blank(recipe.global_views), _blank(recipe.local_views))

    def decode_into(self, columns: Columns, row: int, visit: ClipVisit) -> None:
        """Decode one visit to a row of `blank_columns`: as `pack_clips`, without its copy."""
        has_local = "local_views" in columns
        local_views = columns["local_views"][row] if has_local else _blank(self._recipe.local_views)
        _fill_row(columns, row, self._decode(visit, columns["global_views"][row], local_views))

    def _decode(
        self, visit: ClipVisit, global_views: np.ndarray, local_views: np.ndarray
    ) -> DecodedClip | FailedClip:
        started = time.perf_counter()
        record = self._manifest.row(visit.video)
        offence = self._offenders.find(record.video_id)
        if offence is not None:
            return FailedClip(visit=visit, failure=_describe_untried(offence, record, visit))

        def plan(height: int, width: int) -> list[ViewPlan]:
            return self._plan(record, visit, height=height, width=width)

        fallbacks_before = self._process.num_fallbacks
        try:
            cuts = self._process.cut(
                record.path, plan, reader=record.reader, size=(record.height, record.width)
            )
        except DecodeError as error:
            self._offenders.record_failure(record.video_id, error.reason)
            return FailedClip(visit=visit, failure=_describe(error, record, visit))
        self._offenders.record_success(record.video_id)
        for out, (view, pictures) in zip((*global_views, *local_views), cuts, strict=True):
            resize_view(pictures, size=view.size, out=out)
        return DecodedClip(
            visit=visit,
            video_id=record.video_id,
            global_views=global_views,
            local_views=local_views,
            augmentation=np.stack([view.augmentation for view, _ in cuts]),
            seconds=time.perf_counter() - started,
            fell_back=self._process.num_fallbacks > fallbacks_before,
        )

    def _plan(
        self, record: VideoRecord, visit: ClipVisit, *, height: int, width: int
    ) -> list[ViewPlan]:
        return plan_views(
            self._recipe,
            num_frames=record.num_frames,
            fps=record.fps,
            height=height,
            width=width,
            seed=self._seed,
            epoch=visit.epoch,
            video_id=record.video_id,
        )


def pack_clips(
    clips: Sequence[DecodedClip | FailedClip], *, recipe: ViewRecipe, num_rows: int
) -> Columns:
    """Lay one worker's step into columns of exactly `num_rows` rows.

    Failed clips and missing ones (a run's last step can be short) are rows of zeros with
    `decoded` false, so that every block has the same shape and every worker the same steps.
    """
    columns = blank_columns(recipe, num_rows)
    for row, clip in enumerate(clips):
        _fill_row(columns, row, clip)
        if isinstance(clip, DecodedClip):
            columns["global_views"][row] = clip.global_views
            if recipe.local_views.count:
                columns["local_views"][row] = clip.local_views
    return columns


def blank_columns(recipe: ViewRecipe, num_rows: int) -> Columns:
    """Columns of rows that no clip has taken yet."""
    columns: Columns = {
        "position": np.full(num_rows, -1, dtype=np.int64),
        "decoded": np.zeros(num_rows, dtype=bool),
        "global_views": _blank(recipe.global_views, num_rows),
        "augmentation": np.zeros(
            (num_rows, recipe.num_views, NUM_AUGMENTATION_VALUES), dtype=np.float32
        ),
        "epoch": np.zeros(num_rows, dtype=np.int64),
        "seconds": np.zeros(num_rows, dtype=np.float64),
        "tried": np.zeros(num_rows, dtype=bool),
        "fell_back": np.zeros(num_rows, dtype=bool),
    }
    if recipe.local_views.count:
        columns["local_views"] = _blank(recipe.local_views, num_rows)
    for name in ("video_id", "path", "reason", "detail"):
        columns[name] = np.full(num_rows, "", dtype=object)
    return columns


def unpack_batch(columns: Mapping[str, Any], *, device: torch.device) -> ClipBatch:
    """Columns to a batch on the training device; rows that were not decoded become failures.

    On a GPU the copy may still run on the current stream; `ahead.iterate_on_device` waits for it.
    """
    decoded = np.asarray(columns["decoded"], dtype=bool)
    failed = ~decoded & (np.asarray(columns["reason"]) != "")

    def to_device(name: str) -> torch.Tensor:
        return _copy_rows(np.asarray(columns[name]), decoded, device)

    return ClipBatch(
        global_views=to_device("global_views"),
        local_views=to_device("local_views") if "local_views" in columns else None,
        augmentation=to_device("augmentation"),
        positions=tuple(int(p) for p in np.asarray(columns["position"])[decoded]),
        video_ids=tuple(str(v) for v in np.asarray(columns["video_id"])[decoded]),
        failures=tuple(
            ClipFailure(
                video_id=str(columns["video_id"][row]),
                path=str(columns["path"][row]),
                reason=str(columns["reason"][row]),
                detail=str(columns["detail"][row]),
                seconds=round(float(columns["seconds"][row]), 3),
                epoch=int(columns["epoch"][row]),
                position=int(columns["position"][row]),
                tried=bool(columns["tried"][row]),
            )
            for row in np.flatnonzero(failed)
        ),
        feed=FeedStats(
            decode_seconds=float(np.sum(columns["seconds"])),
            num_tried=int(np.sum(columns["tried"])),
            num_fallbacks=int(np.sum(columns["fell_back"])),
        ),
    )


def _copy_rows(values: np.ndarray, kept: np.ndarray, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        # Dropping rows and pinning in one copy; PyTorch holds the pinned memory until it is read.
        shape = (int(kept.sum()), *values.shape[1:])
        dtype = torch.from_numpy(np.empty(0, dtype=values.dtype)).dtype
        staging = torch.empty(shape, dtype=dtype, pin_memory=True)
        np.compress(kept, values, axis=0, out=staging.numpy())
        return staging.to(device, non_blocking=True)
    # A copy only where rows are dropped or Ray's read-only buffer would be handed out.
    if kept.all():
        return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)
    return torch.from_numpy(values[kept]).to(device)


def _blank(kind: ViewKind, *num_rows: int) -> np.ndarray:
    shape = (*num_rows, kind.count, kind.num_frames, kind.size, kind.size, 3)
    return np.zeros(shape, dtype=np.uint8)


def _fill_row(columns: Columns, row: int, clip: DecodedClip | FailedClip) -> None:
    """All of a row but its pixels."""
    columns["position"][row] = clip.visit.position
    if isinstance(clip, FailedClip):
        for name in ("video_id", "path", "reason", "detail", "seconds", "epoch", "tried"):
            columns[name][row] = getattr(clip.failure, name)
        return
    columns["decoded"][row] = columns["tried"][row] = True
    columns["seconds"][row] = clip.seconds
    columns["fell_back"][row] = clip.fell_back
    columns["video_id"][row] = clip.video_id
    columns["augmentation"][row] = clip.augmentation


def _describe(error: DecodeError, record: VideoRecord, visit: ClipVisit) -> ClipFailure:
    return ClipFailure(
        video_id=record.video_id,
        path=record.path,
        reason=error.reason,
        detail=error.detail,
        seconds=error.seconds,
        epoch=visit.epoch,
        position=visit.position,
    )


def _describe_untried(offence: Offence, record: VideoRecord, visit: ClipVisit) -> ClipFailure:
    return ClipFailure(
        video_id=record.video_id,
        path=record.path,
        reason=offence.reason,
        detail=f"not tried again: it ended {offence.count} decoders before",
        seconds=0.0,
        epoch=visit.epoch,
        position=visit.position,
        tried=False,
    )
