"""What the training loop needs from whoever launched it: who am I, sum this, keep that.

The loop is written once against `TrainContext`; `LocalContext` runs it in this process without
Ray, `cluster/train.py` runs it on Ray Train workers.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, list_checkpoints
from lssl_ray.training.disk_room import refusing_full_disk

Record = Mapping[str, Any]


@runtime_checkable  # for the type checks that run in tests
class TrainContext(Protocol):
    """One worker's view of the run."""

    @property
    def rank(self) -> int:
        """Index of this worker, from 0."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    @property
    def device(self) -> torch.device:
        """Where this worker trains."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all workers, without gradient; every worker must call it."""

    def count_checkpoints_asked(self) -> int:
        """Times that this worker was asked for a checkpoint this session; at every step."""

    def record_metrics(self, record: Record) -> None:
        """File a row of metrics (rank 0 only)."""

    def record_failure(self, record: Record) -> None:
        """File a clip that could not be decoded (any rank)."""

    def save_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into an empty folder; every worker must call it."""


class LocalContext:
    """One worker in this process; files go straight to the run folder.

    Args:
        run_folder: Where `checkpoints/` is.
        device: Where to train.
        journal: Takes the records; see `tracking.journal.Journal`.
        num_to_keep: Checkpoints that stay; older ones are deleted after a new one is whole.
        on_checkpoint: Called with each whole checkpoint before older ones go.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        run_folder: Path,
        *,
        device: torch.device,
        append: Callable[[str, Record], None],
        num_to_keep: int,
        on_checkpoint: Callable[[Path], None] | None = None,
    ) -> None:
        self.device = device
        self._folder = run_folder / CHECKPOINTS_FOLDER
        self._append = append
        self._num_to_keep = num_to_keep
        self._on_checkpoint = on_checkpoint

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """One worker: the sum is the tensor itself."""
        return values

    def count_checkpoints_asked(self) -> int:
        """Nobody asks a process that runs alone."""
        return 0

    def record_metrics(self, record: Record) -> None:
        """Append to metrics.jsonl."""
        self._append("metrics", record)

    def record_failure(self, record: Record) -> None:
        """Append to quarantine.jsonl."""
        self._append("quarantine", record)

    def save_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Write beside, then rename: a checkpoint is whole or absent."""
        with refusing_full_disk(self._folder.parent):
            self._put_in_place(self._folder / name, write)
            if self._on_checkpoint is not None:
                self._on_checkpoint(self._folder / name)
        for old in list_checkpoints(self._folder.parent)[: -self._num_to_keep]:
            shutil.rmtree(old)

    def _put_in_place(self, target: Path, write: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=self._folder))
        try:
            write(staging)
            if target.exists():  # written before, then found damaged, so the steps were done again
                os.replace(target, staging.with_suffix(".replaced"))
            os.replace(staging, target)
        finally:
            for leftover in (staging, staging.with_suffix(".replaced")):
                shutil.rmtree(leftover, ignore_errors=True)
