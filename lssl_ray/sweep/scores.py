"""A run's scores, read from its journal while it grows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssl_ray.tracking.journal import JournalFollower, read_rows

DONE = 100.0


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
        self._num_steps = 0

    def read_new(self) -> list[Score]:
        """Scores that appeared since the last call, in order of their steps."""
        new = {}
        while rows := self._follower.read_new():
            for row in rows:
                self._num_steps = int(row.get("num_steps", self._num_steps))
                value = read_score(row, key=self._key)
                if value is not None and row["step"] not in self._known:
                    new[int(row["step"])] = value
        self._known.update(new)
        return [
            Score(step, DONE * step / max(self._num_steps, step, 1), new[step])
            for step in sorted(new)
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
        keys = [key for key in row if key.startswith(("validation/", "held_back/"))]
        for key in dict.fromkeys([*keys, select]):
            value = read_score(row, key=key)
            if value is not None and row["step"] >= last.get(key, (0, 0.0))[0]:
                last[key] = int(row["step"]), value
    return steps, {key: value for key, (_, value) in sorted(last.items())}
