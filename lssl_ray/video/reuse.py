"""Which rows of an earlier manifest still hold, and which videos are left out by the user's wish.

Everything works on whole columns: a million rows cost seconds.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lssl_ray.errors import DataError
from lssl_ray.video.discovery import FoundVideo, as_text
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.probe_files import build_bad_record
from lssl_ray.video.readers import ReaderChoice

__all__ = [
    "Exclusion",
    "Exclusions",
    "count_gone",
    "find_known_rows",
    "is_excluded",
    "load_exclusions",
]

# What a busy or small machine or a network can cause: not carried over to the next index.
TRANSIENT_REASONS = ("deadline_exceeded", "decoder_crashed", "out_of_memory", "fetch_failed")
_EXCLUDED = "excluded by "
_INDEX_STAGE = "index"  # rows that a run took over from its manifest: no verdict of its own


def find_known_rows(
    videos: Sequence[FoundVideo], table: pa.Table, *, reader: ReaderChoice
) -> npt.NDArray[np.int64]:
    """For each video the row that holds what a probe would say, or -1.

    A row holds for the path, size and time recorded in it, unless the reason the video is bad may
    have passed, it was excluded by hand, or another reader is asked for.

    Args:
        videos: What was found.
        table: Earlier rows; of several with one path the first counts.
        reader: Who is to decode.
    """
    if not videos or not table.num_rows:
        return np.full(len(videos), -1, dtype=np.int64)
    paths = pa.array([as_text(video.path) for video in videos], pa.string())
    found = pc.index_in(paths, value_set=table["path"].combine_chunks())
    rows: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    sizes = np.array([video.size_bytes for video in videos], dtype=np.int64)
    times = np.array([video.mtime_ns for video in videos], dtype=np.int64)
    holds = _find_valid(table, reader)[rows]
    holds &= table["size_bytes"].to_numpy()[rows] == sizes
    holds &= table["mtime_ns"].to_numpy()[rows] == times
    return np.where((rows >= 0) & holds, rows, -1)


def _find_valid(table: pa.Table, reader: ReaderChoice) -> npt.NDArray[np.bool_]:
    transient = pc.is_in(table["reason"], value_set=pa.array(TRANSIENT_REASONS))
    stale = pc.or_(transient, is_excluded(table))
    if reader == "auto":
        # A bad row of "auto" has decord's name, one of another choice that reader's.
        same = pc.or_(pc.equal(table["status"], "ok"), pc.equal(table["reader"], "decord"))
    else:
        same = pc.equal(table["reader"], reader)
    valid: npt.NDArray[np.bool_] = pc.and_(same, pc.invert(stale)).to_numpy()
    return valid


def is_excluded(table: pa.Table) -> pa.ChunkedArray:
    """Per row whether it is bad only because the user excluded it."""
    return pc.fill_null(pc.starts_with(table["detail"], _EXCLUDED), False)


def count_gone(videos: Sequence[FoundVideo], table: pa.Table) -> int:
    """Rows whose path is not among the videos."""
    paths = pa.array([as_text(video.path) for video in videos], pa.string())
    present = pc.sum(pc.is_in(table["path"], value_set=paths)).as_py() or 0
    return int(table.num_rows - present)


@dataclass(frozen=True)
class Exclusion:
    """Why a video is left out.

    Attributes:
        reason: One of `isolation.DecodeReason`.
        detail: Which list says so, and what it says.
        listed_ns: When the list was last written, nanoseconds since 1970.
    """

    reason: str
    detail: str
    listed_ns: int


@dataclass(frozen=True)
class Exclusions:
    """Videos that a run could not decode.

    Attributes:
        by_path: By path.
        by_id: The same by video_id, for a folder that was moved.
    """

    by_path: Mapping[str, Exclusion]
    by_id: Mapping[str, Exclusion]

    def find(self, video: FoundVideo) -> VideoRecord | None:
        """The row of a video that is excluded, or None."""
        why = self._find(video)
        if why is None or video.mtime_ns > why.listed_ns:
            return None
        return build_bad_record(video, why.reason, why.detail)

    def is_repaired(self, video: FoundVideo) -> bool:
        """Whether a video is listed, but was written after its list: it deserves a probe."""
        why = self._find(video)
        return why is not None and video.mtime_ns > why.listed_ns

    def _find(self, video: FoundVideo) -> Exclusion | None:
        return self.by_path.get(video.path) or self.by_id.get(video.video_id)


def load_exclusions(paths: Sequence[str]) -> Exclusions:
    """Reads quarantine lists of runs; a video's first row counts.

    What a run itself could not decode is excluded, or what its manifest had excluded for an earlier
    run; not what its manifest called bad for other reasons: of that, a probe says more.

    Args:
        paths: `quarantine.jsonl` files.

    Raises:
        DataError: A file can't be read or is no such list.
    """
    by_path: dict[str, Exclusion] = {}
    by_id: dict[str, Exclusion] = {}
    for path in paths:
        rows, listed_ns = _load_quarantine(path)
        for row in rows:
            detail = str(row.get("detail") or row["reason"])
            if not detail.startswith(_EXCLUDED):  # else an earlier run said so, and still does
                if row.get("stage") == _INDEX_STAGE:
                    continue
                detail = f"{_EXCLUDED}{os.path.abspath(path)}: {detail}"
            why = Exclusion(str(row["reason"]), detail, listed_ns)
            by_path.setdefault(str(row["path"]), why)
            by_id.setdefault(str(row["video_id"]), why)
    return Exclusions(by_path, by_id)


def _load_quarantine(path: str) -> tuple[list[dict[str, object]], int]:
    """Its rows, and when it was last written."""
    try:
        with open(path, encoding="utf-8") as file:
            listed_ns = os.fstat(file.fileno()).st_mtime_ns
            rows = [json.loads(line) for line in file if line.strip()]
        if all({"path", "video_id", "reason"} <= row.keys() for row in rows):
            return rows, listed_ns
        problem = "a row lacks path, video_id or reason"
    except (OSError, ValueError, AttributeError) as error:
        problem = str(error)
    raise DataError(
        f"{path}: can't be used to exclude videos ({problem}); give the quarantine.jsonl of a run."
    )
