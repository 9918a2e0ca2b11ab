"""Labels for indexed files: from folder names or from a CSV. Pure matching, no decoding.

Lists in the formats of Kinetics, UCF101 and HMDB51 are not read here.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lssl_ray.errors import DataError

__all__ = ["Assignment", "LabelMatch", "load_label_csv"]


@dataclass(frozen=True)
class Assignment:
    """What a label file says about one video."""

    label: str | None
    split: str | None


@dataclass(frozen=True)
class LabelMatch:
    """A label file matched to the files that were found.

    Attributes:
        assignments: By absolute path.
        num_unmatched_rows: Rows that name no file among those found.
    """

    assignments: Mapping[str, Assignment]
    num_unmatched_rows: int


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    assignment: Assignment


def load_label_csv(path: str, *, video_paths: Sequence[str], roots: Sequence[str]) -> LabelMatch:
    """Reads `path,label[,split]` rows and matches them to videos.

    The header `path,label` or `path,label,split` is optional; with it, columns are found by name
    and others are ignored. A row's path is absolute or relative to the CSV's folder or to an
    indexed root.

    Args:
        path: The CSV, UTF-8; a byte-order mark and CRLF are fine.
        video_paths: Absolute paths of the videos that were found.
        roots: Absolute paths of the folders that were indexed.

    Raises:
        DataError: The CSV can't be read, a row is too short, a row matches several videos, or two
            rows contradict each other.
    """
    known = set(video_paths)
    folders = [os.path.dirname(os.path.abspath(path)), *roots]
    assignments: dict[str, Assignment] = {}
    num_unmatched = 0
    for row in _load_rows(path):
        candidates = {os.path.normpath(os.path.join(folder, row.path)) for folder in folders}
        found = sorted(candidates & known)
        if not found:
            num_unmatched += 1
            continue
        if len(found) > 1:
            raise DataError(
                f"{path} line {row.line}: {row.path!r} may be {found[0]} or {found[1]}; write the "
                "absolute path."
            )
        if assignments.setdefault(found[0], row.assignment) != row.assignment:
            raise DataError(
                f"{path} line {row.line}: {row.path!r} already has another label or split; keep "
                "one row per video."
            )
    return LabelMatch(assignments=assignments, num_unmatched_rows=num_unmatched)


def _load_rows(path: str) -> list[_Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: the label file can't be read ({error}); it must be a UTF-8 CSV with the "
            "columns path,label or path,label,split."
        ) from error
    columns = {"path": 0, "label": 1, "split": 2}
    names = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if "path" in names and "label" in names:
        columns = {name: names.index(name) for name in columns if name in names}
        lines = lines[1:]
    rows: list[_Row] = []
    for line, cells in lines:
        values = {
            name: cells[column].strip() for name, column in columns.items() if column < len(cells)
        }
        if not values.get("path") or "label" not in values:
            raise DataError(
                f"{path} line {line}: {','.join(cells)!r} must have a path and a label; the header "
                "`path,label` or `path,label,split` is optional."
            )
        assignment = Assignment(label=values["label"] or None, split=values.get("split") or None)
        rows.append(_Row(line=line, path=values["path"], assignment=assignment))
    return rows
