"""Showing a run's rows while another thread or process writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lssl_ray.tracking.base import NullTracker, RunStatus
from lssl_ray.tracking.following import closing_honestly, following, telling_events
from lssl_ray.tracking.journal import EVENTS_FILE, METRICS_FILE, TIME_KEY, Journal, read_rows


def write_windows(folder: Path, *steps: int) -> None:
    for step in steps:
        Journal(folder).append("metrics", {"step": step, "num_steps": 9})


def test_following_shows_what_is_new_and_results_that_come_late(tmp_path: Path) -> None:
    write_windows(tmp_path, 2, 4)
    Journal(tmp_path).append("metrics", {"step": 2, "validation/val/knn": 0.5})
    shown: list[Mapping[str, Any]] = []
    with following(tmp_path / METRICS_FILE, on_row=shown.append):
        write_windows(tmp_path, 6)
        Journal(tmp_path).rewind(4)  # workers died after step 4
        write_windows(tmp_path, 6, 8)
        Journal(tmp_path).append("metrics", {"step": 4, "validation/val/knn": 0.75})
    steps = [(row["step"], row.get("validation/val/knn")) for row in shown]
    assert steps == [(6, None), (8, None), (4, 0.75)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_run_that_ends_otherwise_leaves_an_honest_status(
    error: type[BaseException], status: RunStatus
) -> None:
    class Recording(NullTracker):
        statuses: list[RunStatus] = []  # noqa: RUF012

        def finish(self, status: RunStatus) -> None:
            self.statuses.append(status)

    with pytest.raises(error), closing_honestly(Recording()):
        raise error
    assert Recording.statuses == [status]


def test_events_of_this_session_are_told_once_and_outlive_a_rewind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    journal.append("events", {"event": "restart", "message": "of a session before"})
    with caplog.at_level("WARNING"), telling_events(tmp_path / EVENTS_FILE):
        journal.append("events", {"event": "restart", "message": "now"})
        journal.rewind(0)
    assert [record.getMessage() for record in caplog.records] == ["now"]
    rows = list(read_rows(tmp_path / EVENTS_FILE))
    assert [row["message"] for row in rows] == ["of a session before", "now"]
    assert rows[0][TIME_KEY] > 0
