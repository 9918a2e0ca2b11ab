"""The run folder's own record: metrics.jsonl and quarantine.jsonl, whatever tracking does.

The journal is the truth; MLflow is a copy of it. One process writes (rank 0's side of a run), any
number read while it grows.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lssl_ray.whole_files import write_whole

METRICS_FILE = "metrics.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
AUDIT_FILE = "audit.jsonl"  # only with data.audit
FILES = {"metrics": METRICS_FILE, "quarantine": QUARANTINE_FILE, "audit": AUDIT_FILE}
TIME_KEY = "time/unix_seconds"  # of a metrics row: when it was written
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
        """Add one row; `kind` is one of `FILES`, and the row holds its `step`.

        Metrics get the time, so that a copy made later, or twice, is the same copy.
        """
        if kind == "metrics":
            record = {TIME_KEY: round(time.time(), 3), **record}
        line = json.dumps(record, ensure_ascii=False)
        with (self._folder / FILES[kind]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def rewind(self, step: int) -> None:
        """Drop rows after `step`: the steps that a resumed run does again write theirs anew."""
        for name in FILES.values():
            path = self._folder / name
            if not path.exists():
                continue
            kept = [row for row in read_rows(path) if row["step"] <= step]
            write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


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
