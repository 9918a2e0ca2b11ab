"""One configuration of a sweep: mean and spread over its seeds, and what differs only by noise.

A configuration is what was drawn; its trials differ in their seed. Only finished trials count in
its mean. One of which trials were stopped early is told apart from those that ran to their end: the
scheduler stopped it for its scores, and what is left of its seeds flatters it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from lssl_ray.sweep.trials import TrialRecord, TrialStatus

UNRANKED = 2
CONFIDENCE = 0.95
NOISE_RULE = (
    "within noise: the 95 % Welch interval of the difference of the two means over seeds holds 0; "
    "unknown with one seed of either, or when neither has a spread"
)


@dataclass(frozen=True)
class LeaderboardRow:
    """One configuration.

    Attributes:
        rank: From 1; None without any score to rank by.
        values: What was drawn.
        settings: What it comes to; empty where the values say it.
        status: `finished`: no seed was stopped early, at least one finished; `stopped_early`;
            `failed`: no seed finished, none was stopped.
        mean: Of the finished seeds' scores, else of the last scores; None without any.
        spread: Sample standard deviation over the seeds that `mean` is of; None for one.
        num_scored: Seeds that `mean` is of.
        num_seeds: All trials of the configuration.
        steps: Fewest training steps among the seeds that `mean` is of, else among all.
        difference: To the best configuration's mean, <= 0 within the same status; None without.
        within_noise: Whether that difference is noise by `NOISE_RULE`; None for the best itself
            and where it is unknown.
        truth: Mean true accuracy of the same seeds, in [0, 1]; None where it isn't known.
        regret: The best known truth minus this one: what choosing this configuration loses.
        reason: Of every trial that did not finish: which, why, and its last score.
        trials: Its trials, by seed.
        scored: Those that `mean` is of.
    """

    rank: int | None
    values: dict[str, Any]
    settings: dict[str, Any]
    status: TrialStatus
    mean: float | None
    spread: float | None
    num_scored: int
    num_seeds: int
    steps: int
    difference: float | None
    within_noise: bool | None
    truth: float | None
    regret: float | None
    reason: str
    trials: tuple[TrialRecord, ...]
    scored: tuple[TrialRecord, ...]


def build_row(group: Sequence[TrialRecord], *, select: str, truth: str | None) -> LeaderboardRow:
    """A configuration's row, without its place among others.

    Args:
        group: Its trials, sorted by seed.
        select: Metric key that ranks.
        truth: Metric key of the true accuracy, where there is one.
    """
    status: TrialStatus = "failed"
    if any(trial.status == "stopped_early" for trial in group):
        status = "stopped_early"
    elif any(trial.status == "finished" for trial in group):
        status = "finished"
    scored = _list_scored(group, select)
    scores = [trial.scores[select] for trial in scored]
    truths = [
        trial.scores[truth] for trial in scored if truth is not None and truth in trial.scores
    ]
    return LeaderboardRow(
        rank=None,
        values=group[0].values,
        settings=group[0].settings,
        status=status,
        mean=float(np.mean(scores)) if scores else None,
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        num_scored=len(scored),
        num_seeds=len({trial.seed for trial in group}),
        steps=min(trial.steps for trial in scored or group),
        difference=None,
        within_noise=None,
        truth=float(np.mean(truths)) if truths and len(truths) == len(scored) else None,
        regret=None,
        reason="; ".join(
            _describe_end(trial, select) for trial in group if _needs_word(trial, select)
        ),
        trials=tuple(group),
        scored=tuple(scored),
    )


def _list_scored(group: Sequence[TrialRecord], select: str) -> list[TrialRecord]:
    """One scored trial per seed, all of the furthest status that any of them reached."""
    scored = [trial for trial in group if _has_score(trial, select)]
    for status in ("finished", "stopped_early", "failed"):
        # The same values and seed twice are the same run twice, and no second opinion.
        alike = {trial.seed: trial for trial in reversed(scored) if trial.status == status}
        if alike:
            return [alike[seed] for seed in sorted(alike)]
    return []


def compare_rows(row: LeaderboardRow, best: LeaderboardRow) -> tuple[float | None, bool | None]:
    """How far a configuration is from the best one.

    Returns:
        Difference of the means, for two that ran to their end; whether it is noise by `NOISE_RULE`,
        None when that is unknown or both are the same.
    """
    if get_tier(row) or get_tier(best) or row.mean is None or best.mean is None:
        return None, None
    difference = row.mean - best.mean
    if row is best or row.spread is None or best.spread is None:
        return difference, None
    parts = [side.spread**2 / side.num_scored for side in (row, best) if side.spread is not None]
    if not any(parts):
        return difference, None
    freedom = sum(parts) ** 2 / sum(
        part**2 / (side.num_scored - 1) for part, side in zip(parts, (row, best), strict=True)
    )
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(parts))
    return difference, bool(abs(difference) <= reach)


def get_tier(row: LeaderboardRow) -> int:
    """The part of the leaderboard that it belongs to; from `UNRANKED` on it has no rank."""
    if row.status == "failed":
        return UNRANKED + 1
    if row.mean is None:
        return UNRANKED
    return 0 if row.status == "finished" else 1


def _has_score(trial: TrialRecord, select: str) -> bool:
    return math.isfinite(trial.scores.get(select, math.nan))


def _needs_word(trial: TrialRecord, select: str) -> bool:
    return trial.status != "finished" or not _has_score(trial, select)


def _describe_end(trial: TrialRecord, select: str) -> str:
    last = f"last score {trial.scores[select]:.4g}" if _has_score(trial, select) else "no score"
    why = f": {' '.join(trial.reason.split())}" if trial.reason else ""
    status = trial.status.replace("_", " ")
    return f"{trial.trial_id} (seed {trial.seed}) {status} at step {trial.steps}, {last}{why}"
