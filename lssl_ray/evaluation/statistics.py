"""How sure a figure is: intervals, paired comparisons, mean and deviation over splits.

One model's accuracy on a set is a share of independent videos: its interval is Wilson's, which has
width even where all or none are right. Differences between models on the same videos are drawn
again (bootstrap). Either says how figures would move with other videos of the same kind, not with
other training seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import percent

NUM_DRAWS = 10_000
# Below so many videos on which two models differ, McNemar's test is computed exactly.
EXACT_BELOW = 25


@dataclass(frozen=True)
class Summary:
    """Figures over splits or seeds.

    Attributes:
        values: The figures.
        mean: Their mean.
        std: Sample standard deviation (n - 1); None for a single figure.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {"values": list(self.values), "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Interval:
    """A figure and where it would lie with other videos.

    Attributes:
        value: The figure itself.
        low: Lower end.
        high: Upper end.
        confidence: How often such an interval holds the true figure, e.g. 0.95.
        method: `wilson`, or `bootstrap` (percentiles of draws).
        num_videos: Videos that the figure is of.
        num_draws: Bootstrap draws; None without any.
    """

    value: float
    low: float
    high: float
    confidence: float
    method: Literal["wilson", "bootstrap"]
    num_videos: int
    num_draws: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "percent": percent(self.value),
            "low_percent": percent(self.low),
            "high_percent": percent(self.high),
            "confidence": self.confidence,
            "method": self.method,
            "bootstrap_draws": self.num_draws,
            "videos": self.num_videos,
        }


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same videos.

    Attributes:
        difference: Accuracy of the second minus the first, in [-1, 1], with its interval.
        num_only_first: Videos that only the first gets right.
        num_only_second: Videos that only the second gets right.
        p_value: Of McNemar's test: how likely at least as uneven a share of these videos is when
            neither model is better.
        test: `exact` (binomial) or `chi_square` (with continuity correction).
    """

    difference: Interval
    num_only_first: int
    num_only_second: int
    p_value: float
    test: Literal["exact", "chi_square"]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "difference": self.difference.to_json(),
            "right_only_first": self.num_only_first,
            "right_only_second": self.num_only_second,
            "mcnemar_p": self.p_value,
            "mcnemar_test": self.test,
        }


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation over splits or seeds.

    Raises:
        DataError: No value.
    """
    if not values:
        raise DataError("There is no figure to average; give at least one split or seed.")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(values=tuple(values), mean=float(np.mean(values)), std=std)


def compute_interval(right: Sequence[bool], *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of accuracy on a set of videos.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 1927; without continuity correction.

    Args:
        right: Per video, whether the prediction is right.
        confidence: In (0, 1).

    Raises:
        DataError: No video, or a confidence outside (0, 1).
    """
    hits = np.asarray(right, dtype=bool)
    _check(len(hits), confidence=confidence)
    test = binomtest(int(hits.sum()), len(hits))
    ends = test.proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(
        value=float(hits.mean()),
        low=float(ends.low),
        high=float(ends.high),
        confidence=confidence,
        method="wilson",
        num_videos=len(hits),
    )


def compare_paired(
    first: Sequence[bool],
    second: Sequence[bool],
    *,
    confidence: float = 0.95,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same videos: difference, its bootstrap interval, McNemar's test.

    Args:
        first: Per video, whether the first model is right.
        second: The same videos in the same order under the second model.
        confidence: In (0, 1).
        num_draws: Sets of videos drawn.
        seed: Of the draws.

    Raises:
        DataError: No video, two numbers of videos, or a confidence outside (0, 1).
    """
    if len(first) != len(second):
        raise DataError(
            f"{len(first)} videos of the first model against {len(second)} of the second; a paired "
            "comparison needs the same videos in the same order."
        )
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    _check(len(a), confidence=confidence)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    same = len(a) - only_first - only_second
    # A draw of videos with replacement is a multinomial draw of these three kinds.
    shares = np.array([only_first, only_second, same]) / len(a)
    drawn = np.random.default_rng(seed).multinomial(len(a), shares, size=num_draws)
    p_value, test = _compute_mcnemar(only_first, only_second)
    return PairedComparison(
        difference=_build_bootstrap_interval(
            (only_second - only_first) / len(a),
            (drawn[:, 1] - drawn[:, 0]) / len(a),
            confidence=confidence,
            num_videos=len(a),
        ),
        num_only_first=only_first,
        num_only_second=only_second,
        p_value=p_value,
        test=test,
    )


def _compute_mcnemar(first: int, second: int) -> tuple[float, Literal["exact", "chi_square"]]:
    """McNemar, "Note on the sampling error ...", Psychometrika 1947; correction by Edwards 1948."""
    total = first + second
    if total == 0:
        return 1.0, "exact"
    if total < EXACT_BELOW:
        return float(binomtest(first, total, 0.5).pvalue), "exact"
    statistic = max(0, abs(first - second) - 1) ** 2 / total
    return float(chi2.sf(statistic, df=1)), "chi_square"


def _build_bootstrap_interval(
    value: float, drawn: NDArray[np.float64], *, confidence: float, num_videos: int
) -> Interval:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        confidence=confidence,
        method="bootstrap",
        num_videos=num_videos,
        num_draws=len(drawn),
    )


def _check(num_videos: int, *, confidence: float) -> None:
    if num_videos == 0:
        raise DataError("There is no video to compute an interval from; evaluate at least one.")
    if not 0 < confidence < 1:
        raise DataError(f"confidence={confidence} must lie between 0 and 1; 0.95 is usual.")
