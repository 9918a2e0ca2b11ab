"""Keeping a tracker in step with a run: rows while it goes, an honest status when it ends."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lssl_ray.tracking.base import Tracker
from lssl_ray.tracking.journal import JournalFollower

POLL_SECONDS = 0.5


@contextmanager
def following(
    metrics: Path, tracker: Tracker, *, on_row: Callable[[Mapping[str, Any]], None]
) -> Iterator[None]:
    """Copy journal rows to the tracker while training runs elsewhere.

    Args:
        metrics: The run's `metrics.jsonl`; may not exist yet.
        tracker: Gets the rows after its last step.
        on_row: Called with each of them, from another thread.
    """
    follower = JournalFollower(metrics, after_step=tracker.last_step)
    done = threading.Event()

    def copy_rows() -> None:
        rows = follower.read_new()
        if rows:
            tracker.log_rows(rows)
        for row in rows:
            on_row(row)

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            copy_rows()

    thread = threading.Thread(target=follow, name="journal-follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        copy_rows()


@contextmanager
def closing_honestly(tracker: Tracker) -> Iterator[None]:
    """End the tracked run as FAILED or KILLED when the run does not end by itself."""
    try:
        yield
    except Exception:
        tracker.finish("FAILED")
        raise
    except BaseException:  # Ctrl-C or a terminated job
        tracker.finish("KILLED")
        raise
