"""Lists of videos as datasets publish them, told apart by content.

Not here: whether a listed file exists (`discovery`), whose label it is (`labels`). The formats:

- Kinetics: a CSV with `youtube_id,time_start,time_end` and, but for its test part, `label` and
  `split`; a video is named `ID_000024_000034.mp4` or `ID.mp4`, in any folder.
- UCF101: `Class/v_Class_g01_c01.avi`, in train lists with a class number (`classInd.txt` beside the
  list says which class).
- HMDB51: `NAME_test_split1.txt`, a file name and 1 (train), 2 (test) or 0 (in neither).
- `path,label[,split]`: a CSV; with a header its columns are found by name. A header that names no
  `path` is refused: its line must not pass for a video.
- path and class number, separated by a space, as MMAction2 writes it.
- one path per line.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lssl_ray.errors import DataError
from lssl_ray.video.remote import has_scheme, read_remote

__all__ = [
    "LIST_EXTENSIONS",
    "UNUSED",
    "VIDEO_EXTENSIONS",
    "Entry",
    "NameIndex",
    "VideoList",
    "load_list",
]

LIST_EXTENSIONS = frozenset({".csv", ".txt", ".lst", ".list"})
_CONTAINERS = "mp4 m4v mov avi mkv webm gif mpg mpeg ts mts m2ts wmv flv 3gp ogv swf"
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _CONTAINERS.split())
UNUSED = "unused"  # the split of an HMDB51 video that a split file marks with 0

_REMEDY = (
    "Known are Kinetics CSV, UCF101 and HMDB51 split files, CSV with the columns path,label or "
    "path,label,split, and one path per line."
)
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_HEADER_WORDS = "class class_name clip file file_name file_path filename filepath label name split \
subset url video video_id video_name video_path"
_NUMBERED = re.compile(r"^(?P<path>.*\S)\s+(?P<number>\d+)$")
_UCF101 = re.compile(r"^(?P<label>[^/]+)/v_(?P=label)_g\d+_c\d+(\.\w+)?$", re.IGNORECASE)
_HMDB51_LIST = re.compile(r"^(?P<label>.+)_test_split\d+\.\w+$")
_HMDB51_SPLITS = {"0": UNUSED, "1": "train", "2": "test"}
_Line = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a list.

    Attributes:
        line: Its line in the file, from 1.
        path: As written, or where the file lies in the dataset's usual layout; absolute, a URI, or
            relative.
        names: File names without extension by which the video is known wherever it lies, the best
            first; empty if only the path counts.
        label: Class name, or None.
        split: Split name, or None.
    """

    line: int
    path: str
    names: tuple[str, ...]
    label: str | None
    split: str | None


@dataclass(frozen=True)
class VideoList:
    """A list file.

    Attributes:
        path: Where it was read.
        format: Which of the known formats it is in, for people.
        entries: Its rows, in order.
    """

    path: str
    format: str
    entries: tuple[Entry, ...]


def load_list(path: str) -> VideoList:
    """Reads a list in any of the known formats.

    Args:
        path: A local file or a URI, UTF-8; a byte-order mark and CRLF are fine.

    Raises:
        DataError: The file can't be read, is in none of the formats, has a header that names no
            path, or a row is too short.
    """
    text = _read_text(path)
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: the list is empty. {_REMEDY}")
    header = [cell.strip().lower() for cell in next(csv.reader([lines[0][1]]))]
    if "youtube_id" in header:
        return _read_kinetics(path, text, header, has_header=True)
    if "path" in header:
        return _read_csv(path, text, header)
    _refuse_unknown_header(path, header, lines)
    if all(_NUMBERED.match(line) for _, line in lines):
        return _read_numbered(path, lines)
    if all(_UCF101.match(line) for _, line in lines):
        labels = (line.split("/")[0] for _, line in lines)
        return _read_ucf101(path, lines, dict(zip(lines, labels, strict=True)))
    if all(_is_video_name(line) or "," not in line for _, line in lines):
        return _read_paths(path, lines)
    if len(header) >= 4 and header[2].isdecimal() and header[3].isdecimal():
        return _read_kinetics(path, text, list(_KINETICS_COLUMNS), has_header=False)
    return _read_csv(path, text, None)


def _read_text(path: str) -> str:
    try:
        if has_scheme(path):
            return read_remote(path).decode("utf-8-sig")
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list can't be read ({error}). {_REMEDY}") from error


def _refuse_unknown_header(path: str, header: list[str], lines: list[_Line]) -> None:
    """Refuses a first line that names columns, but not those that are known.

    Such a line holds neither a video's name nor a number, and either a usual column's name or,
    where cells are separated, a video's name below it.
    """
    if any(_is_video_name(cell) or has_scheme(cell) or cell.isdecimal() for cell in header):
        return
    cells = next(csv.reader([lines[1][1]])) if len(lines) > 1 and len(header) > 1 else []
    is_above_videos = any(_is_video_name(cell.strip()) for cell in cells)
    if is_above_videos or set(_HEADER_WORDS.split()) & set(header):
        raise DataError(
            f"{path} line {lines[0][0]}: {lines[0][1]!r} looks like a header, and none of its "
            "columns is `path`. Name the columns path,label or path,label,split (of a Kinetics CSV "
            "label,youtube_id,time_start,time_end,split). If the line is a video's, put the line "
            "`path,label` above it."
        )


