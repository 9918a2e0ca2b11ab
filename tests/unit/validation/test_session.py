"""Evaluation beside training: nothing dropped, nothing twice, and what a dead validator costs."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lssl_ray.tracking.journal import METRICS_FILE, QUARANTINE_FILE, Journal, read_rows
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, checkpoint_name
from lssl_ray.training.holding import CheckpointHolder, list_held, read_step
from lssl_ray.types import ClipFailure
from lssl_ray.validation import session
from lssl_ray.validation.best import find_best
from lssl_ray.validation.records import NOT_EVALUATED, read_evaluations, summarise_evaluations
from lssl_ray.validation.session import evaluating_beside
from lssl_ray.validation.validator import (
    EvaluationRefusedError,
    ValidatorEndedError,
    Verdict,
)

KEY = "validation/val/zero_shot"
SCORES = {2: 0.5, 4: 0.75, 6: 0.75, 8: 0.25}
BAD = ClipFailure("bad.mp4", "/videos/bad.mp4", "no_frames", "empty", 0.1, 0)


class Scripted:
    """A validator that does as it is told: scores, `dies`, or refuses with a text."""

    def __init__(self, script: dict[int, list[Any]], log: list[str]) -> None:
        self.script = script
        self.log = log
        self.log.append("started")

    def evaluate(self, checkpoint: Path) -> Verdict:
        step = read_step(checkpoint)
        assert (checkpoint / "teacher.safetensors").read_text() == f"weights {step}"
        self.log.append(f"step {step}")
        told = self.script[step].pop(0) if step in self.script else SCORES[step]
        if told == "dies":
            raise ValidatorEndedError("signal 9")
        if isinstance(told, str):
            raise EvaluationRefusedError(told)
        return Verdict(scores={KEY: told}, failures=(BAD,), seconds=0.5)

    def interrupt(self) -> None:
        self.log.append("interrupted")

    def close(self) -> None:
        self.log.append("closed")


class Stuck(Scripted):
    """Answers nothing until it is interrupted."""

    def __init__(self, log: list[str]) -> None:
        super().__init__({}, log)
        self.asked, self.ended = threading.Event(), threading.Event()

    def evaluate(self, checkpoint: Path) -> Verdict:
        self.asked.set()
        assert self.ended.wait(60)
        raise ValidatorEndedError("interrupted")

    def interrupt(self) -> None:
        super().interrupt()
        self.ended.set()


class Run:
    """A run folder whose trainer is the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self.log: list[str] = []
        self.holder = CheckpointHolder(folder, every_steps=2, last_step=8)

    def save(self, *steps: int) -> None:
        for step in steps:
            folder = self.folder / CHECKPOINTS_FOLDER / checkpoint_name(step)
            folder.mkdir(parents=True)
            (folder / "teacher.safetensors").write_text(f"weights {step}")
            self.holder.hold(folder)

    def evaluate(
        self,
        *,
        script: dict[int, list[Any]] | None = None,
        train: Callable[[], None] = lambda: None,
        start: Callable[[], Any] | None = None,
        best: str | None = None,
        deadline_seconds: float = 60.0,
        on_waiting: Callable[[int], None] | None = None,
    ) -> None:
        start = start or partial(Scripted, script or {}, self.log)
        with evaluating_beside(
            self.folder,
            start=start,
            append=self.journal.append,
            best=best,
            deadline_seconds=deadline_seconds,
            on_waiting=on_waiting,
        ):
            train()

    def rows(self) -> list[dict[str, Any]]:
        return list(read_evaluations(self.folder))

    def scores(self) -> list[tuple[int, float]]:
        return [(row["step"], row[KEY]) for row in self.rows() if KEY in row]

    def held(self) -> list[int]:
        return [read_step(path) for path in list_held(self.folder)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_session_evaluates_everything_in_order_by_one_validator(run: Run) -> None:
    run.evaluate(train=lambda: run.save(2, 4, 6, 8))
    assert run.scores() == sorted(SCORES.items())
    assert run.held() == []
    assert run.log == ["started", "step 2", "step 4", "step 6", "step 8", "closed"]


def test_session_end_says_how_many_wait(run: Run) -> None:
    waiting: list[int] = []
    release = threading.Event()

    class Slow(Scripted):
        def evaluate(self, checkpoint: Path) -> Verdict:
            assert release.wait(60)
            return super().evaluate(checkpoint)

    def tell(count: int) -> None:
        waiting.append(count)
        release.set()

    run.evaluate(
        train=lambda: run.save(2, 4, 6),
        start=lambda: Slow({}, run.log),
        on_waiting=tell,
    )
    assert waiting[0] == 3 and waiting[-1] == 0
    assert [row["validation/waiting"] for row in run.rows()] == [2, 1, 0]


def test_session_keeps_the_earlier_of_the_best(run: Run) -> None:
    run.evaluate(train=lambda: run.save(2, 4, 6, 8), best=KEY)
    best = find_best(run.folder)
    assert best is not None and (best.step, best.value) == (4, 0.75)
    assert (run.folder / "best" / "teacher.safetensors").read_text() == "weights 4"
    assert [row["best_step"] for row in run.rows()] == [2, 4, 4, 4]


def test_session_replaces_a_dead_validator_once_per_checkpoint(run: Run) -> None:
    script = {2: ["dies", 0.5], 4: ["dies", "dies"], 6: ["dies", 0.75]}
    run.evaluate(script=script, train=lambda: run.save(2, 4, 6, 8))
    assert run.scores() == [(2, 0.5), (6, 0.75), (8, 0.25)]
    (given_up,) = [row for row in run.rows() if NOT_EVALUATED in row]
    assert (given_up["step"], given_up["reason"]) == (4, "signal 9")
    assert run.log.count("started") == run.log.count("closed") == 5
    assert run.held() == []


def test_session_ends_a_validator_that_hangs_and_goes_on(run: Run) -> None:
    validators: list[Scripted] = [Stuck(run.log), Stuck(run.log), Scripted({}, run.log)]
    run.save(2, 4)
    run.evaluate(start=lambda: validators.pop(0), deadline_seconds=0.05)
    assert run.log.count("interrupted") == 2
    given_up, evaluated = run.rows()
    assert (given_up["step"], given_up[NOT_EVALUATED]) == (2, 1)
    assert "0.05" in given_up["reason"]
    assert (evaluated["step"], evaluated[KEY]) == (4, SCORES[4])


def test_session_takes_a_refusal_as_the_last_word(run: Run) -> None:
    run.evaluate(script={4: ["too few videos"]}, train=lambda: run.save(2, 4, 6))
    assert [step for step, _ in run.scores()] == [2, 6]
    summary = summarise_evaluations(run.folder)
    assert summary["not_evaluated"] == [{"step": 4, "reason": "too few videos"}]
    assert [point["step"] for point in summary["points"]] == [2, 6]
    assert run.log.count("started") == 1


def test_session_of_a_failed_run_ends_at_once_and_leaves_the_rest(run: Run) -> None:
    stuck = Stuck(run.log)

    def train() -> None:
        run.save(2, 4)
        assert stuck.asked.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.evaluate(train=train, start=lambda: stuck)
    assert run.rows() == []
    assert run.held() == [2, 4]
    assert run.log == ["started", "interrupted", "closed"]
    run.evaluate()  # the run goes on
    assert run.scores() == [(2, 0.5), (4, 0.75)]


def test_session_does_not_file_again_what_a_kill_left_lying(run: Run) -> None:
    run.save(2, 4)
    run.journal.append("metrics", {"step": 2, KEY: 0.5, "validation/waiting": 1})
    run.evaluate(best=KEY)
    assert run.scores() == [(2, 0.5), (4, 0.75)]
    assert run.held() == []


def test_session_counts_a_checkpoint_whose_weights_are_gone(run: Run) -> None:
    run.save(2, 4)
    list_held(run.folder)[0].rename(run.folder / "taken away")
    for _ in range(2):
        run.evaluate()
    (given_up,) = [row for row in run.rows() if NOT_EVALUATED in row]
    assert given_up["step"] == 2 and "gone" in given_up["reason"]
    assert [step for step, _ in run.scores()] == [4]


def test_session_start_gives_up_nothing_that_is_set_aside_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_then_save(folder: Path) -> list[Path]:
        found = list_held(folder)
        if not (folder / CHECKPOINTS_FOLDER).exists():
            run.save(2)
        return found

    monkeypatch.setattr(session, "list_held", list_then_save)
    run.evaluate()
    assert run.scores() == [(2, 0.5)] and len(run.rows()) == 1


def test_session_quarantines_a_video_once(run: Run) -> None:
    run.save(2, 4)
    run.evaluate()
    run.save(6)
    run.evaluate()
    rows = list(read_rows(run.folder / QUARANTINE_FILE))
    assert [(row["path"], row["stage"], row["step"]) for row in rows] == [
        ("/videos/bad.mp4", "validate", 2)
    ]


def test_session_rows_stay_apart_from_training_rows(run: Run) -> None:
    def train() -> None:
        run.journal.append("metrics", {"step": 9, "num_steps": 9, "loss/total": 1.0})
        run.save(2)

    run.evaluate(train=train)
    assert [row["step"] for row in read_rows(run.folder / METRICS_FILE)] == [9, 2]
    assert [row["step"] for row in run.rows()] == [2]


def test_session_whose_journal_fails_says_so_at_the_end(run: Run) -> None:
    def refuse(kind: str, row: object) -> None:
        raise OSError("no space left")

    with (
        pytest.raises(OSError, match="no space"),
        evaluating_beside(
            run.folder,
            start=partial(Scripted, {}, run.log),
            append=refuse,
            best=None,
            deadline_seconds=60.0,
        ),
    ):
        run.save(2)
    assert run.held() == [2], "what is not filed must not be lost"
