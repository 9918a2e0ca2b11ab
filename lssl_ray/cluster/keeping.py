"""A run in a store, on Ray: what is done beside the run folder, and on a worker's own disk.

Checkpoints go from each worker straight to the store. The run folder is on the driver's machine
only, so its files are put, and checkpoints to evaluate fetched, by an actor there.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.cluster.bookkeeping import file_checkpoints, write_checkpoint_list
from lssl_ray.cluster.context import RayContext
from lssl_ray.engine import TrainJob
from lssl_ray.errors import CheckpointError, LsslError
from lssl_ray.locking import holding
from lssl_ray.storage.checkpoints import find_newest_step
from lssl_ray.storage.keeper import SessionKeeper
from lssl_ray.storage.mirror import delete_old_checkpoints
from lssl_ray.storage.runs import FETCH_SECONDS, fetch_newest
from lssl_ray.storage.store import RunStore
from lssl_ray.tracking.journal import file_damage
from lssl_ray.training.checkpoint import (
    checkpoint_name,
    find_latest_checkpoint,
    list_checkpoints,
)
from lssl_ray.validation.composing import build_holder

# Apart from the desk, which must not wait for it. What it does twice is as good as done once.
StoreKeeper = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(SessionKeeper)


def open_keeper(store: RunStore, job: TrainJob) -> Any:
    """Start a session's keeper on this node.

    Args:
        store: Of the run.
        job: Its run folder is claimed.
    """
    holder = build_holder(job.config, job.run_folder, num_videos=len(job.manifest))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    keeper = cast(Any, StoreKeeper).options(scheduling_strategy=here)
    return keeper.remote(store, job.run_folder, holder)


def file_known_checkpoints(store: RunStore | None, run_folder: Path) -> None:
    """Tell Ray Train which checkpoints there are; see `bookkeeping`.

    Args:
        store: Of a run that is kept in one.
        run_folder: Of another one.

    Raises:
        CheckpointError: The store can't be asked.
        OSError: The list can't be written.
    """
    if store is None:
        file_checkpoints(run_folder)
        return
    newest = find_newest_step(store)  # as long as it should be; workers read what is in it
    last = "" if newest is None else checkpoint_name(newest)
    kept = [name for name in store.list_checkpoints() if name <= last]
    place = f"{store.parent}/{store.name}"
    store.filesystem.create_dir(place, recursive=True)
    write_checkpoint_list(place, kept, filesystem=store.filesystem)


def bring_results(store: RunStore | None, run_folder: Path, *, num_to_keep: int) -> None:
    """After training the driver's machine has the last checkpoint, and there are no more than due.

    Ray Train does not know, and keeps, those whose workers died before they could tell it.

    Raises:
        CheckpointError: The store can't be asked.
    """
    if store is None:
        for old in list_checkpoints(run_folder)[:-num_to_keep]:
            shutil.rmtree(old)
        return
    fetch_newest(store, run_folder)
    delete_old_checkpoints(store, num_to_keep=num_to_keep)


def list_storage(store: RunStore | None, run_folder: Path) -> dict[str, Any]:
    """Where Ray Train puts a run: settings of its own `RunConfig`."""
    if store is None:
        return {"name": run_folder.name, "storage_path": str(run_folder.parent)}
    return {
        "name": store.name,
        "storage_path": store.parent,
        "storage_filesystem": store.filesystem,
    }


def find_checkpoint(
    store: RunStore | None, run_folder: Path, *, context: RayContext
) -> Path | None:
    """The newest whole checkpoint, readable on this worker's machine; all workers must call it.

    Args:
        store: Of a run that is kept in one; `drop_for_worker` once all have read it.
        run_folder: Of another one.
        context: Of this worker.

    Raises:
        LsslError: No worker goes on, because one could not get it.
    """
    on_damage = partial(file_damage, context.append) if context.rank == 0 else None
    if store is None:
        return find_latest_checkpoint(run_folder, on_damage=on_damage)
    checkpoint, error = None, None
    try:
        checkpoint = fetch_for_worker(store, on_damage=on_damage)
    except LsslError as failed:
        error = failed
    context.raise_together(error)
    return checkpoint


def fetch_for_worker(store: RunStore, *, on_damage: Callable[[str], None] | None) -> Path | None:
    """Bring the newest whole checkpoint to this machine, once for all of its workers.

    Args:
        store: Of the run.
        on_damage: Told of each damaged one.

    Raises:
        CheckpointError: The store can't be asked.
        OSError: There is no room for it here.
    """
    folder = find_worker_folder(store)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if folder.parent.stat().st_uid != os.getuid():
        raise CheckpointError(
            f"{folder.parent} belongs to another user, who could change what is fetched there; "
            "remove it, or set TMPDIR on this node."
        )
    with holding(folder.with_suffix(".lock"), what=str(folder), seconds=FETCH_SECONDS):
        return fetch_newest(store, folder, on_damage=on_damage)


def drop_for_worker(store: RunStore | None) -> None:
    """Delete what `fetch_for_worker` brought, once all workers have read it."""
    if store is not None:
        shutil.rmtree(find_worker_folder(store), ignore_errors=True)


def find_worker_folder(store: RunStore) -> Path:
    """Where workers of this machine have a run's checkpoint while they start."""
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"lssl_ray-{os.getuid()}", name)
