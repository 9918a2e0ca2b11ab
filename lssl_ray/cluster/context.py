"""`TrainContext` of a Ray Train worker: who am I, sum this, keep that."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
from ray.train import Checkpoint
from torch import Tensor

from lssl_ray.cluster.store import StoreReader
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER
from lssl_ray.training.context import Record


class RayContext:
    """One Ray Train worker's view of the run.

    Args:
        desk: Keeps the journal; see `desk.RunDesk`.
        run_folder: Where Ray puts checkpoints.
        on_checkpoint: Called by rank 0 with each whole checkpoint, before Ray deletes older ones.
    """

    def __init__(
        self,
        desk: Any,
        *,
        run_folder: Path,
        on_checkpoint: Callable[[Path], None] | None = None,
    ) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._desk = desk
        self._folder = run_folder / CHECKPOINTS_FOLDER
        self._on_checkpoint = on_checkpoint
        self._store = StoreReader()
        self._unconfirmed: list[ray.ObjectRef[None]] = []

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over workers."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def record_metrics(self, record: Record) -> None:
        """Send a row to the journal without waiting for it, with what Ray's store holds."""
        self.append("metrics", {**record, **self._store.read()})

    def record_failure(self, record: Record) -> None:
        """Send a quarantine row."""
        self.append("quarantine", record)

    def append(self, kind: str, record: Record) -> None:
        """Send a row of any kind."""
        self._unconfirmed.append(self._desk.append.remote(kind, dict(record)))

    def save_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Write locally, let Ray put all workers' files into the run's storage, wait for both.

        Rows are confirmed first: a run that resumes here has every row up to here.
        """
        ray.get(self._unconfirmed)
        self._unconfirmed.clear()
        staging = tempfile.mkdtemp(prefix="lssl-checkpoint-")
        try:
            write(Path(staging))
            ray.train.report(
                {"checkpoint": name},
                checkpoint=Checkpoint.from_directory(staging),
                checkpoint_dir_name=f"{CHECKPOINTS_FOLDER}/{name}",
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        # The newest one is never deleted, so it is there until all workers are at the next one.
        if self.rank == 0 and self._on_checkpoint is not None:
            self._on_checkpoint(self._folder / name)
