"""Choosing a probe's one hyper-parameter inside the training split, and saying how.

The test split has no way in here: whatever its labels, the choice stays the same.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import percent


@dataclass(frozen=True)
class Trial:
    """A value that was tried.

    Attributes:
        value: Of the hyper-parameter.
        accuracy: On the held-out training videos, in [0, 1].
        loss: Cross-entropy there, nats.
    """

    value: float
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Choice:
    """A hyper-parameter, and how it was chosen.

    Attributes:
        name: `learning_rate` or `C`.
        value: The chosen value.
        method: How it was chosen, in words.
        trials: All values that were tried; none for a value that was given.
    """

    name: str
    value: float
    method: str
    trials: tuple[Trial, ...]

    @property
    def at_edge(self) -> bool:
        """Whether it is the smallest or largest value tried: a further one might do better."""
        values = [trial.value for trial in self.trials]
        return bool(values) and self.value in (min(values), max(values))

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "name": self.name,
            "value": self.value,
            "method": self.method,
            "at_edge_of_tried": self.at_edge,
            "tried": [
                {
                    "value": trial.value,
                    "held_out_percent": percent(trial.accuracy),
                    "held_out_loss": round(trial.loss, 6),
                }
                for trial in self.trials
            ],
        }


def choose(name: str, trials: Sequence[Trial], *, method: str) -> Choice:
    """The value with the highest accuracy; of equals the lowest loss, then the smallest value."""
    best = max(trials, key=lambda trial: (trial.accuracy, -trial.loss, -trial.value))
    return Choice(name=name, value=best.value, method=method, trials=tuple(trials))


def assign_folds(targets: NDArray[np.int64], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal videos to folds, label by label, so that every fold has its share of each label.

    A label with at least two videos is never in one fold alone.

    Args:
        targets: Label index per video, [videos].
        num_folds: At least 2.
        seed: Of the order within a label.

    Returns:
        A fold in [0, num_folds) per video, [videos].

    Raises:
        DataError: Fewer than two labels have two videos, so nothing can be held out.
    """
    counts = Counter(targets.tolist())
    if sum(count > 1 for count in counts.values()) < 2:
        raise DataError(
            f"The training split has {len(targets)} videos of {len(counts)} labels, and fewer than "
            "two labels with two videos: nothing can be held out to choose a hyper-parameter. Give "
            "more training videos, or name the value yourself."
        )
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_label = shuffled[np.argsort(targets[shuffled], kind="stable")]
    folds = np.empty(len(targets), dtype=np.int64)
    folds[by_label] = np.arange(len(targets)) % num_folds
    return folds
