"""Bringing a run to a tracking service that may be slow, down, or away for hours.

One thread per tracked run does all the talking, so that training and whoever calls never wait for
the service: it reads the journal and the outbox, sends in batches, and after a failed call tries
again later, from where it was. It knows no service; `service.Service` is what one has to offer.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import TIME_KEY, JournalFollower
from lssl_ray.tracking.outbox import Outbox, compute_fingerprint, mark_done
from lssl_ray.tracking.service import (
    MAX_POINTS,
    Point,
    Service,
    ServiceAwayError,
    ServiceRefusalError,
    build_points,
)

logger = logging.getLogger(__name__)

SEND_SECONDS = 5.0  # between batches
LONGEST_PAUSE_SECONDS = 30.0  # between attempts while the service is away
QUIET_SECONDS = 25.0  # that the end of a run waits for a service that takes nothing
LONGEST_CLOSE_SECONDS = 120.0  # that it waits in all


class OutboxTracker:
    """A tracked run whose deliveries survive the service's absence and this process' end.

    Args:
        service: The run at the service.
        outbox: What it has and lacks.
        metrics: The journal to follow, or None.
        creates: Whether a run that the service lacks is made.
        interval_seconds: Between batches.
    """

    def __init__(
        self,
        service: Service,
        outbox: Outbox,
        *,
        metrics: Path | None,
        creates: bool,
        interval_seconds: float = SEND_SECONDS,
    ) -> None:
        self.num_failed_calls = self.num_points_sent = self.num_artifacts_sent = 0
        self._service, self._outbox, self._creates = service, outbox, creates
        self._interval_seconds = interval_seconds
        self._follower = None if metrics is None else JournalFollower(metrics)
        self._points: list[Point] = []
        self._is_open = self._is_behind = self._closing = self._hurry = False
        self._failures_in_a_row = 0
        self._last_taken = time.monotonic()
        self._rounds_begun = self._rounds_ended = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    @property
    def run_id(self) -> str | None:
        """The service's id of the run; None while it has not been reached."""
        return self._outbox.run_id

    def open(self) -> None:
        """Find or make the run now, in this thread.

        Raises:
            ServiceAwayError: Not now; the sending thread will try again.
            ServiceRefusalError: There is no run and none is to be made, or the service says no.
        """
        run_id = self._service.find_run(self._outbox.run_id)
        if run_id is None and not self._creates:
            raise ServiceRefusalError(f"there is no run {self._outbox.run.run_name!r} to add to")
        if run_id is None:
            self._outbox.save()  # a call that times out may still make the run: its uid is known
            self._outbox.adopt(self._service.create_run(), {})
        elif run_id != self._outbox.run_id:
            # Somebody else's record, or a lost one: the service itself says what it has.
            self._outbox.adopt(run_id, self._service.read_points(run_id))
        if not self._creates:
            self._outbox.described = True  # by whoever made it
        self._outbox.save()
        self._is_open = True

    def set_running(self) -> None:
        """The run goes on, whatever its status was."""
        self._outbox.set_status("RUNNING", unix_ms=round(1000 * time.time()))

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log results that the journal does not hold."""
        for row in rows:
            self._outbox.add_result({TIME_KEY: round(time.time(), 3), **row})

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Upload a file or folder, if it changed since."""
        self._outbox.add_artifact(path, folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._outbox.add_tags(tags)

    def flush(self, seconds: float = QUIET_SECONDS) -> None:
        """Wait until one attempt at everything is over, while the service takes something.

        Args:
            seconds: Longest wait for a service that takes nothing.
        """
        started = time.monotonic()
        with self._changed:
            wanted = self._rounds_begun + 1
            self._hurry = True
            self._changed.notify_all()
            while self._rounds_ended < wanted and self._thread.is_alive():
                now = time.monotonic()
                quiet = now - max(started, self._last_taken) > seconds
                if quiet or now - started > LONGEST_CLOSE_SECONDS:
                    return
                self._changed.wait(0.1)

    def close(self, seconds: float = QUIET_SECONDS) -> None:
        """Flush, then end the thread; what is missing stays in the outbox."""
        self._closing = True
        self.flush(seconds)
        missing = self.describe_missing()
        if missing is not None:
            logger.warning(missing)

    def finish(
        self, status: RunStatus, *, seconds: float = QUIET_SECONDS, ended: float | None = None
    ) -> None:
        """Set the status, then close; `ended` is when the run did, Unix seconds, None for now."""
        unix_ms = round(1000 * (time.time() if ended is None else ended))
        self._outbox.set_status(status, unix_ms=unix_ms)
        self.close(seconds)

    def describe_missing(self) -> str | None:
        """What to do about what the service lacks, as of the last attempt."""
        place = self._outbox.run.uri
        if self._outbox.refused:
            key, reason = next(iter(self._outbox.refused.items()))
            count = len(self._outbox.refused)
            return f"{place} refuses {count} things of this run, {key} for one: {reason}"
        if self._is_open and not self._is_behind and not self._outbox.has_due:
            return None
        return (
            f"{place} lacks a part of this run; the run folder has it. Once the server is back: "
            f"lssl-ray track sync {self._outbox.folder}"
        )

    def note_failure(self, error: Exception) -> None:
        """Count an attempt that was not taken; the first of several is told."""
        self.num_failed_calls += 1
        if not self._failures_in_a_row:
            logger.warning(
                "%s does not answer; the run goes on, its folder keeps what is missing: %s",
                self._outbox.run.uri,
                error,
            )
        self._failures_in_a_row += 1

    def _work(self) -> None:
        while True:
            pause = self._interval_seconds * 2 ** min(self._failures_in_a_row, 10)
            with self._changed:
                limit = max(self._interval_seconds, LONGEST_PAUSE_SECONDS)
                self._changed.wait_for(lambda: self._hurry, timeout=min(pause, limit))
                is_last, self._hurry = self._closing, False
                self._rounds_begun += 1
            self._attempt_round()
            with self._changed:
                self._rounds_ended = self._rounds_begun
                self._changed.notify_all()
            if is_last:
                return

    def _attempt_round(self) -> None:
        self._is_behind = True
        try:
            self._deliver()
        except (ServiceAwayError, ServiceRefusalError, OSError) as error:
            self.note_failure(error)
            return
        self._is_behind = False
        if self._failures_in_a_row:
            logger.warning("%s is back and has everything up to now.", self._outbox.run.uri)
        self._failures_in_a_row = 0

    def _deliver(self) -> None:
        """One attempt at everything that is due; ends at the first call that is not taken."""
        if not self._is_open:
            self.open()
            self._note_taken()
        outbox, service = self._outbox, self._service
        run_id = outbox.run_id
        assert run_id is not None
        if not outbox.described:
            service.describe_run(run_id)
            outbox.described = True
            self._note_taken()
            outbox.save()
        self._deliver_rows(run_id)
        for item in outbox.list_results():
            self._send_points(run_id, build_points(item["row"]))
            mark_done([item])
            outbox.save()
        if tags := outbox.list_tags():
            self._take("a tag", partial(service.send_tags, run_id, tags))
            outbox.mark_tags(tags)
            outbox.save()
        for item in outbox.list_artifacts():
            self._deliver_artifact(run_id, item)
        status = outbox.status
        if status is not None and outbox.is_status_due:
            self._take("the status", partial(service.send_status, run_id, *status))
            outbox.mark_status(status)
            outbox.save()

    def _deliver_rows(self, run_id: str) -> None:
        """The journal's rows, a batch at a time however many there are."""
        if self._follower is None:
            return
        while self._points or (rows := self._follower.read_new()):
            if not self._points:
                for row in rows:
                    # Rows of earlier versions have no time.
                    timed = {TIME_KEY: time.time(), **row}
                    self._points += self._outbox.select_points(timed)
            try:
                while self._points:
                    batch = self._points[:MAX_POINTS]
                    self._send_points(run_id, batch)
                    self._outbox.mark_points(batch)
                    del self._points[:MAX_POINTS]
            finally:
                self._outbox.save()

    def _send_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Send a batch; of a refused one each key by itself, so that one does not cost the rest."""
        try:
            self._service.send_points(run_id, points)
            self.num_points_sent += len(points)
        except ServiceRefusalError:
            for key in dict.fromkeys(point.key for point in points):
                own = [point for point in points if point.key == key]
                self._take(key, partial(self._service.send_points, run_id, own))
        self._note_taken()

    def _deliver_artifact(self, run_id: str, item: dict[str, Any]) -> None:
        path = self._outbox.folder / item["path"]
        fingerprint = compute_fingerprint(path)
        item["due"] = False  # from here on, whoever adds it again means what it is then
        if not path.exists():
            self._refuse(item["path"], "the file is not there any more")
        else:
            send = partial(self._service.send_artifact, run_id, path, item["folder"])
            try:
                self._take(item["path"], send)
            except ServiceAwayError:
                item["due"] = True
                raise
            item["sent"] = fingerprint
            self.num_artifacts_sent += 1
        self._outbox.save()

    def _take(self, what: str, call: Callable[[], None]) -> None:
        """One call whose refusal is told, and not tried again until the next process."""
        try:
            call()
        except ServiceRefusalError as error:
            self._refuse(what, str(error))
        self._note_taken()

    def _refuse(self, what: str, reason: str) -> None:
        self.num_failed_calls += 1
        self._outbox.refuse(what, reason)
        logger.warning("%s refuses %s: %s", self._outbox.run.uri, what, reason)

    def _note_taken(self) -> None:
        self._last_taken = time.monotonic()
