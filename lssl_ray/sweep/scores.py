"""A run's scores, read from its journal while it grows."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssl_ray.sweep.trials import TRUTH_SUFFIX
from lssl_ray.tracking.journal import JournalFollower, read_rows

DONE = 100.0
HELD_BACK = "held_back/"
# What labels are made of, and the label-free scores that don't look at them.
_VOCABULARY = ("concepts.labels", "concepts.space", "concepts.templates")
_OF_FEATURES = (f"{HELD_BACK}effective_rank", f"{HELD_BACK}lidar")


@dataclass(frozen=True)
class Score:
    """One score of a run, higher is better.

    Attributes:
        step: Of the checkpoint that was looked at.
        progress: That step as per cent of the run's steps.
        value: Finite.
    """

    step: int
    progress: float
    value: float


class ScoreReader:
    """Reads one metric of a run, each step's once, through rewinds.

    Args:
        metrics: The journal's metrics file; it need not exist yet.
        key: The metric; after a `-` its negative is the score, where lower is better.
    """

    def __init__(self, metrics: Path, *, key: str) -> None:
        self._follower = JournalFollower(metrics)
        self._key = key
        self._known: set[int] = set()
        self._waiting: dict[int, float] = {}
        self._num_steps = 0

    def read_new(self) -> list[Score]:
        """Scores that appeared since the last call, in order of their steps.

        A score waits until a window of training steps has said how long the run is.
        """
        while rows := self._follower.read_new():
            for row in rows:
                self._num_steps = int(row.get("num_steps", self._num_steps))
                value = read_score(row, key=self._key)
                if value is not None and row["step"] not in self._known:
                    self._waiting[int(row["step"])] = value
        if not self._num_steps:
            return []
        new, self._waiting = self._waiting, {}
        self._known.update(new)
        return [
            Score(step, DONE * step / max(self._num_steps, step), new[step]) for step in sorted(new)
        ]


def read_score(row: Mapping[str, Any], *, key: str) -> float | None:
    """A row's score; None where it has none, or none that is finite.

    Args:
        row: Of the journal.
        key: As in `ScoreReader`.
    """
    value = row.get(key.removeprefix("-"))
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return -float(value) if key.startswith("-") else float(value)


def load_last_scores(metrics: Path, *, select: str) -> tuple[int, dict[str, float]]:
    """How far a run came, and the last value of everything that sweeps compare.

    Args:
        metrics: The journal's metrics file; it may be missing.
        select: What the sweep chooses by, as in `ScoreReader`.

    Returns:
        The last training step, and scores by key.
    """
    steps, last = 0, dict[str, tuple[int, float]]()
    for row in read_rows(metrics):
        if "loss/total" in row:
            steps = max(steps, int(row["step"]))
        keys = [key for key in row if key.startswith(("validation/", HELD_BACK))]
        for key in dict.fromkeys([*keys, select]):
            value = read_score(row, key=key)
            if value is not None and row["step"] >= last.get(key, (0, 0.0))[0]:
                last[key] = int(row["step"]), value
    return steps, {key: value for key, (_, value) in sorted(last.items())}


def describe_doubt(
    settings: Sequence[Mapping[str, Any]], *, select: str, answers: str | None
) -> str | None:
    """Why a score does not compare a sweep's trials; None when nothing speaks against it.

    Args:
        settings: Of each trial, by dotted key.
        select: What the sweep chooses by.
        answers: Labels that zero-shot chooses from in every trial; None for each trial's own.
    """
    looks_at_labels = select.startswith(HELD_BACK) and select not in _OF_FEATURES
    chooses_from_own = select.endswith(TRUTH_SUFFIX) and answers is None
    if not looks_at_labels and not chooses_from_own:
        return None
    for key in _VOCABULARY:
        if len({json.dumps(own.get(key)) for own in settings}) > 1:
            return (
                f"{key} differs between trials, and {select} is about each trial's own labels: "
                "such scores don't compare. Choose by labelled videos with the same answers for "
                "all (--select zero_shot:SPLIT --set evaluation.labels=FILE), or sweep each "
                "vocabulary by itself."
            )
    return None
