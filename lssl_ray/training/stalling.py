"""A worker that stands still says what its threads do and ends, instead of hanging for ever.

Progress is a new phase: each must end within a limit, however many steps a run has. Dump and end
come from a C thread of `faulthandler`, so they come even while native code holds Python's lock. Not
for slow training, which the metrics show, nor for videos: decoders have a deadline of their own.
"""

import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, runtime_checkable

# What a worker may be at; each reads after "has been".
LOADING = "loading the model and the last checkpoint"
DATA = "waiting for its next batch"
OTHERS = "waiting for the other workers"
STEP = "in a step"
CHECKPOINT = "filing a checkpoint"

LOGS_FOLDER = "logs"  # of a run
# Room for the line that names the phase; stacks follow it in the file.
HEAD_BYTES = 512
# Setting faulthandler's clock starts a thread, about 50 us: it is set so often in a limit's time,
# and late by as much rather than early.
CLOCKS_PER_LIMIT = 20
# A thread that tells a person must look before the clock strikes.
LOOK_SECONDS = 1.0
# What a process that could be told to leave gets for leaving.
GRACE_SECONDS = 60.0

logger = logging.getLogger(__name__)


@runtime_checkable  # for the type checks that run in tests
class OnPhase(Protocol):
    """Told what a worker does next."""

    def __call__(self, phase: str, *, step: int) -> None:
        """A phase begins, after so many steps of the run."""


def ignore_phase(phase: str, *, step: int) -> None:
    """Where nobody watches."""


@contextmanager
def watching_for_stalls(
    path: Path,
    *,
    seconds: float,
    rank: int,
    on_stall: Callable[[Path], None] | None = None,
) -> Iterator[OnPhase]:
    """End this process when a phase takes too long, with the stacks of all threads in a file.

    Args:
        path: Says what the worker is at while it works, and holds the stacks after a stall; gone
            after a good end. A dump that an earlier process left there is kept under another name.
        seconds: The longest that a phase may take; it may be found up to a twentieth late. 0 for
            any time.
        rank: Of the worker.
        on_stall: Told where the dump is, if Python's lock can be had; the process then gets SIGTERM
            and some time. None to end at once.

    Yields:
        What to tell each new phase.

    Raises:
        OSError: The file can't be written.
    """
    if not seconds:
        yield ignore_phase
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if (kept := keep_dump(path)) is not None:
        logger.warning("The session before stalled, and nobody was told; see %s", kept)
    watch = _StallWatch(path, seconds=seconds, rank=rank, on_stall=on_stall)
    watch.enter(LOADING, step=0)
    try:
        yield watch.enter
    finally:
        watch.close()


@contextmanager
def watching_run(run_folder: Path, *, seconds: float) -> Iterator[OnPhase]:
    """The same for a run of one process: a person is told, and the file is in the run's logs."""

    def tell(dump: Path) -> None:
        head, _, _ = (read_dump(dump) or "").partition("\n")
        logger.error(
            "%s That is longer than health.stall_seconds=%g. What its threads do: %s. It ends "
            "now; go on from the last checkpoint with: lssl-ray train --resume %s",
            *(head, seconds, dump, run_folder),
        )

    path = run_folder / LOGS_FOLDER / "watch_rank0.txt"
    with watching_for_stalls(path, seconds=seconds, rank=0, on_stall=tell) as on_phase:
        yield on_phase


def read_dump(path: Path) -> str | None:
    """What a watched worker left: the phase it was in, then stacks; None if it did not stall."""
    if not path.exists() or path.stat().st_size <= HEAD_BYTES:
        return None
    head, _, stacks = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    return f"{head.rstrip()}\n{stacks}"


def keep_dump(path: Path) -> Path | None:
    """Give a dump the name that no later session writes to; None if there is none."""
    if read_dump(path) is None:
        return None
    return path.replace(path.with_name(name_dump(path.stem.removeprefix("watch_"))))


def name_dump(worker: str) -> str:
    """File name of a worker's dump: what it is, whose, and when it was found."""
    return f"stall_{worker}_{datetime.now(timezone.utc):%Y%m%dT%H%M%S}.txt"


class _StallWatch:
    """The clock and the file of one worker; one per process, as faulthandler has one clock."""

    def __init__(
        self, path: Path, *, seconds: float, rank: int, on_stall: Callable[[Path], None] | None
    ) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._who = f"Rank {rank} (process {os.getpid()} on {socket.gethostname()})"
        self._seconds = seconds
        self._on_stall = on_stall
        self._lateness = seconds / CLOCKS_PER_LIMIT
        self._entered = time.monotonic()
        self._set_clock_at = 0.0
        self._closed = threading.Event()
        self._stalled = False
        if on_stall is not None:
            threading.Thread(target=self._look, name="stall-watch", daemon=True).start()

    def enter(self, phase: str, *, step: int) -> None:
        now = time.monotonic()
        self._entered = now
        since = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        line = f"{self._who} has been {phase} since {since}, after step {step}."
        head = line.encode(errors="replace")[: HEAD_BYTES - 1].ljust(HEAD_BYTES - 1) + b"\n"
        # The position stays where faulthandler writes: behind the head.
        os.pwrite(self._file.fileno(), head, 0)
        if now >= self._set_clock_at:
            self._set_clock_at = now + self._lateness
            faulthandler.dump_traceback_later(self._compute_limit(), exit=True, file=self._file)

    def close(self) -> None:
        self._closed.set()
        if self._stalled:  # on its way out: who hangs there is still ended
            return
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _compute_limit(self) -> float:
        self._file.seek(HEAD_BYTES)
        grace = 0.0 if self._on_stall is None else min(GRACE_SECONDS, self._seconds)
        return self._seconds + self._lateness + grace

    def _look(self) -> None:
        """In a thread: tell a person, and let the process leave in good order if it can."""
        assert self._on_stall is not None
        while not self._closed.wait(min(LOOK_SECONDS, self._lateness)):
            if time.monotonic() - self._entered > self._seconds:
                self._stalled = True
                faulthandler.dump_traceback(self._file)
                kept = keep_dump(self._path)
                assert kept is not None
                self._on_stall(kept)
                os.kill(os.getpid(), signal.SIGTERM)
                return
