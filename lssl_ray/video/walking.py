"""Files below a folder on a disk or behind a URI: sorted, each once, with size and time.

Not here: what a user may give besides folders (`discovery`).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from lssl_ray.video.lists import VIDEO_EXTENSIONS, Entry
from lssl_ray.video.remote import RemoteFile, as_local_path, has_scheme, list_remote

__all__ = [
    "Hit",
    "as_absolute",
    "as_hit",
    "find_extension",
    "join_path",
    "stat_file",
    "walk_videos",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A file that a search came upon.

    Attributes:
        path: Absolute path, links kept, or URI.
        identity: The same for all ways that lead to a file.
        size_bytes: 0 if not known.
        mtime_ns: 0 if not known.
        entry: The row of the list that named it, or None.
        missing: See `discovery.FoundVideo`.
    """

    path: str
    identity: str
    size_bytes: int
    mtime_ns: int
    entry: Entry | None = None
    missing: str | None = None


def walk_videos(folder: str, ignored: Counter[str]) -> Iterator[Hit]:
    """Videos below a folder, by extension, hidden ones left out, links followed once.

    Args:
        folder: Absolute path or URI.
        ignored: Where other files are counted, see `discovery.FoundVideos`.

    Raises:
        DataError: A URI can't be listed. A local folder that can't is counted.
    """
    if not has_scheme(folder):
        yield from _walk(folder, os.path.realpath(folder), ignored, set())
        return
    files = list_remote(folder, wanted=lambda uri: find_extension(uri) in VIDEO_EXTENSIONS)
    for file in files:
        name = file.uri.removeprefix(folder.rstrip("/") + "/")
        if any(part.startswith(".") for part in name.split("/")):
            ignored["(hidden)"] += 1
        elif find_extension(file.uri) in VIDEO_EXTENSIONS:
            yield as_hit(file)
        else:
            ignored[find_extension(file.uri)] += 1


def _walk(
    folder: str, real: str, ignored: Counter[str], visited: set[tuple[int, int]]
) -> Iterator[Hit]:
    """Video files under a folder, sorted, each folder once however many links lead to it."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("%s: can't list this folder: %s", folder, error.strerror)
        ignored["(unreadable folder)"] += 1
        return
    for entry in entries:
        is_link = entry.is_symlink()
        # Resolving every path anew would cost more than all the rest.
        target = os.path.realpath(entry.path) if is_link else f"{real.rstrip('/')}/{entry.name}"
        if entry.name.startswith("."):
            ignored["(hidden)"] += 1
        elif os.path.isdir(entry.path) if is_link else entry.is_dir():
            yield from _walk(entry.path, target, ignored, visited)
        elif find_extension(entry.name) in VIDEO_EXTENSIONS:
            yield stat_file(entry.path, identity=entry.path if target == entry.path else target)
        else:
            ignored[find_extension(entry.name)] += 1


def stat_file(path: str, *, identity: str | None = None, missing: str | None = None) -> Hit:
    """A local file's size and time, zeros if it has none.

    Args:
        path: Absolute path.
        identity: Its resolved path, where the caller knows it.
        missing: What to note if there is no such file.
    """
    identity = os.path.realpath(path) if identity is None else identity
    try:
        status = os.stat(path)
    except OSError as error:  # a broken link or no permission: the probe says which
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        return Hit(path, identity, 0, 0, missing=missing if gone else None)
    return Hit(path, identity, status.st_size, status.st_mtime_ns)


def as_hit(file: RemoteFile) -> Hit:
    """A remote file as a hit."""
    return Hit(file.uri, file.uri, file.size_bytes, file.mtime_ns)


def find_extension(path: str) -> str:
    """Lower-case extension of a path or URI with its dot, "" for none."""
    name = urlsplit(path).path if has_scheme(path) else path
    return os.path.splitext(name)[1].lower()


def as_absolute(path: str) -> str:
    """An absolute path; a URI as it is, but for file://.

    Raises:
        DataError: A file URI names another machine.
    """
    path = as_local_path(path)
    return path if has_scheme(path) else os.path.abspath(path)


def join_path(folder: str, path: str) -> str:
    """A path or URI from where it starts: a folder or a URI.

    Raises:
        DataError: A file URI names another machine.
    """
    path = as_local_path(path)
    if has_scheme(path):
        return path
    if has_scheme(folder):
        return f"{folder.rstrip('/')}/{path}"
    return os.path.normpath(os.path.join(folder, path))
