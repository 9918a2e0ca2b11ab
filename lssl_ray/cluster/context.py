"""`TrainContext` of a Ray Train worker: who am I, sum this, keep that.

A worker is asked for a checkpoint in two ways, and neither makes it wait: Ray Train tells its actor
which nodes are about to go, and the controller calls `ask_for_checkpoint` in it before a resize.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
from ray.exceptions import RayTaskError
from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import get_train_context
from torch import Tensor

from lssl_ray.cluster.store import StoreReader
from lssl_ray.errors import CheckpointError, LsslError
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER
from lssl_ray.training.context import Record
from lssl_ray.training.disk_room import refusing_full_disk

# A process trains once in its life.
_num_asked = 0


def ask_for_checkpoint() -> None:
    """Ask this worker, from its actor's main thread; it answers when all workers were asked."""
    global _num_asked
    _num_asked += 1


class RayContext:
    """One Ray Train worker's view of the run.

    Args:
        desk: Keeps the journal; see `desk.RunDesk`.
        run_folder: Where Ray puts checkpoints.
        on_checkpoint: Called by rank 0 with each whole checkpoint, before Ray deletes older ones.
        keeper: Of a run that is kept in a store, instead of `on_checkpoint`; see `keeping`.
    """

    def __init__(
        self,
        desk: Any,
        *,
        run_folder: Path,
        on_checkpoint: Callable[[Path], None] | None = None,
        keeper: Any | None = None,
    ) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._desk = desk
        self._folder = run_folder / CHECKPOINTS_FOLDER
        self._on_checkpoint = on_checkpoint
        self._keeper = keeper
        self._kept: list[ray.ObjectRef[None]] = []
        self._store = StoreReader()
        self._unconfirmed: list[ray.ObjectRef[None]] = []
        self._nodes_leaving: set[str] = set()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over workers."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def count_checkpoints_asked(self) -> int:
        """Once for each node of the workers that leaves, and once for each resize."""
        # Not `ray.train.get_preemption_info()`: that is a barrier, for what lies here already.
        info = get_train_context().preemption_context.preemption_info
        if info is not None:
            self._nodes_leaving |= set(info.preempted_node_ids)
        return len(self._nodes_leaving) + _num_asked

    def record_metrics(self, record: Record) -> None:
        """Send a row to the journal without waiting for it, with what Ray's store holds."""
        leaving = {"cluster/nodes_leaving": len(self._nodes_leaving)}
        self.append("metrics", {**record, **leaving, **self._store.read()})

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
        staging = Path(tempfile.mkdtemp(prefix="lssl-checkpoint-"))
        folders = self._folder.parent, staging
        try:
            with refusing_full_disk(*folders, agree=self._is_any):
                ray.get(self._unconfirmed)
                self._unconfirmed.clear()
                write(staging)
            self.ask_keeper("put_record")  # no worker comes here before all rows are there
            with self._removing_half(name), refusing_full_disk(*folders, agree=self._is_any):
                ray.train.report(
                    {"checkpoint": name},
                    checkpoint=Checkpoint.from_directory(str(staging)),
                    checkpoint_dir_name=f"{CHECKPOINTS_FOLDER}/{name}",
                )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if self.rank == 0:
            self._desk.note_checkpoint.remote()
        # The newest one is never deleted, so it is there until all workers are at the next one.
        if self.rank == 0 and self._on_checkpoint is not None:
            self._on_checkpoint(self._folder / name)
        if self.rank == 0 and self._keeper is not None:
            self._kept.append(self._keeper.take_checkpoint.remote(name))

    def ask_keeper(self, method: str, *arguments: Any) -> None:
        """Have the keeper, if there is one, do something; every worker must call it.

        What it was given before is done by then.

        Raises:
            LsslError: It could not, and no worker goes on.
        """
        if self._keeper is None:
            return
        error: LsslError | None = None
        if self.rank == 0:
            try:
                ray.get([*self._kept, getattr(self._keeper, method).remote(*arguments)])
            except RayTaskError as failed:
                if not isinstance(failed.cause, LsslError):
                    raise
                error = failed.cause
            self._kept.clear()
        self.raise_together(error)

    def raise_together(self, error: LsslError | None) -> None:
        """Raise on all workers what one met: who refuses alone leaves the others waiting.

        Raises:
            LsslError: A worker met one.
        """
        if self._is_any(error is not None):
            raise error or CheckpointError("Another worker could not go on; rank 0 says why.")

    def _is_any(self, happened: bool) -> bool:
        flag = torch.tensor([float(happened)], device=self.device)
        return self.all_reduce_sum(flag).item() > 0

    @contextmanager
    def _removing_half(self, name: str) -> Iterator[None]:
        """A refused checkpoint leaves nothing; all workers have stopped writing it by then."""
        try:
            yield
        except CheckpointError:
            if self.rank == 0 and self._keeper is None:
                shutil.rmtree(self._folder / name, ignore_errors=True)
            raise
