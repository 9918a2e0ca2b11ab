"""Labels for indexed files: from the lists of datasets or a CSV. Pure matching, no decoding.

Not here: the lists' formats (`lists`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lssl_ray.errors import DataError
from lssl_ray.video.lists import Entry, NameIndex, VideoList, load_list
from lssl_ray.video.walking import as_absolute, join_path

__all__ = ["Assignment", "LabelMatch", "load_label_lists"]


@dataclass(frozen=True)
class Assignment:
    """What a label file says about one video."""

    label: str | None
    split: str | None


@dataclass(frozen=True)
class LabelMatch:
    """Label files matched to the files that were found.

    Attributes:
        assignments: By absolute path or URI.
        num_unmatched_rows: Rows that name no file among those found.
        list_formats: Format by path of every label file.
    """

    assignments: Mapping[str, Assignment]
    num_unmatched_rows: int
    list_formats: Mapping[str, str]


def load_label_lists(
    paths: Sequence[str],
    *,
    video_paths: Sequence[str],
    roots: Sequence[str],
    list_root: str | None = None,
) -> LabelMatch:
    """Reads lists in any format of `lists` and matches their rows to videos.

    A row's path is absolute or relative to its list's folder, to `list_root`, or to an indexed
    root. Where a format names videos (Kinetics, UCF101, HMDB51), the file name is enough.

    Args:
        paths: The lists.
        video_paths: Absolute paths or URIs of the videos that were found.
        roots: The folders that were indexed.
        list_root: One more folder where relative paths may start.

    Raises:
        DataError: A list can't be read, a row is too short, a row matches several videos, or two
            rows contradict each other.
    """
    known = set(video_paths)
    names = NameIndex(video_paths)
    extra = () if list_root is None else (as_absolute(list_root),)
    assignments: dict[str, Assignment] = {}
    num_unmatched = 0
    lists = [load_list(path) for path in paths]
    for videos in lists:
        folders = [os.path.dirname(as_absolute(videos.path)), *extra, *roots]
        for entry, found in _match(videos, folders, known, names):
            if found is None:
                num_unmatched += 1
                continue
            assignment = Assignment(label=entry.label, split=entry.split)
            if assignments.setdefault(found, assignment) != assignment:
                raise DataError(
                    f"{videos.path} line {entry.line}: {entry.path!r} already has another label or "
                    "split; keep one row per video."
                )
    formats = {videos.path: videos.format for videos in lists}
    return LabelMatch(assignments, num_unmatched, formats)


def _match(
    videos: VideoList, folders: Sequence[str], known: set[str], names: NameIndex
) -> Iterator[tuple[Entry, str | None]]:
    for entry in videos.entries:
        if entry.names:
            yield entry, names.find(entry, videos.path)
            continue
        candidates = {join_path(folder, entry.path) for folder in folders}
        found = sorted(candidates & known)
        if len(found) > 1:
            raise DataError(
                f"{videos.path} line {entry.line}: {entry.path!r} may be {found[0]} or {found[1]}; "
                "write the absolute path."
            )
        yield entry, found[0] if found else None
