"""Configurations in the right order, with honest noise, and nothing dropped."""

import math
import random

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sweep_parts import SELECT, TRUTH, build_trial

from lssl_ray.sweep.leaderboard import Leaderboard, build_leaderboard
from lssl_ray.sweep.trials import TrialRecord


def build_seeds(name: str, scores: list[float]) -> list[TrialRecord]:
    return [
        build_trial(f"{name}-{seed}", {"objective.weight_align": name}, score, seed=seed)
        for seed, score in enumerate(scores)
    ]


def get_names(board: Leaderboard) -> list[str]:
    return [str(row.values["objective.weight_align"]) for row in board.rows]


def test_leaderboard_of_seeds_has_mean_and_sample_deviation() -> None:
    trials = build_seeds("a", [0.5, 0.6, 0.7]) + build_seeds("b", [0.65])
    first, second = build_leaderboard(trials, select=SELECT).rows
    assert (first.rank, first.mean, first.spread, first.num_scored) == (1, 0.65, None, 1)
    assert second.mean == pytest.approx(0.6)
    assert second.spread == pytest.approx(0.1)  # n - 1, not n
    assert second.difference == pytest.approx(-0.05)
    assert second.num_seeds == 3


def test_leaderboard_does_not_depend_on_order_and_breaks_ties_by_trial() -> None:
    trials = [t for name in "abcd" for t in build_seeds(name, [0.5, 0.5])]
    boards = [build_leaderboard(trials, select=SELECT)]
    for seed in range(3):
        random.Random(seed).shuffle(trials)
        boards.append(build_leaderboard(trials, select=SELECT))
    assert [get_names(board) for board in boards] == [list("abcd")] * 4
    assert boards[0] == boards[1] == boards[2] == boards[3]


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize(("num_best", "num_other"), [(2, 2), (3, 5), (6, 2)])
def test_within_noise_agrees_with_scipys_welch_interval(
    gap: float, num_best: int, num_other: int
) -> None:
    rng = np.random.default_rng(num_best)
    best = (0.7 + rng.normal(0, 0.03, num_best)).tolist()
    other = (float(np.mean(best)) - gap - 1e-6 + rng.normal(0, 0.01, num_other)).tolist()
    if np.mean(other) > np.mean(best):
        best, other = other, best
    row = build_leaderboard(build_seeds("a", best) + build_seeds("b", other), select=SELECT).rows[1]
    interval = ttest_ind(other, best, equal_var=False).confidence_interval(0.95)
    assert row.within_noise == bool(interval.low <= 0 <= interval.high)


def test_within_noise_of_far_configurations_is_false_and_of_near_ones_true() -> None:
    trials = build_seeds("a", [0.70, 0.71, 0.72]) + build_seeds("b", [0.69, 0.71, 0.70])
    trials += build_seeds("c", [0.30, 0.31, 0.32])
    rows = build_leaderboard(trials, select=SELECT).rows
    assert [row.within_noise for row in rows] == [None, True, False]


@pytest.mark.parametrize(
    ("best", "other"), [([0.9], [0.1]), ([0.9, 0.91], [0.1]), ([0.9], [0.1, 0.2])]
)
def test_within_noise_with_one_seed_is_unknown_however_far(
    best: list[float], other: list[float]
) -> None:
    trials = build_seeds("a", best) + build_seeds("b", other)
    assert build_leaderboard(trials, select=SELECT).rows[1].within_noise is None


def test_within_noise_without_any_spread_is_unknown() -> None:
    trials = build_seeds("a", [0.9, 0.9]) + build_seeds("b", [0.1, 0.1])
    assert build_leaderboard(trials, select=SELECT).rows[1].within_noise is None


def test_same_seed_of_a_configuration_drawn_twice_counts_once() -> None:
    values = {"objective.weight_align": 1.0}
    twins = [build_trial(name, values, 0.5, seed=0) for name in ("t1", "t2")]
    (row,) = build_leaderboard(twins, select=SELECT).rows
    assert (row.num_scored, row.num_seeds, row.spread) == (1, 1, None)
    assert [trial.trial_id for trial in row.trials] == ["t1", "t2"]
    assert [trial.trial_id for trial in row.scored] == ["t1"]


