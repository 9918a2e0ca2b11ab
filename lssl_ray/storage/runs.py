"""A stored run on this machine: gone on from, or fetched for use."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from lssl_ray.concepts.cache import find_cache_folder
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.locking import holding
from lssl_ray.storage.checkpoints import fetch_folder, fetch_latest_checkpoint, find_newest_step
from lssl_ray.storage.claims import CONFIG_FILE, claim, is_own, read_session
from lssl_ray.storage.mirror import RECORD_FILES, RECORD_FOLDERS, RunMirror
from lssl_ray.storage.store import RunStore, open_run_store, split_run_uri
from lssl_ray.tracking.outbox import move_outboxes
from lssl_ray.training.checkpoint import (
    CHECKPOINTS_FOLDER,
    INDEX_FILE,
    MODEL_FILES,
    find_latest_checkpoint,
)
from lssl_ray.training.holding import HELD_FOLDER, read_step
from lssl_ray.validation.best import BEST_FOLDER

logger = logging.getLogger(__name__)

SPACE_FILE = "artifacts/concept_space.safetensors"
FETCH_SECONDS = 3600.0  # for another process of this machine that fetches the same


def bring_together(store: RunStore, run_folder: Path) -> None:
    """Make a run folder and its store agree before a run goes on.

    A folder that wrote last is as new as the store. Of another one, the newest whole checkpoint
    decides: the folder is kept only where its own is newer. What is kept goes to the store.

    Raises:
        CheckpointError: No run in either, or the store can't be asked.
    """
    in_store = CONFIG_FILE in store.list_files()
    is_here = (run_folder / CONFIG_FILE).is_file()
    if not in_store and not is_here:
        raise CheckpointError(f"No run to resume at {store.uri}.")
    newest = find_latest_checkpoint(run_folder) if is_here else None
    own_step = -1 if newest is None else read_step(newest)
    store_step = find_newest_step(store) if in_store else None
    is_newer = own_step > (-1 if store_step is None else store_step)
    wrote_last = is_here and is_own(read_session(store), run_folder)
    if in_store and not is_newer and not wrote_last:
        _replace_record(store, run_folder)
    claim(store, run_folder)
    mirror = RunMirror(store, run_folder)
    mirror.put_record()
    if newest is not None and is_newer:
        logger.warning("%s is newer than %s and goes there.", newest, store.uri)
        mirror.put_checkpoint(newest, num_to_keep=len(store.list_checkpoints()) + 1)


def fetch_newest(
    store: RunStore,
    run_folder: Path,
    *,
    files: Collection[str] | None = None,
    on_damage: Callable[[str], None] | None = None,
) -> Path | None:
    """Bring the newest whole checkpoint into the run folder, and drop others there.

    Args:
        store: Of the run.
        run_folder: Or another folder that has `checkpoints/`.
        files: See `fetch_folder`.
        on_damage: See `fetch_latest_checkpoint`.

    Raises:
        CheckpointError: The store can't be asked.
    """
    folder = run_folder / CHECKPOINTS_FOLDER
    newest = fetch_latest_checkpoint(store, folder, files=files, on_damage=on_damage)
    for other in folder.glob("step_*") if newest is not None else ():
        if other != newest:
            shutil.rmtree(other)
    return newest


def fetch_model(uri: str) -> Path:
    """What a model for use is read from, kept below `~/.cache/lssl_ray`; again, only what changed.

    Args:
        uri: Of a run, or of one checkpoint of it (`best`, `checkpoints/step_...`).

    Returns:
        Folder of the run, or of the checkpoint in it. No training can be gone on with from it.

    Raises:
        CheckpointError: There is no run, or nothing whole in it.
        ConfigError: Nothing opens such a URI.
    """
    storage, name = split_run_uri(uri)
    store, part = open_run_store(storage, name=name), None
    if store.read(INDEX_FILE) is not None:
        run = storage.removesuffix(f"/{CHECKPOINTS_FOLDER}")
        part = name if run == storage else f"{CHECKPOINTS_FOLDER}/{name}"
        storage, name = split_run_uri(run)
        store = open_run_store(storage, name=name)
    files = [file for file in (CONFIG_FILE, SPACE_FILE) if file in store.list_files()]
    if CONFIG_FILE not in files:
        raise CheckpointError(f"No run at {store.uri}; give run.storage and the name of a run.")
    digest = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    folder = find_cache_folder("runs") / digest / name
    with holding(folder.with_suffix(".lock"), what=str(folder), seconds=FETCH_SECONDS):
        store.fetch({file: folder / file for file in files})
        if part is not None:
            problem = fetch_folder(store, part, folder / part, files=MODEL_FILES)
            if problem is not None:
                raise CheckpointError(
                    f"Checkpoint {uri} can't be used: {problem}. Name its run, and the newest "
                    "whole checkpoint is taken."
                )
            return folder / part
        if fetch_newest(store, folder, files=MODEL_FILES) is None:
            raise CheckpointError(f"{store.uri} has no whole checkpoint; train it first.")
    return folder


def require_copy(run_folder: Path, kept: str | None, storage: str) -> None:
    """Refuse to take the folder of something else for a run's working copy.

    Args:
        run_folder: Not empty.
        kept: `run.storage` of the run in it, if it has one.
        storage: Of the run that is wanted.

    Raises:
        CheckpointError: It is of something else.
    """
    if kept is None or kept.rstrip("/") != storage:
        raise CheckpointError(
            f"{run_folder} is no copy of {storage}/{run_folder.name} (its run.storage is {kept}); "
            "move it away, or resume in another folder."
        )


def require_same_store(run_folder: Path, kept: str | None, storage: str | None) -> None:
    """Refuse to leave a store: the checkpoints are there. A run may begin to be kept in one.

    Args:
        run_folder: Of the run.
        kept: Its `run.storage`.
        storage: The one that it shall go on with.

    Raises:
        ConfigError: They differ.
    """
    if kept is not None and kept != storage:
        raise ConfigError(
            f"{run_folder} is kept at {kept}, and its checkpoints are there, not at run.storage="
            f"{storage}. To move it, copy {kept}/{run_folder.name} and resume by the copy's URI."
        )


def _replace_record(store: RunStore, run_folder: Path) -> None:
    """The run folder's record as the store has it; what else is in the folder stays."""
    names = [
        name
        for name in store.list_files()
        if name in RECORD_FILES or name.split("/")[0] in (*RECORD_FOLDERS, BEST_FOLDER)
    ]
    staging = run_folder.with_name(f".{os.getpid()}.{run_folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        store.fetch({name: staging / name for name in names})
        move_outboxes(staging, run_folder=run_folder)
        run_folder.mkdir(parents=True, exist_ok=True)
        for name in RECORD_FILES:
            (run_folder / name).unlink(missing_ok=True)
        for name in (*RECORD_FOLDERS, BEST_FOLDER, HELD_FOLDER, CHECKPOINTS_FOLDER):
            shutil.rmtree(run_folder / name, ignore_errors=True)
        for path in staging.iterdir():
            os.replace(path, run_folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
