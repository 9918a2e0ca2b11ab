"""The run folder's own record: metrics, quarantine and events, whatever tracking does.

The journal is the truth; MLflow is a copy of it. One process writes (rank 0's side of a run), any
number read while it grows.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lssl_ray.whole_files import write_whole

METRICS_FILE = "metrics.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
AUDIT_FILE = "audit.jsonl"  # only with data.audit
EVENTS_FILE = "events.jsonl"  # what a person is told of: `message`
REWOUND = {"metrics": METRICS_FILE, "quarantine": QUARANTINE_FILE, "audit": AUDIT_FILE}
FILES = {**REWOUND, "events": EVENTS_FILE}
TIME_KEY = "time/unix_seconds"  # of a metrics row or an event: when it was written
READ_ROWS = 1000


class Journal:
    """Appends rows, each flushed at once, so that a killed process loses none that it wrote.

    Args:
        run_folder: Where the files are; it must exist.
    """

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        for name in (METRICS_FILE, QUARANTINE_FILE):
            (run_folder / name).touch()

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        """Add one row; `kind` is one of `FILES`, and a row that can be rewound holds its `step`.

        Metrics get the time, so that a copy made later, or twice, is the same copy.

        Raises:
            OSError: The row can't be written; nothing of it is there.
        """
        if kind in ("metrics", "events"):
            record = {TIME_KEY: round(time.time(), 3), **record}
        line = json.dumps(record, ensure_ascii=False)
        _append_whole(self._folder / FILES[kind], f"{line}\n".encode())

    def rewind(self, step: int) -> None:
        """Drop rows after `step`: the steps that a resumed run does again write theirs anew.

        Events stay: they happened.
        """
        for name in REWOUND.values():
            path = self._folder / name
            if not path.exists():
                continue
            kept = [row for row in read_rows(path) if row["step"] <= step]
            write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _append_whole(path: Path, line: bytes) -> None:
    """A disk that is full in the middle of a line must not spoil the line after it."""
    with path.open("ab", buffering=0) as file:
        before, left = file.tell(), memoryview(line)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(before)
            raise


def file_damage(append: Callable[[str, Mapping[str, Any]], None], message: str) -> None:
    """File that a damaged checkpoint was passed over; the person is told of events."""
    append("events", {"event": "damaged_checkpoint", "message": message})


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a journal file; a line still being written is left for later."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


class JournalFollower:
    """Reads a growing metrics file piece by piece; after a rewind again from its start.

    Who must not see a row twice has to know what it saw: rows need not come in the order of their
    steps.

    Args:
        path: The metrics file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last_line = b""  # ends at the offset

    def read_new(self, *, limit: int = READ_ROWS) -> list[dict[str, Any]]:
        """Rows that appeared since the last call, at most `limit` of them."""
        if not self._path.exists():
            return []
        rows: list[dict[str, Any]] = []
        with self._path.open("rb") as file:
            file.seek(self._offset - len(self._last_line))
            if file.read(len(self._last_line)) != self._last_line:
                self._offset, self._last_line = 0, b""  # rewound and written anew
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n") or len(rows) == limit:
                    break
                self._offset, self._last_line = self._offset + len(line), line
                rows.append(json.loads(line))
        return rows
