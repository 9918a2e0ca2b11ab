"""What is done beside the run folder while workers elsewhere train and put checkpoints."""

import shutil
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.storage.checkpoints import fetch_folder
from lssl_ray.storage.mirror import RunMirror
from lssl_ray.storage.store import RunStore
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, checkpoint_name
from lssl_ray.training.holding import CheckpointHolder, read_asked, read_step


class SessionKeeper:
    """Puts a session's record into the store, and fetches the checkpoints to be evaluated.

    Args:
        store: Of the run.
        run_folder: On this machine, and claimed.
        holder: Sets checkpoints aside; None where none is evaluated.
    """

    def __init__(self, store: RunStore, run_folder: Path, holder: CheckpointHolder | None) -> None:
        self._store = store
        self._folder = run_folder
        self._mirror = RunMirror(store, self._folder)
        self._holder = holder

    def put_record(self) -> None:
        """Before a checkpoint is there, its rows are."""
        self._mirror.put_record()

    def begin_session(self, step: int) -> None:
        """Go on after a step: what was set aside later is forgotten, what was missed made up for.

        No worker may make a checkpoint before.
        """
        if self._holder is not None:
            self._holder.resume(step)
            if step and step not in read_asked(self._folder):
                self._hold(checkpoint_name(step))

    def take_checkpoint(self, name: str) -> None:
        """Set it aside when it is to be evaluated; no older one may be deleted before."""
        self._hold(name)
        self._mirror.put_best()

    def _hold(self, name: str) -> None:
        checkpoint = self._folder / CHECKPOINTS_FOLDER / name
        if self._holder is None or not self._holder.is_due(read_step(checkpoint)):
            return
        problem = fetch_folder(self._store, f"{CHECKPOINTS_FOLDER}/{name}", checkpoint)
        if problem is not None:
            raise CheckpointError(
                f"{self._store.uri}/{CHECKPOINTS_FOLDER}/{name} is not what was put there: "
                f"{problem}. Look after the store, then resume with: lssl-ray train --resume "
                f"{self._store.uri}"
            )
        self._holder.hold(checkpoint)
        shutil.rmtree(checkpoint)  # its files are linked by now