def test_stopped_and_failed_configurations_stand_below_with_reason_and_last_score() -> None:
    trials = [
        build_trial("t1", {"x": 1}, 0.2),
        build_trial("t2", {"x": 2}, 0.9, status="stopped_early", steps=10, reason="ASHA, rung 10"),
        build_trial("t3", {"x": 3}, 0.3, status="stopped_early", steps=40, reason="ASHA, rung 40"),
        build_trial("t4", {"x": 4}, 0.99, status="failed", steps=7, reason="out of\nmemory"),
        build_trial("t5", {"x": 5}, None, status="failed", steps=0, reason="no videos"),
    ]
    board = build_leaderboard(trials, select=SELECT)
    assert [row.values["x"] for row in board.rows] == [1, 3, 2, 4, 5]
    assert [row.rank for row in board.rows] == [1, 2, 3, None, None]
    assert [row.difference for row in board.rows] == [0.0, None, None, None, None]
    assert board.best is board.rows[0]
    stopped, failed = board.rows[2], board.rows[3]
    assert "t2" in stopped.reason and "0.9" in stopped.reason and "rung 10" in stopped.reason
    assert "step 7" in failed.reason and "out of memory" in failed.reason
    assert failed.mean == 0.99


def test_configuration_with_a_stopped_seed_does_not_win_by_its_other_seeds() -> None:
    values = {"x": 1}
    lucky = [
        build_trial("t1", values, 0.9, seed=0),
        build_trial("t2", values, 0.1, seed=1, status="stopped_early", steps=10),
    ]
    whole = [build_trial(f"u{seed}", {"x": 2}, 0.6, seed=seed) for seed in range(2)]
    board = build_leaderboard(lucky + whole, select=SELECT)
    assert [row.values["x"] for row in board.rows] == [2, 1]
    assert (board.rows[1].num_scored, board.rows[1].num_seeds) == (1, 2)


def test_configuration_with_a_failed_seed_is_ranked_by_the_others() -> None:
    values = {"x": 1}
    trials = [
        build_trial("t1", values, 0.9, seed=0),
        build_trial("t2", values, 0.1, seed=1, status="failed", steps=10, reason="worker died"),
        build_trial("u", {"x": 2}, 0.6),
    ]
    board = build_leaderboard(trials, select=SELECT)
    assert board.rows[0].mean == 0.9
    assert (board.rows[0].num_scored, board.rows[0].num_seeds) == (1, 2)
    assert "worker died" in board.rows[0].reason
    assert board.best_trial == trials[0]


@pytest.mark.parametrize("score", [None, math.nan])
def test_finished_trial_without_score_has_no_rank_and_says_so(score: float | None) -> None:
    trials = [build_trial("t1", {"x": 1}, score), build_trial("t2", {"x": 2}, 0.1)]
    board = build_leaderboard(trials, select=SELECT)
    assert [row.values["x"] for row in board.rows] == [2, 1]
    assert board.rows[1].rank is None
    assert "no score" in board.rows[1].reason


@pytest.mark.parametrize("trials", [[], [build_trial("t", {}, None, status="failed")]])
def test_leaderboard_without_any_score_has_no_best(trials: list[TrialRecord]) -> None:
    board = build_leaderboard(trials, select=SELECT)
    assert board.best is None and board.best_trial is None
    assert len(board.rows) == len(trials)


def test_regret_is_what_the_chosen_configuration_loses_in_true_accuracy() -> None:
    trials = [
        build_trial("t1", {"x": 1}, 0.9, truth=0.50),
        build_trial("t2", {"x": 2}, 0.8, truth=0.56),
        build_trial("t3", {"x": 3}, 0.7),
        build_trial("t4", {"x": 4}, 0.6, status="failed", truth=0.99),
    ]
    board = build_leaderboard(trials, select=SELECT)
    assert board.truth == TRUTH
    assert board.rows[0].regret == pytest.approx(0.06)
    assert board.rows[1].regret == 0.0
    assert board.rows[2].regret is None


def test_truth_is_the_score_itself_when_that_is_an_accuracy() -> None:
    trials = [build_trial("t1", {"x": 1}, 0.9, truth=0.5)]
    trials[0].scores["validation/another/zero_shot"] = 0.4
    assert build_leaderboard(trials, select=TRUTH).truth == TRUTH
    other = "validation/another/zero_shot"
    assert build_leaderboard(trials, select=SELECT).truth == other
    assert build_leaderboard(trials, select=SELECT, truth=TRUTH).truth == TRUTH


def test_best_trial_is_the_best_seed_of_the_best_configuration() -> None:
    trials = build_seeds("a", [0.4, 0.8]) + build_seeds("b", [0.5, 0.55])
    trials += [build_trial("c-0", {"objective.weight_align": "c"}, 0.59)]
    board = build_leaderboard(trials, select=SELECT)
    assert board.best_trial is not None and board.best_trial.trial_id == "a-1"
