"""The journal: rows appended, rewound and followed, whoever dies in between."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.tracking.journal import (
    METRICS_FILE,
    QUARANTINE_FILE,
    TIME_KEY,
    Journal,
    JournalFollower,
    read_rows,
)

WRITER = """
import sys
from pathlib import Path
from lssl_ray.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
step = 0
while True:
    step += 1
    journal.append("metrics", {"step": step, "loss/total": 1 / step})
    print(step, flush=True)
"""


def read_steps(path: Path) -> list[int]:
    return [row["step"] for row in read_rows(path)]


def test_journal_new_run_has_both_files_empty(tmp_path: Path) -> None:
    Journal(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS_FILE, QUARANTINE_FILE]
    assert read_steps(tmp_path / METRICS_FILE) == []


def test_journal_reopened_keeps_what_was_written(tmp_path: Path) -> None:
    Journal(tmp_path).append("metrics", {"step": 1})
    Journal(tmp_path).append("metrics", {"step": 2})
    assert read_steps(tmp_path / METRICS_FILE) == [1, 2]


def test_journal_append_keeps_kinds_apart_and_values_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    row = {"step": 1, "loss/total": 0.1 + 0.2, "text": "Zürich\nline \u2028 two", "none": None}
    journal.append("metrics", row)
    journal.append("quarantine", {"step": 0, "video_id": "a.mp4"})
    before = time.time()
    journal.append("metrics", {"step": 2})
    first, second = read_rows(tmp_path / METRICS_FILE)
    assert first == {**row, TIME_KEY: first[TIME_KEY]}
    assert before - 0.01 <= second[TIME_KEY] <= time.time() + 0.01
    assert list(read_rows(tmp_path / QUARANTINE_FILE)) == [{"step": 0, "video_id": "a.mp4"}]


def test_journal_append_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Journal(tmp_path).append("metric", {"step": 1})


def test_journal_rewind_drops_later_rows_of_both_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (0, 1, 2, 2, 3):
        journal.append("metrics", {"step": step})
        journal.append("quarantine", {"step": step, "video_id": f"{step}.mp4"})
    journal.rewind(2)
    assert read_steps(tmp_path / METRICS_FILE) == [0, 1, 2, 2]
    assert read_steps(tmp_path / QUARANTINE_FILE) == [0, 1, 2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS_FILE, QUARANTINE_FILE]


def test_journal_rewind_drops_a_line_that_was_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("metrics", {"step": 1})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 2, "loss')
    journal.rewind(5)
    journal.append("metrics", {"step": 2})
    assert read_steps(tmp_path / METRICS_FILE) == [1, 2]


def test_read_rows_leaves_a_line_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n{"step": 2}')
    assert read_steps(path) == [1]
    assert read_steps(tmp_path / "absent.jsonl") == []


def test_journal_killed_writer_loses_no_row_it_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 50:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        reported = int(writer.stdout.read().split("\n")[-2:][0] or 50)
    steps = read_steps(tmp_path / METRICS_FILE)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= max(50, reported)


def test_journal_rewind_keeps_the_time_of_what_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("metrics", {"step": 1, TIME_KEY: 5.25})
    journal.append("metrics", {"step": 2})
    journal.rewind(1)
    assert list(read_rows(tmp_path / METRICS_FILE)) == [{"step": 1, TIME_KEY: 5.25}]


def read_new_steps(follower: JournalFollower) -> list[int]:
    return [row["step"] for row in follower.read_new()]


def test_follower_absent_file_has_no_rows_yet(tmp_path: Path) -> None:
    follower = JournalFollower(tmp_path / METRICS_FILE)
    assert follower.read_new() == []
    Journal(tmp_path).append("metrics", {"step": 1})
    assert read_new_steps(follower) == [1]
    assert follower.read_new() == []


def test_follower_partial_line_is_read_once_whole(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(b'{"step": 1}\n{"step": 2, "x": "Z\xc3')
    follower = JournalFollower(path)
    assert read_new_steps(follower) == [1]
    assert follower.read_new() == []
    with path.open("ab") as file:
        file.write(b'\xbcrich"}\n')
    assert follower.read_new() == [{"step": 2, "x": "Z\u00fcrich"}]


def test_follower_rows_of_earlier_steps_that_come_late_are_read(tmp_path: Path) -> None:
    journal, follower = Journal(tmp_path), JournalFollower(tmp_path / METRICS_FILE)
    for step in (2, 4):
        journal.append("metrics", {"step": step})
    assert read_new_steps(follower) == [2, 4]
    journal.append("metrics", {"step": 2, "validation/val/knn": 0.5})
    assert read_new_steps(follower) == [2]


def test_follower_limit_leaves_the_rest_for_the_next_call(tmp_path: Path) -> None:
    journal, follower = Journal(tmp_path), JournalFollower(tmp_path / METRICS_FILE)
    for step in range(1, 6):
        journal.append("metrics", {"step": step})
    pieces = [[row["step"] for row in follower.read_new(limit=2)] for _ in range(4)]
    assert pieces == [[1, 2], [3, 4], [5], []]


def test_follower_rewinds_between_two_reads_are_noticed(tmp_path: Path) -> None:
    """File systems soon give a new file the number that an old one had."""
    journal, follower = Journal(tmp_path), JournalFollower(tmp_path / METRICS_FILE)
    for step in (1, 2, 3):
        journal.append("metrics", {"step": step})
    assert read_new_steps(follower) == [1, 2, 3]
    for _ in range(3):
        journal.rewind(1)
    for step in (2, 3, 4, 5):
        journal.append("metrics", {"step": step, "padding": "x" * 50})
    assert read_new_steps(follower) == [1, 2, 3, 4, 5]


OPERATIONS = st.lists(
    st.one_of(
        st.integers(1, 4).map(lambda count: ("append", count)),
        st.integers(0, 4).map(lambda back: ("rewind", back)),
        st.just(("read", 0)),
    ),
    max_size=20,
)


@given(operations=OPERATIONS)
def test_follower_through_any_rewinds_misses_no_row(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal, step, session = Journal(folder), 0, 0
    follower = JournalFollower(folder / METRICS_FILE)
    seen: set[str] = set()
    for name, number in operations:
        if name == "append":
            for _ in range(number):
                step += 1
                # A session's rows aren't as long as those they replace.
                journal.append("metrics", {"step": step, "session": "x" * session})
        elif name == "rewind":
            step = max(0, step - number)
            journal.rewind(step)
            session += 1
        else:
            seen |= {json.dumps(row) for row in follower.read_new()}
    seen |= {json.dumps(row) for row in follower.read_new()}
    assert seen >= {json.dumps(row) for row in read_rows(folder / METRICS_FILE)}
    assert follower.read_new() == []


def test_follower_beside_a_busy_writer_misses_no_row(tmp_path: Path) -> None:
    journal, last = Journal(tmp_path), 300
    follower = JournalFollower(tmp_path / METRICS_FILE)
    rows: list[dict[str, Any]] = []

    def write() -> None:
        for step in range(1, last + 1):
            journal.append("metrics", {"step": step, "padding": "x" * (step % 97)})
            if step == 200:
                journal.rewind(150)
                for again in range(151, 201):
                    journal.append("metrics", {"step": again})

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        rows += follower.read_new()
    writer.join()
    rows += follower.read_new()
    written = list(read_rows(tmp_path / METRICS_FILE))
    assert [row["step"] for row in written] == list(range(1, last + 1))
    assert all(row in rows for row in written)


def test_row_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """A file that may not grow further takes a part of a line and then refuses, as a full disk."""
    writer = """
import resource, signal, sys
from pathlib import Path
from lssl_ray.tracking.journal import METRICS_FILE, Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.append("metrics", {"step": 0})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
size = (Path(sys.argv[1]) / METRICS_FILE).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
try:
    journal.append("metrics", {"step": 1})
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.append("metrics", {"step": 2})
"""
    command = [sys.executable, "-c", writer, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert read_steps(tmp_path / METRICS_FILE) == [0, 2]
