"""Evaluation beside training: a thread that works off the checkpoints set aside, oldest first.

It only waits for a validator's answers and files them, so that it takes nothing from training in
this process. Slower than training? Checkpoints wait in the run folder, and the session's end waits
for them. Killed? They are still there when the run goes on.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lssl_ray.training.holding import list_held, read_asked, read_step
from lssl_ray.validation.best import Best, find_best, keep_best
from lssl_ray.validation.records import (
    NOT_EVALUATED,
    VALIDATE_STAGE,
    WAITING,
    read_evaluations,
    read_quarantined,
)
from lssl_ray.validation.validator import (
    EvaluationRefusedError,
    Validator,
    ValidatorEndedError,
    Verdict,
)

POLL_SECONDS = 0.2
MAX_ATTEMPTS = 2  # per checkpoint: a validator that dies is replaced once

Append = Callable[[str, Mapping[str, Any]], None]
# Told how many checkpoints wait once training is over.
OnWaiting = Callable[[int], None]


@contextmanager
def evaluating_beside(
    run_folder: Path,
    *,
    start: Callable[[], Validator],
    append: Append,
    best: str | None,
    deadline_seconds: float,
    on_waiting: OnWaiting | None = None,
) -> Iterator[None]:
    """Evaluate checkpoints that are set aside, from here to a good end of the block and the last.

    Args:
        run_folder: Where they are set aside.
        start: Starts what evaluates; called at the first checkpoint, and after a death.
        append: The journal's; called from another thread.
        best: Metric by which the best is kept.
        deadline_seconds: Longest time for one checkpoint, the validator's start included.
        on_waiting: Called now and then while the end waits.
    """
    session = _Session(
        run_folder, start=start, append=append, best=best, deadline_seconds=deadline_seconds
    )
    # A daemon: one that waits for an answer must not keep a failed run from ending.
    thread = threading.Thread(target=session.run, name="evaluating-beside", daemon=True)
    thread.start()
    try:
        yield
        session.finishing.set()
        while thread.is_alive():
            if on_waiting is not None:
                on_waiting(len(list_held(run_folder)))
            thread.join(POLL_SECONDS)
        if on_waiting is not None:
            on_waiting(len(list_held(run_folder)))
    finally:
        session.interrupt()
        thread.join()
    if session.error is not None:
        raise session.error


class _Session:
    """What the thread does, and the three ways in for others: finish, interrupt, its error."""

    def __init__(
        self,
        run_folder: Path,
        *,
        start: Callable[[], Validator],
        append: Append,
        best: str | None,
        deadline_seconds: float,
    ) -> None:
        self._run_folder = run_folder
        self._start = start
        self._append = append
        self._best = best
        self._deadline_seconds = deadline_seconds
        self._validator: Validator | None = None
        self._interrupted = threading.Event()
        self.finishing = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """The thread's whole life."""
        try:
            self._give_up_lost()
            self._work()
        except BaseException as error:  # of any kind: it is raised where the end is awaited
            self.error = error
        finally:
            self._close_validator()

    def interrupt(self) -> None:
        """End at once; what is not filed stays where it is."""
        self._interrupted.set()
        validator = self._validator
        if validator is not None:
            validator.interrupt()

    def _work(self) -> None:
        while not self._interrupted.is_set():
            last_look = self.finishing.is_set()
            held = list_held(self._run_folder)
            if held:
                self._take(held[0])
            elif last_look:
                return
            else:
                self._interrupted.wait(POLL_SECONDS)

    def _take(self, held: Path) -> None:
        step = read_step(held)
        # It is there after a kill between its row and the next line but one.
        if all(row["step"] != step for row in read_evaluations(self._run_folder)):
            outcome = self._evaluate(held)
            if self._interrupted.is_set() or not held.exists():  # its steps are done again
                return
            if isinstance(outcome, Verdict):
                self._file(held, step, outcome)
            else:
                self._give_up(step, outcome)
        shutil.rmtree(held, ignore_errors=True)

    def _evaluate(self, held: Path) -> Verdict | str:
        """The verdict, or why there is none."""
        reason = ""
        for _ in range(MAX_ATTEMPTS):
            if self._validator is None:
                self._validator = self._start()
            if self._interrupted.is_set():  # before it could be told
                return "interrupted"
            deadline = _Deadline(self._deadline_seconds, self._validator)
            try:
                with deadline:
                    return self._validator.evaluate(held)
            except EvaluationRefusedError as error:
                return str(error)
            except ValidatorEndedError as error:
                reason = deadline.reason or str(error)
                self._close_validator()
                if self._interrupted.is_set():
                    break
        return reason

    def _file(self, held: Path, step: int, verdict: Verdict) -> None:
        known = read_quarantined(self._run_folder)
        for failure in verdict.failures:
            if (failure.video_id, failure.path) not in known:
                row = {**asdict(failure), "step": step, "stage": VALIDATE_STAGE}
                self._append("quarantine", row)
        row = {"step": step, **verdict.scores}
        # The best comes before the row: a kill in between evaluates once more, to the same end.
        best = find_best(self._run_folder)
        if self._best is not None and self._best in verdict.scores:
            candidate = Best(step, self._best, verdict.scores[self._best])
            best = keep_best(self._run_folder, held, candidate)
        if best is not None:
            row["best_step"] = best.step
        row[WAITING] = len(list_held(self._run_folder)) - 1
        row["time/validation_seconds"] = verdict.seconds
        self._append("metrics", row)

    def _give_up(self, step: int, reason: str) -> None:
        row = {"step": step, NOT_EVALUATED: 1, "reason": reason}
        waiting = [held for held in list_held(self._run_folder) if read_step(held) != step]
        self._append("metrics", row | {WAITING: len(waiting)})

    def _give_up_lost(self) -> None:
        """Checkpoints that were set aside before a kill, and whose weights are gone."""
        # First what was asked: training may set another one aside between these lines.
        asked = read_asked(self._run_folder)
        filed = {int(row["step"]) for row in read_evaluations(self._run_folder)}
        held = {read_step(path) for path in list_held(self._run_folder)}
        for step in sorted(asked - filed - held):
            self._give_up(step, "its weights are gone from the run folder")

    def _close_validator(self) -> None:
        validator, self._validator = self._validator, None
        if validator is not None:
            validator.close()


class _Deadline:
    """Ends a validator that hangs: whoever waits for its answer is told that it ended."""

    def __init__(self, seconds: float, validator: Validator) -> None:
        self._seconds = seconds
        self._validator = validator
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self.reason = ""

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def _expire(self) -> None:
        self.reason = f"no answer within evaluation.deadline_seconds={self._seconds:g}"
        self._validator.interrupt()
