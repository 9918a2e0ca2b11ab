"""Few-shot classification: a convex probe on K training videos per label, over fixed seeds.

Subsets are a pure function of (seed, K, labels of the training split) and nested: those of K = 2
are among those of K = 4. A label with fewer than K videos takes part with all it has, and is named
in the result.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import percent
from lssl_ray.evaluation.convex_probe import ConvexSettings
from lssl_ray.evaluation.linear_probe import LinearProbeResult, run_linear_probe
from lssl_ray.evaluation.statistics import Summary, summarise
from lssl_ray.evaluation.transductive import Reading

NUM_SHOTS = (2, 4, 8, 16)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class FewShotSubset:
    """The training videos of one draw.

    Attributes:
        rows: Row numbers in the training split, ascending.
        short_labels: Labels with fewer than K videos, and how many they have.
    """

    rows: tuple[int, ...]
    short_labels: Mapping[str, int]


@dataclass(frozen=True)
class FewShotPoint:
    """Accuracy at one K.

    Attributes:
        num_shots: K.
        results: A probe per seed, in the order of the seeds.
        top1: Over the seeds, shares in [0, 1].
        short_labels: Labels with fewer than K videos, and how many they have.
    """

    num_shots: int
    results: tuple[LinearProbeResult, ...]
    top1: Summary
    short_labels: Mapping[str, int]


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy by number of training videos per label.

    Attributes:
        points: One per K.
        seeds: Of the draws.
    """

    points: tuple[FewShotPoint, ...]
    seeds: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "protocol": "few_shot",
            "transductive": self.points[0].results[0].transductive,
            "seeds": list(self.seeds),
            "shots": [
                {
                    "videos_per_label": point.num_shots,
                    "top1_percent": percent(point.top1.mean),
                    "top1_std_points": None if point.top1.std is None else percent(point.top1.std),
                    "labels_with_fewer": dict(point.short_labels),
                    "seeds": [result.to_json() for result in point.results],
                }
                for point in self.points
            ],
        }


def draw_few_shot(truth: Sequence[str], *, num_shots: int, seed: int) -> FewShotSubset:
    """Draw K training videos of each label.

    A label's videos are put into an order that depends on the seed and the label alone, and the
    first K are taken: more shots add videos, and other labels change nothing.

    Args:
        truth: Label of each video of the training split.
        num_shots: K, at least 1.
        seed: Of the order.

    Raises:
        DataError: K below 1.
    """
    if num_shots < 1:
        raise DataError(f"num_shots={num_shots}; few-shot takes at least one video per label.")
    rows_by_label: dict[str, list[int]] = {}
    for row, label in enumerate(truth):
        rows_by_label.setdefault(label, []).append(row)
    chosen: list[int] = []
    for label, rows in rows_by_label.items():
        name = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
        order = np.random.default_rng([seed, name]).permutation(len(rows))
        chosen.extend(rows[place] for place in order[:num_shots])
    short = {label: len(rows) for label, rows in rows_by_label.items() if len(rows) < num_shots}
    return FewShotSubset(rows=tuple(sorted(chosen)), short_labels=short)


def run_few_shot(
    train_features: Float[Tensor, "train dim"],
    *,
    train_truth: Sequence[str],
    test_features: Float[Tensor, "test dim"],
    test_truth: Sequence[str],
    labels: Sequence[str],
    num_shots: Sequence[int] = NUM_SHOTS,
    seeds: Sequence[int] = SEEDS,
    settings: ConvexSettings | None = None,
    transductive: Reading = "not stated",
) -> FewShotResult:
    """Fit and score a convex probe for every K and seed.

    The penalty is chosen anew within each subset, by cross-validation, so no more than K labelled
    videos per label are ever used. A K of 1 leaves nothing to hold out: give one penalty then.

    Args:
        train_features: Features of the whole training split.
        train_truth: Their labels.
        test_features: Features of the test split.
        test_truth: Their labels.
        labels: Names that may be predicted.
        num_shots: Each K.
        seeds: Of the draws.
        settings: Of the probe; None for the defaults.
        transductive: See `transductive`.

    Raises:
        DataError: No K or no seed, or what `draw_few_shot` and `run_linear_probe` refuse.
    """
    if not num_shots or not seeds:
        raise DataError(
            f"Few-shot got num_shots={list(num_shots)} and seeds={list(seeds)}; give at least one "
            "of each."
        )
    points = []
    for count in num_shots:
        results = []
        for seed in seeds:
            subset = draw_few_shot(train_truth, num_shots=count, seed=seed)
            results.append(
                run_linear_probe(
                    train_features[torch.tensor(subset.rows, dtype=torch.int64)],
                    train_truth=[train_truth[row] for row in subset.rows],
                    test_features=test_features,
                    test_truth=test_truth,
                    labels=labels,
                    settings=settings or ConvexSettings(),
                    transductive=transductive,
                )
            )
        points.append(
            FewShotPoint(
                num_shots=count,
                results=tuple(results),
                top1=summarise([result.top1 for result in results]),
                short_labels=subset.short_labels,
            )
        )
    return FewShotResult(points=tuple(points), seeds=tuple(seeds))
