"""Metrics of a few steps, averaged over clips and workers into one record."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lssl_ray.training.context import TrainContext
from lssl_ray.types import ClipBatch, Progress, StepOutput


class MetricWindow:
    """Sums on the device between two records, so that no step waits for a number."""

    _names: list[str]
    _sums: Tensor | None
    _values: dict[str, float]
    _clips: int
    _seconds: float
    _wait_seconds: float
    _feed: dict[str, float]

    def __init__(self) -> None:
        self._reset()

    def add(
        self,
        output: StepOutput,
        gradient_norms: Mapping[str, Tensor],
        values: Mapping[str, float],
        *,
        clips: int,
    ) -> None:
        """Add one step of this worker."""
        figures = {f"loss/{name}": value for name, value in output.terms.items()}
        figures |= {f"health/{name}": value for name, value in output.monitors.items()}
        figures |= {f"gradient_norm/{name}": value for name, value in gradient_norms.items()}
        self._names = list(figures)
        stacked = torch.stack([value.double() for value in figures.values()])
        self._sums = clips * stacked + (0 if self._sums is None else self._sums)
        self._clips += clips
        self._values = dict(values)

    def add_time(self, *, seconds: float, wait_seconds: float) -> None:
        """Add one step's wall time and the part of it spent waiting for clips."""
        self._seconds += seconds
        self._wait_seconds += wait_seconds

    def add_feed(self, batch: ClipBatch) -> None:
        """Add how one batch of this worker came."""
        self._feed["batches"] += 1
        self._feed["ready"] += batch.feed.batches_ready
        self._feed["tried"] += batch.feed.num_tried
        self._feed["decode_seconds"] += batch.feed.decode_seconds
        self._feed["fallbacks"] += batch.feed.num_fallbacks
        self._feed["untried"] += sum(not failure.tried for failure in batch.failures)

    def collect(
        self,
        progress: Progress,
        context: TrainContext,
        *,
        num_steps: int,
        num_decoders: int,
    ) -> dict[str, Any]:
        """One record for the steps since the last; every worker must call it."""
        record: dict[str, Any] = {"step": progress.step, "num_steps": num_steps}
        totals = [float(self._clips), *self._feed.values()]
        counted = torch.tensor(totals, dtype=torch.float64, device=context.device)
        counted = context.all_reduce_sum(counted)
        clips, feed = counted[0], dict(zip(self._feed, counted[1:].tolist(), strict=True))
        if self._sums is not None:
            means = context.all_reduce_sum(self._sums.to(context.device)) / clips.clamp_min(1)
            record |= dict(zip(self._names, means.tolist(), strict=True))
        record |= {f"schedule/{name}": value for name, value in self._values.items()}
        record["data/clips_per_second"] = clips.item() / max(self._seconds, 1e-9)
        record["data/wait_share"] = self._wait_seconds / max(self._seconds, 1e-9)
        record |= _describe_feed(feed, core_seconds=self._seconds * num_decoders)
        record["data/clips_trained"] = progress.clips_trained
        record["data/clips_failed"] = progress.clips_failed
        record["data/steps_skipped"] = progress.steps_skipped
        record["cluster/num_workers"] = context.world_size
        record["time/train_seconds"] = progress.train_seconds
        self._reset()
        return record

    def _reset(self) -> None:
        self._names = []
        self._sums = None
        self._values = {}
        self._clips = 0
        self._seconds = 0.0
        self._wait_seconds = 0.0
        names = ("batches", "ready", "tried", "decode_seconds", "fallbacks", "untried")
        self._feed = dict.fromkeys(names, 0.0)


def _describe_feed(feed: Mapping[str, float], *, core_seconds: float) -> dict[str, float]:
    """Whether decoders or the model set the pace, from a window's sums over workers."""
    figures = {
        "data/batches_ready": feed["ready"] / max(feed["batches"], 1.0),
        "data/decoder_busy_share": feed["decode_seconds"] / max(core_seconds, 1e-9),
        "data/clips_not_tried": feed["untried"],
        "data/reader_fallbacks": feed["fallbacks"],
    }
    if feed["tried"] and feed["decode_seconds"]:
        figures["data/decode_seconds_per_clip"] = feed["decode_seconds"] / feed["tried"]
        figures["data/decode_clips_per_core_second"] = feed["tried"] / feed["decode_seconds"]
    return figures