def _read_rows(path: str, text: str) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}: the list can't be read as CSV ({error}). {_REMEDY}") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def _read_csv(path: str, text: str, header: list[str] | None) -> VideoList:
    columns = {"path": 0, "label": 1, "split": 2}
    rows = _read_rows(path, text)
    if header is not None:
        columns = {name: header.index(name) for name in columns if name in header}
        rows = rows[1:]
    entries = []
    for line, cells in rows:
        values = {name: cells[column] for name, column in columns.items() if column < len(cells)}
        if not values.get("path") or ("label" in columns and "label" not in values):
            raise DataError(
                f"{path} line {line}: {','.join(cells)!r} must have a path and a label; the header "
                "`path,label` or `path,label,split` is optional."
            )
        label, split = values.get("label") or None, values.get("split") or None
        entries.append(Entry(line, values["path"], (), label, split))
    return VideoList(path, "CSV (path, label, split)", tuple(entries))


def _read_kinetics(path: str, text: str, columns: list[str], *, has_header: bool) -> VideoList:
    entries = []
    for line, cells in _read_rows(path, text)[int(has_header) :]:
        values = dict(zip(columns, cells, strict=False))
        try:
            video = values["youtube_id"]
            start, end = (int(float(values[name])) for name in ("time_start", "time_end"))
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path} line {line}: {','.join(cells)!r} must have youtube_id, time_start and "
                "time_end, the times in seconds."
            ) from error
        names = (f"{video}_{start:06d}_{end:06d}", video)
        label, split = values.get("label") or None, values.get("split") or None
        entries.append(Entry(line, f"{names[0]}.mp4", names, label, split))
    return VideoList(path, "Kinetics CSV", tuple(entries))


def _read_numbered(path: str, lines: list[_Line]) -> VideoList:
    matches = {line: _NUMBERED.match(line[1]) for line in lines}
    parts = {line: (m["path"], m["number"]) for line, m in matches.items() if m is not None}
    hmdb51 = _HMDB51_LIST.match(os.path.basename(path))
    if hmdb51 and all(number in _HMDB51_SPLITS for _, number in parts.values()):
        return _read_hmdb51(path, parts, hmdb51["label"])
    classes = _load_class_numbers(path)
    labels = {line: classes.get(number, number) for line, (_, number) in parts.items()}
    plain = {line: (line[0], name) for line, (name, _) in parts.items()}
    if all(_UCF101.match(name) for _, name in plain.values()):
        if not classes:
            labels = {line: name.split("/")[0] for line, (_, name) in plain.items()}
        by_line = {plain[line]: label for line, label in labels.items()}
        return _read_ucf101(path, list(plain.values()), by_line)
    entries = (
        Entry(line, name, (), labels[line, text], None) for (line, text), (_, name) in plain.items()
    )
    named = "" if classes else ", numbers are the labels for want of a classInd.txt"
    return VideoList(path, f"path and class number{named}", tuple(entries))


def _read_ucf101(path: str, lines: list[_Line], labels: Mapping[_Line, str]) -> VideoList:
    file_name = os.path.basename(path).lower()
    split = next((name for name in ("train", "test", "val") if name in file_name), None)
    entries = (Entry(line, name, (_stem(name),), labels[line, name], split) for line, name in lines)
    return VideoList(path, "UCF101 split", tuple(entries))


def _read_hmdb51(path: str, parts: Mapping[_Line, tuple[str, str]], label: str) -> VideoList:
    entries = (
        Entry(line, f"{label}/{name}", (_stem(name),), label, _HMDB51_SPLITS[number])
        for (line, _), (name, number) in parts.items()
    )
    return VideoList(path, "HMDB51 split", tuple(entries))


def _read_paths(path: str, lines: list[_Line]) -> VideoList:
    if not any(_is_video_name(line) for _, line in lines):
        raise DataError(f"{path}: is not a list of videos; line 1 is {lines[0][1]!r}. {_REMEDY}")
    return VideoList(
        path, "paths", tuple(Entry(line, name, (), None, None) for line, name in lines)
    )


def _load_class_numbers(path: str) -> dict[str, str]:
    """Names by number from the `classInd.txt` beside a list; empty if there is none."""
    beside = os.path.join(os.path.dirname(path), "classInd.txt")
    if has_scheme(path) or not os.path.isfile(beside):
        return {}
    pairs = (line.split(maxsplit=1) for line in _read_text(beside).splitlines() if line.strip())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _is_video_name(text: str) -> bool:
    return os.path.splitext(text)[1].lower() in VIDEO_EXTENSIONS


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


class NameIndex:
    """Videos by file name: for lists whose videos may lie in any folder."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Takes paths or URIs, each once."""
        self._paths: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self._paths[_stem(path)].append(path)

    def find(self, entry: Entry, list_path: str) -> str | None:
        """The video that an entry names, or None.

        Args:
            entry: A row with names.
            list_path: The row's list, for the error.

        Raises:
            DataError: Several files have that name, and neither the row's path nor a folder named
                like its label or split singles one out.
        """
        for name in entry.names:
            found = self._paths.get(name, [])
            if len(found) > 1:
                found = _narrow(found, entry)
            if len(found) > 1:
                raise DataError(
                    f"{list_path} line {entry.line}: {entry.path!r} may be {found[0]} or "
                    f"{found[1]}; give a narrower folder, or a list with paths."
                )
            if found:
                return found[0]
        return None


def _narrow(paths: list[str], entry: Entry) -> list[str]:
    exact = [path for path in paths if path.endswith(f"/{entry.path}")]
    folders = {entry.label, (entry.label or "").replace(" ", "_"), entry.split}
    beside = [path for path in paths if folders & set(path.split("/")[:-1])]
    return next((found for found in (exact, beside) if len(found) == 1), paths)
