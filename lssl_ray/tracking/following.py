"""Showing a run's rows and events while it goes, and an honest status when it ends."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lssl_ray.tracking.base import Tracker
from lssl_ray.tracking.journal import JournalFollower, read_rows

POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def following(metrics: Path, *, on_row: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Show journal rows while training runs elsewhere.

    Args:
        metrics: The run's `metrics.jsonl`; may not exist yet.
        on_row: Called from another thread with each row that is new. Of windows of training steps
            that a resumed or recovered run writes anew, those that pass what was shown.
    """
    shown = 0
    results: set[int] = set()
    for row in read_rows(metrics):
        if "num_steps" in row:
            shown = max(shown, row["step"])
        else:
            results.add(row["step"])  # of a validation: late, and of an earlier step
    follower = JournalFollower(metrics)

    def show_rows() -> None:
        nonlocal shown
        while rows := follower.read_new():
            for row in rows:
                is_window = "num_steps" in row
                if row["step"] <= shown if is_window else row["step"] in results:
                    continue
                if is_window:
                    shown = row["step"]
                else:
                    results.add(row["step"])
                on_row(row)

    with _polling(show_rows):
        yield


@contextmanager
def telling_events(events: Path) -> Iterator[None]:
    """Warn the person of what happens to a run elsewhere: workers that died, a bad checkpoint.

    Args:
        events: The run's `events.jsonl`; may not exist yet.
    """
    follower = JournalFollower(events)
    while follower.read_new():
        continue  # of sessions before

    def tell() -> None:
        while rows := follower.read_new():
            for row in rows:
                logger.warning("%s", row["message"])

    with _polling(tell):
        yield


@contextmanager
def _polling(action: Callable[[], None]) -> Iterator[None]:
    """Do something now and then from another thread, and once more at the end."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            action()

    thread = threading.Thread(target=follow, name="journal-follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        action()


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
