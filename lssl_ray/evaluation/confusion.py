"""Who is taken for whom: confusion matrix, most confused pairs, per-class change between models.

Drawing is in `lssl_ray.evaluation_pictures`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy, percent


@dataclass(frozen=True)
class Confusion:
    """How often each label is predicted for each.

    Attributes:
        labels: Names of rows and columns.
        counts: Videos; rows are right labels, columns predicted ones.
    """

    labels: tuple[str, ...]
    counts: Int64[np.ndarray, "labels labels"]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files; `counts` row by row."""
        return {"labels": list(self.labels), "counts": self.counts.tolist()}


@dataclass(frozen=True)
class ConfusedPair:
    """One label taken for another.

    Attributes:
        truth: The right label.
        predicted: What was predicted.
        count: How many videos.
        share: Of the right label's videos, in (0, 1].
    """

    truth: str
    predicted: str
    count: int
    share: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "truth": self.truth,
            "predicted": self.predicted,
            "videos": self.count,
            "percent_of_truth": percent(self.share),
        }


@dataclass(frozen=True)
class ClassChange:
    """One label's accuracy under two models.

    Attributes:
        label: The label.
        num_videos: Its videos.
        first: Accuracy of the first model, in [0, 1].
        second: Accuracy of the second.
    """

    label: str
    num_videos: int
    first: float
    second: float

    @property
    def change(self) -> float:
        """Second minus first, in [-1, 1]."""
        return self.second - self.first

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "label": self.label,
            "videos": self.num_videos,
            "first_percent": percent(self.first),
            "second_percent": percent(self.second),
            "change_points": percent(self.change),
        }


def compute_confusion(accuracy: Accuracy) -> Confusion:
    """Count predictions by right label; labels without videos have rows of zeros."""
    size = len(accuracy.labels)
    flat = np.asarray(accuracy.truth) * size + np.asarray(accuracy.predictions)
    counts = np.bincount(flat, minlength=size * size).reshape(size, size)
    return Confusion(labels=accuracy.labels, counts=counts.astype(np.int64))


def find_confused_pairs(confusion: Confusion, *, limit: int = 20) -> tuple[ConfusedPair, ...]:
    """The pairs with the most wrong videos, most first; of equals the larger share first.

    Args:
        confusion: Of one model.
        limit: Pairs at most; pairs that never happen are not listed.
    """
    wrong = confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    totals = confusion.counts.sum(axis=1)
    pairs = [
        ConfusedPair(
            truth=confusion.labels[row],
            predicted=confusion.labels[column],
            count=int(wrong[row, column]),
            share=float(wrong[row, column] / totals[row]),
        )
        for row, column in np.argwhere(wrong)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, -pair.share))[:limit])


def compare_classes(first: Accuracy, second: Accuracy) -> tuple[ClassChange, ...]:
    """Each label's accuracy under two models, largest gain first; labels with videos only.

    Raises:
        DataError: The models were not scored on the same videos and labels.
    """
    if first.labels != second.labels or first.truth != second.truth:
        raise DataError(
            f"The two results are of {first.num_videos} and {second.num_videos} videos and of "
            f"{len(first.labels)} and {len(second.labels)} labels, and not the same ones in the "
            "same order; evaluate both models on one manifest with one label list."
        )
    changes = [
        ClassChange(
            label=label,
            num_videos=total,
            first=right / total,
            second=second.per_class[label][0] / total,
        )
        for label, (right, total) in first.per_class.items()
    ]
    return tuple(sorted(changes, key=lambda change: -change.change))
