"""A full disk: told apart from other failures, and told to the person with the way out.

Libraries and Ray wrap what the system says in errors of their own, without its number; then their
text decides.
"""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")
MIB = 2**20


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is a full disk or a used-up quota."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        if isinstance(one, OSError) and one.errno in _NUMBERS:
            return True
        if any(words in str(one) for words in _WORDS):
            return True
        seen.append(one)
        waiting += [one.__cause__, one.__context__, *_list_held(one)]
    return False


def describe_full_disk(folders: Iterable[Path], *, needed_bytes: int, run: Path) -> str:
    """What to tell the person.

    Args:
        folders: Written to when it happened; the one with the least room is named.
        needed_bytes: Of a checkpoint, as far as known; 0 if not at all.
        run: Folder of the run, to go on with.
    """
    rooms = {folder: shutil.disk_usage(find_existing(folder)).free for folder in folders}
    folder = min(rooms, key=lambda one: rooms[one])
    needed = f"; a checkpoint takes {needed_bytes / MIB:.1f} MiB" if needed_bytes else ""
    return (
        f"The disk of {folder} is full, or its quota used up: {rooms[folder] / MIB:.1f} MiB are "
        f"free{needed}. The checkpoints before are whole, and nothing half-written is left. "
        "Free space there (it takes run.checkpoints_to_keep and one more), then go on with: "
        f"lssl-ray train --resume {run}"
    )


def _list_held(error: BaseException) -> list[BaseException]:
    """What Ray's errors hold apart from Python's chain."""
    held = [getattr(error, name, None) for name in ("cause", "controller_failure")]
    failures = getattr(error, "worker_failures", None)
    held += failures.values() if isinstance(failures, dict) else ()
    return [one for one in held if isinstance(one, BaseException)]


def measure_bytes(folder: Path) -> int:
    """Bytes of the files of a folder; 0 if it is not there."""
    return sum(path.stat().st_size for path in folder.glob("**/*") if path.is_file())


def find_existing(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())
