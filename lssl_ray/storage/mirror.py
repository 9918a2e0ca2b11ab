"""What of a run folder goes into its store, and when.

::

    URI/NAME/
        run_config.yaml, metrics.jsonl, ..., artifacts/, tracking/, best/   as in the run folder
        checkpoints/     put there by whoever trains (Ray Train; with `--local` this process)
        session.json     who writes, see `claims`

Before a checkpoint appears in the store, the rows up to it are there: whoever puts one calls
`RunMirror.put_record` first.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.storage.claims import CONFIG_FILE, require_claim
from lssl_ray.storage.store import RunStore
from lssl_ray.tracking.journal import FILES
from lssl_ray.tracking.outbox import OUTBOX_FOLDER
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, INDEX_FILE
from lssl_ray.training.holding import ASKED_FILE, HELD_FOLDER
from lssl_ray.validation.best import BEST_FILE, BEST_FOLDER

logger = logging.getLogger(__name__)

RECORD_FILES = (CONFIG_FILE, *FILES.values(), "summary.json", f"{HELD_FOLDER}/{ASKED_FILE}")
RECORD_FOLDERS = ("artifacts", OUTBOX_FOLDER)
_LOGS = "logs"


class RunMirror:
    """Puts what changed in a run folder into the store; one per process, asked from one thread.

    Args:
        store: Of the run.
        run_folder: On this machine, and claimed.
    """

    def __init__(self, store: RunStore, run_folder: Path) -> None:
        self._store = store
        self._folder = run_folder
        self._put: dict[str, tuple[int, int, int]] = {}  # as each file was when it was put

    def put_record(self) -> None:
        """All small files: configuration, rows, concept space, artifacts, tracking.

        Raises:
            CheckpointError: The store took one not, or another process writes there by now.
        """
        require_claim(self._store, self._folder)
        paths = [self._folder / name for name in RECORD_FILES]
        for folder in RECORD_FOLDERS:
            paths += sorted((self._folder / folder).rglob("*"))
        for path in paths:
            # A dot: a file that is still being written, under another name.
            if path.is_file() and not path.name.startswith("."):
                self._put_changed(path)

    def put_best(self) -> None:
        """The best checkpoint, unless it is there; best.json goes last, so it says what is there.

        Raises:
            CheckpointError: As for `put_record`.
        """
        folder = self._folder / BEST_FOLDER
        try:
            content = (folder / BEST_FILE).read_bytes()
            if content == self._store.read(f"{BEST_FOLDER}/{BEST_FILE}"):
                return
            names = sorted(path.name for path in folder.iterdir())
            last = (INDEX_FILE, BEST_FILE)
            for name in [*(name for name in names if name not in last), *last]:
                self._store.put(folder / name, f"{BEST_FOLDER}/{name}")
        except FileNotFoundError:
            return  # there is none, or a better one takes its place right now: the next time

    def put_checkpoint(self, checkpoint: Path, *, num_to_keep: int) -> None:
        """A whole checkpoint of this machine, its index last; older ones go.

        Raises:
            CheckpointError: As for `put_record`.
        """
        require_claim(self._store, self._folder)
        names = sorted(path.name for path in checkpoint.iterdir())
        for name in [*(name for name in names if name != INDEX_FILE), INDEX_FILE]:
            self._store.put(checkpoint / name, f"{CHECKPOINTS_FOLDER}/{checkpoint.name}/{name}")
        delete_old_checkpoints(self._store, num_to_keep=num_to_keep)

    def put_all(self) -> None:
        """Everything but checkpoints, once a session is over.

        Raises:
            CheckpointError: As for `put_record`.
        """
        self.put_record()
        self.put_best()
        for path in sorted((self._folder / _LOGS).glob("*")):
            if path.is_file():
                self._put_changed(path)

    def _put_changed(self, path: Path) -> None:
        name = path.relative_to(self._folder).as_posix()
        try:
            stat = path.stat()
            version = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if self._put.get(name) != version:
                self._store.put(path, name)
                self._put[name] = version
        except FileNotFoundError:
            return  # replaced in this moment: the next time


def keep_checkpoints(
    store: RunStore | None,
    run_folder: Path,
    *,
    num_to_keep: int,
    then: Callable[[Path], None] | None,
) -> Callable[[Path], None] | None:
    """What a run in this process does with each whole checkpoint; training waits for it.

    Args:
        store: Gets it, rows first; None for a run that is not kept in one.
        run_folder: Claimed.
        num_to_keep: Checkpoints that stay in the store.
        then: What is done with it besides.
    """
    if store is None:
        return then
    mirror = RunMirror(store, run_folder)

    def keep(checkpoint: Path) -> None:
        mirror.put_record()
        mirror.put_checkpoint(checkpoint, num_to_keep=num_to_keep)
        mirror.put_best()
        if then is not None:
            then(checkpoint)

    return keep


@contextmanager
def mirroring(store: RunStore | None, run_folder: Path) -> Iterator[None]:
    """Keep a run's folder in its store: at the start of the block, and at its end, good or bad.

    Args:
        store: None does nothing.
        run_folder: On this machine, and claimed.

    Raises:
        CheckpointError: The store did not take it all; the files are in the run folder.
    """
    if store is None:
        yield
        return
    mirror = RunMirror(store, run_folder)
    mirror.put_record()
    try:
        yield
    except BaseException:
        try:
            mirror.put_all()
        except CheckpointError as error:
            logger.warning("What happened since the last checkpoint is not in the store: %s", error)
        raise
    try:
        mirror.put_all()
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} The run is whole in {run_folder}; to put the rest of it into the store: "
            f"lssl-ray train --resume {run_folder}"
        ) from error


def delete_old_checkpoints(store: RunStore, *, num_to_keep: int) -> None:
    """Keep the newest ones.

    Raises:
        CheckpointError: The store did not do it.
    """
    for name in store.list_checkpoints()[:-num_to_keep]:
        store.delete(f"{CHECKPOINTS_FOLDER}/{name}")
