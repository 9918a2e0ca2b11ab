"""Checkpoints of a run in a store: whole ones are brought here, damaged ones are named.

The rules of wholeness are those of `training/checkpoint.py`, applied to what arrived.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from lssl_ray.storage.store import RunStore
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, INDEX_FILE, find_damage

logger = logging.getLogger(__name__)


def fetch_folder(
    store: RunStore, name: str, target: Path, *, files: Collection[str] | None = None
) -> str | None:
    """Bring a checkpoint here, whole or not at all; what is wrong with the one in the store.

    Args:
        store: Of the run.
        name: The checkpoint's folder: `checkpoints/step_...`, `best`.
        target: Its folder here; fetched only if it is not there whole.
        files: Those that are needed; the index here then names no others. None for all.

    Raises:
        CheckpointError: The store can't be asked.
    """
    index = _read_index(store, name, files)
    if index is None:
        return f"{INDEX_FILE} is missing or cut"
    if target.is_dir() and find_damage(target, files=files) is None:
        is_same: bool = json.loads((target / INDEX_FILE).read_text()) == index
        if is_same:
            return None
    names = [file for file in store.list_files(name) if file != INDEX_FILE]
    wanted = names if files is None else [file for file in names if file in files]
    staging = target.with_name(f".{os.getpid()}.{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        store.fetch({f"{name}/{file}": staging / file for file in wanted})
        (staging / INDEX_FILE).write_text(json.dumps(index, indent=2))
        problem = find_damage(staging, files=files)
        if problem is None:
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staging, target)
        return problem
    except FileNotFoundError as error:
        return f"{error} is gone"
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def fetch_latest_checkpoint(
    store: RunStore,
    folder: Path,
    *,
    files: Collection[str] | None = None,
    on_damage: Callable[[str], None] | None = None,
) -> Path | None:
    """Bring the newest whole checkpoint here; damaged newer ones are named.

    Args:
        store: Of the run.
        folder: Gets a folder named like the checkpoint.
        files: See `fetch_folder`.
        on_damage: Told of each damaged one, with what is wrong; by default the log is.

    Raises:
        CheckpointError: The store can't be asked.
    """
    seen: list[str] = []
    # A run that trains meanwhile deletes old ones: listed again while there are others.
    while (names := store.list_checkpoints()) != seen:
        for name in reversed(names):
            problem = fetch_folder(
                store, f"{CHECKPOINTS_FOLDER}/{name}", folder / name, files=files
            )
            if problem is None:
                return folder / name
            message = f"Checkpoint {name} of {store.uri} is not used: {problem}."
            if on_damage is None:
                logger.warning("%s", message)
            else:
                on_damage(message)
        seen = names
    return None


def find_newest_step(store: RunStore) -> int | None:
    """Step of the newest checkpoint that is as long as its index says; its content is not read.

    Raises:
        CheckpointError: The store can't be asked.
    """
    for name in reversed(store.list_checkpoints()):
        folder = f"{CHECKPOINTS_FOLDER}/{name}"
        index = _read_index(store, folder, None)
        if index is None:
            continue  # whoever fetches it says so
        sizes = {file: entry["bytes"] for file, entry in index["files"].items()}
        if sizes.items() <= store.list_files(folder).items():
            return int(name.removeprefix("step_"))
    return None


def _read_index(store: RunStore, name: str, files: Collection[str] | None) -> dict[str, Any] | None:
    """A checkpoint's index, of some files only where they are named; None where there is none."""
    try:
        index: dict[str, Any] = json.loads(store.read(f"{name}/{INDEX_FILE}") or b"")
        listed = {file: dict(entry) for file, entry in index["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if files is not None:
        listed = {file: entry for file, entry in listed.items() if file in files}
    return {**index, "files": listed}
