"""Finding videos: folders, files, patterns, lists and URIs; deterministic, no video opened.

Not here: whether a file is really a video (`isolation`), what becomes of it (`index`), the formats
of lists (`lists`), how folders are walked (`walking`, `remote`).
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from lssl_ray.errors import DataError
from lssl_ray.video.lists import (
    LIST_EXTENSIONS,
    UNUSED,
    VIDEO_EXTENSIONS,
    NameIndex,
    load_list,
)
from lssl_ray.video.remote import (
    has_scheme,
    is_remote_folder,
    match_remote,
    stat_all_remote,
)
from lssl_ray.video.walking import (
    Hit,
    as_absolute,
    as_hit,
    find_extension,
    join_path,
    stat_file,
    walk_videos,
)

__all__ = ["VIDEO_EXTENSIONS", "FoundVideo", "FoundVideos", "as_text", "find_videos"]


@dataclass(frozen=True, slots=True)
class FoundVideo:
    """A file to probe; size and time are 0 for a broken link, and where a server doesn't say.

    Attributes:
        video_id: See `VideoRecord`.
        path: Absolute path, links kept, or URI.
        size_bytes: Size of the file.
        mtime_ns: Its modification time, nanoseconds since 1970.
        label: What the list says that named it, or None.
        split: Likewise.
        missing: For a file that is listed and not there, where it is listed; else None.
    """

    video_id: str
    path: str
    size_bytes: int
    mtime_ns: int
    label: str | None = None
    split: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class FoundVideos:
    """What a search found.

    Attributes:
        videos: Sorted by video_id.
        roots: The folders searched (a single file's folder), absolute or URIs.
        ignored_by_extension: Count of other files by lower-case extension ("" for none);
            "(hidden)" and "(unreadable folder)" count those.
        num_duplicates: Files reached a second time, by a link, a list or an overlapping folder.
        list_formats: Format by path of every list that was read.
        num_unused_rows: Rows of lists that say the video is in neither part of the split.
    """

    videos: tuple[FoundVideo, ...]
    roots: tuple[str, ...]
    ignored_by_extension: Mapping[str, int]
    num_duplicates: int
    list_formats: Mapping[str, str]
    num_unused_rows: int


def find_videos(paths: Sequence[str], *, root: str | None = None) -> FoundVideos:
    """Searches folders recursively, following links once; reads lists; takes files as given.

    In folders and patterns, known extensions count (any case) and hidden entries are skipped.

    Args:
        paths: Folders, files, patterns with `*`, lists (see `lists`), or URIs of any of these.
        root: Folder or URI where relative paths in lists start; None for the list's own folder.

    Raises:
        DataError: A path doesn't exist, nothing is found, a list can't be read or contradicts
            another, or two files get the same video_id.
    """
    search = _Search(root)
    sources = [source for path in paths for source in search.expand(path)]
    # A label in a list counts, also where a folder has the same file.
    sources.sort(key=lambda source: source.kind != "list")
    roots = {source.root for source in sources}
    by_id: dict[str, FoundVideo] = {}
    num_duplicates = 0
    seen: dict[str, FoundVideo] = {}
    for start, hit in ((source.root, hit) for source in sources for hit in search.hits(source)):
        video = _name(hit, start, with_root_name=len(roots) > 1)
        first = seen.setdefault(hit.identity, video)
        if first is not video:
            _check_same(first, video)
            num_duplicates += 1
            continue
        other = by_id.setdefault(video.video_id, video)
        if other is not video:
            raise DataError(
                f"{other.path} and {video.path} would both be video_id {video.video_id!r}; index "
                "their common parent folder instead, or rename one of the folders."
            )
    if not by_id:
        raise DataError(
            f"no video in {', '.join(paths) or 'an empty list of paths'}; looked for "
            f"{' '.join(sorted(VIDEO_EXTENSIONS))}, ignored {dict(search.ignored) or 'nothing'}. "
            "Give another folder, or a file by its name."
        )
    return FoundVideos(
        videos=tuple(by_id[video_id] for video_id in sorted(by_id)),
        roots=tuple(sorted(roots)),
        ignored_by_extension=dict(sorted(search.ignored.items())),
        num_duplicates=num_duplicates,
        list_formats=dict(sorted(search.list_formats.items())),
        num_unused_rows=search.num_unused_rows,
    )


def as_text(path: str) -> str:
    """A path whose bytes are not UTF-8 can't be stored in a manifest; its escaped form can."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class _Source:
    kind: Literal["folder", "file", "list"]
    path: str
    root: str


class _Search:
    """Expands what a user gives into sources, and sources into files; counts on the way."""

    def __init__(self, root: str | None) -> None:
        self.ignored: Counter[str] = Counter()
        self.list_formats: dict[str, str] = {}
        self.num_unused_rows = 0
        self._list_root = None if root is None else as_absolute(root)
        self._names: dict[str, tuple[NameIndex, dict[str, Hit]]] = {}

    def expand(self, given: str) -> list[_Source]:
        path = as_absolute(given)
        if has_scheme(path):
            return (
                self._expand_pattern(path, match_remote(path))
                if "*" in path
                else [self._classify(path, is_folder=is_remote_folder(path))]
            )
        if os.path.lexists(path):
            return [self._classify(path, is_folder=os.path.isdir(path))]
        if glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))
            return self._expand_pattern(path, [(match, os.path.isdir(match)) for match in matches])
        raise DataError(
            f"{given}: does not exist; give a folder with videos, a video file or a list of them."
        )

    def _classify(self, path: str, *, is_folder: bool, root: str | None = None) -> _Source:
        if is_folder:
            return _Source("folder", path, root or path.rstrip("/"))
        if find_extension(path) in LIST_EXTENSIONS:
            return _Source("list", path, self._list_root or os.path.dirname(path))
        return _Source("file", path, root or os.path.dirname(path))

    def _expand_pattern(self, pattern: str, matches: Sequence[tuple[str, bool]]) -> list[_Source]:
        """Sources of a pattern's matches, each with whether it is a folder."""
        if not matches:
            raise DataError(f"{pattern}: no file matches this pattern.")
        parts = pattern.split("/")
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = "/".join(parts[:fixed]) or "/"
        wanted = LIST_EXTENSIONS if find_extension(pattern) in LIST_EXTENSIONS else VIDEO_EXTENSIONS
        sources = []
        for path, is_folder in matches:
            if is_folder:
                if "**" not in parts:  # otherwise its files match themselves
                    sources.append(self._classify(path, is_folder=True, root=root))
            elif find_extension(path) in wanted:
                sources.append(self._classify(path, is_folder=False, root=root))
            else:
                self.ignored[find_extension(path)] += 1
        return sources

    def hits(self, source: _Source) -> Iterator[Hit]:
        if source.kind == "list":
            yield from self._hits_of_list(source)
        elif source.kind == "folder":
            yield from walk_videos(source.path, self.ignored)
        elif has_scheme(source.path):
            (file,) = stat_all_remote([source.path])
            if file is None:
                raise DataError(f"{source.path}: does not exist; give a folder, a file or a list.")
            yield as_hit(file)
        else:
            yield stat_file(source.path)

    def _hits_of_list(self, source: _Source) -> Iterator[Hit]:
        videos = load_list(source.path)
        self.list_formats[source.path] = videos.format
        entries = [entry for entry in videos.entries if entry.split != UNUSED]
        self.num_unused_rows += len(videos.entries) - len(entries)
        known: dict[str, Hit] = {}
        targets = []
        for entry in entries:
            path = None
            if entry.names and not source.root.startswith(("http://", "https://")):
                names, known = self._names_below(source.root)
                path = names.find(entry, source.path)
            targets.append((entry, path or join_path(source.root, entry.path)))
        unknown = [path for _, path in targets if has_scheme(path) and path not in known]
        remote = dict(zip(unknown, stat_all_remote(unknown), strict=True))
        for entry, path in targets:
            where = f"listed in {os.path.basename(source.path)} line {entry.line}, not there"
            hit = known.get(path)
            if hit is None and has_scheme(path):
                file = remote[path]
                hit = Hit(path, path, 0, 0, missing=where) if file is None else as_hit(file)
            elif hit is None:
                hit = stat_file(path, missing=where)
            yield Hit(path, hit.identity, hit.size_bytes, hit.mtime_ns, entry, hit.missing)

    def _names_below(self, root: str) -> tuple[NameIndex, dict[str, Hit]]:
        """Videos below a folder by name and by path; walked once for all lists."""
        if root not in self._names:
            hits = {hit.path: hit for hit in walk_videos(root, Counter())}
            self._names[root] = NameIndex(hits), hits
        return self._names[root]


def _name(hit: Hit, root: str, *, with_root_name: bool) -> FoundVideo:
    below = root.rstrip("/") + "/"
    name = hit.path.removeprefix(below)
    if has_scheme(name):
        name = name.split("://", 1)[1]
    if hit.path.startswith(("http://", "https://")):
        name = unquote(name.split("?")[0])  # the same id as where the folder lies on a disk
    if with_root_name and hit.path.startswith(below):
        name = f"{os.path.basename(root.rstrip('/'))}/{name}"
    label, split = (hit.entry.label, hit.entry.split) if hit.entry else (None, None)
    return FoundVideo(
        video_id=as_text(name.lstrip("/")),
        path=hit.path,
        size_bytes=hit.size_bytes,
        mtime_ns=hit.mtime_ns,
        label=label,
        split=split,
        missing=hit.missing,
    )


def _check_same(first: FoundVideo, second: FoundVideo) -> None:
    for name in ("label", "split"):
        one, other = getattr(first, name), getattr(second, name)
        if one is not None and other is not None and one != other:
            raise DataError(
                f"{second.path}: is listed with {name} {one!r} and with {name} {other!r}; keep one "
                "row per video."
            )
