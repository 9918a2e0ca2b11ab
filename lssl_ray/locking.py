"""Keeping a second process away from a folder: a lock that goes with the process that holds it.

Between processes of one machine; on what several machines share it is as good as their file system.
"""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lssl_ray.errors import ConfigError

POLL_SECONDS = 0.2


def find_lock(run_folder: Path) -> Path:
    """A trial's lock, beside its run folder."""
    return run_folder.with_name(f".{run_folder.name}.lock")


@contextmanager
def holding(path: Path, *, what: str, seconds: float = 0.0) -> Iterator[None]:
    """Keep a second process away; the lock goes with the process that holds it.

    Args:
        path: The lock's file; made when absent.
        what: For the error.
        seconds: To wait for another process to end.

    Raises:
        ConfigError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("a") as file:
        while not _lock(file):
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{what} is being worked on by another process; wait for its end, or end it."
                )
            time.sleep(POLL_SECONDS)
        yield


def wait_until_free(paths: Sequence[Path], *, seconds: float) -> bool:
    """Wait until no process holds any of the locks; whether that came about."""
    deadline = time.monotonic() + seconds
    for path in paths:
        while path.exists():
            with path.open("a") as file:
                if _lock(file):
                    break
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
    return True


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
