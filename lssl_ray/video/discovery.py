"""Finding video files under folders: deterministic, safe with links, nothing opened.

Not here: whether a file is really a video (`isolation`), what becomes of it (`index`).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lssl_ray.errors import DataError

__all__ = ["VIDEO_EXTENSIONS", "FoundVideo", "FoundVideos", "as_text", "find_videos"]

logger = logging.getLogger(__name__)

_CONTAINERS = "mp4 m4v mov avi mkv webm gif mpg mpeg ts mts m2ts wmv flv 3gp ogv swf"
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _CONTAINERS.split())


@dataclass(frozen=True)
class FoundVideo:
    """A file to probe; size and time are 0 for a broken link.

    Attributes:
        video_id: See `VideoRecord`.
        path: Absolute path, links kept.
        size_bytes: Size of the file.
        mtime_ns: Its modification time, nanoseconds since 1970.
    """

    video_id: str
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class FoundVideos:
    """What a search found.

    Attributes:
        videos: Sorted by video_id.
        roots: Absolute paths of the folders searched (a single file's folder).
        ignored_by_extension: Count of other files by lower-case extension ("" for none);
            "(hidden)" and "(unreadable folder)" count those.
        num_duplicates: Files reached a second time, by a link or an overlapping folder.
    """

    videos: tuple[FoundVideo, ...]
    roots: tuple[str, ...]
    ignored_by_extension: Mapping[str, int]
    num_duplicates: int


def find_videos(paths: Sequence[str]) -> FoundVideos:
    """Searches folders recursively, following links once; takes single files as given.

    In folders, known extensions count (any case) and hidden entries are skipped.

    Args:
        paths: Folders and files.

    Raises:
        DataError: A path doesn't exist, nothing is found, or two files get the same video_id.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise DataError(f"{path}: does not exist; give a folder with videos or a video file.")
    ignored: Counter[str] = Counter()
    seen: set[str] = set()
    by_id: dict[str, FoundVideo] = {}
    roots: list[str] = []
    num_duplicates = 0
    for given in map(os.path.abspath, paths):
        is_folder = os.path.isdir(given)
        root = given if is_folder else os.path.dirname(given)
        roots.append(root)
        for path in _walk(given, ignored, set()) if is_folder else (given,):
            real = os.path.realpath(path)
            if real in seen:
                num_duplicates += 1
                continue
            seen.add(real)
            video = _describe(path, root, with_root_name=len(paths) > 1)
            other = by_id.setdefault(video.video_id, video)
            if other is not video:
                raise DataError(
                    f"{other.path} and {path} would both be video_id {video.video_id!r}; index "
                    "their common parent folder instead, or rename one of the folders."
                )
    if not by_id:
        raise DataError(
            f"no video in {', '.join(paths) or 'an empty list of paths'}; looked for "
            f"{' '.join(sorted(VIDEO_EXTENSIONS))}, ignored {dict(ignored) or 'nothing'}. Give "
            "another folder, or a file by its name."
        )
    videos = tuple(by_id[video_id] for video_id in sorted(by_id))
    return FoundVideos(videos, tuple(roots), dict(sorted(ignored.items())), num_duplicates)


def _walk(folder: str, ignored: Counter[str], visited: set[tuple[int, int]]) -> Iterator[str]:
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
        if entry.name.startswith("."):
            ignored["(hidden)"] += 1
        elif os.path.isdir(entry.path):
            yield from _walk(entry.path, ignored, visited)
        else:
            extension = os.path.splitext(entry.name)[1].lower()
            if extension in VIDEO_EXTENSIONS:
                yield entry.path
            else:
                ignored[extension] += 1


def _describe(path: str, root: str, *, with_root_name: bool) -> FoundVideo:
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    if with_root_name:
        relative = f"{os.path.basename(root)}/{relative}"
    try:
        status = os.stat(path)
        size_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a broken link or no permission: the probe says which
        size_bytes, mtime_ns = 0, 0
    return FoundVideo(as_text(relative), path, size_bytes, mtime_ns)


def as_text(path: str) -> str:
    """A path whose bytes are not UTF-8 can't be stored in a manifest; its escaped form can."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
