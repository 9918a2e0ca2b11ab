"""Label-free scores of predictions, against plain loops and hand-made cases."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score, mutual_info_score

from lssl_ray.evaluation.label_free_predictions import (
    balance_scores,
    compute_balance,
    compute_certainty,
    compute_kappa,
    compute_mutual_information,
    compute_nuclear_norm,
    compute_pair_information,
    pair_views,
)

SHAPES = [(2, 2), (7, 3), (5, 11), (40, 16)]


def draw_probabilities(*shape: int, sharpness: float = 1.0, seed: int = 0) -> NDArray[np.float64]:
    scores = sharpness * np.random.default_rng(seed).normal(size=shape)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_information_scores_random_predictions_equal_plain_sums(
    shape: tuple[int, int], sharpness: float
) -> None:
    p = draw_probabilities(*shape, sharpness=sharpness)
    of_mean = entropy(p.mean(axis=0)) / math.log(shape[1])
    mean_of = np.mean([entropy(row) for row in p]) / math.log(shape[1])
    given = torch.from_numpy(p)
    assert compute_balance(given) == pytest.approx(of_mean, abs=1e-12)
    assert compute_certainty(given) == pytest.approx(1 - mean_of, abs=1e-12)
    assert compute_mutual_information(given) == pytest.approx(of_mean - mean_of, abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "information", "certainty", "balance", "nuclear"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 1.0, 1.0, 1.0, 1.0),  # sure and spread
        ([[1.0, 0.0], [1.0, 0.0]], 0.0, 1.0, 0.0, math.sqrt(0.5)),  # collapsed
        ([[0.5, 0.5], [0.5, 0.5]], 0.0, 0.0, 1.0, 0.5),  # knows nothing
    ],
)
def test_information_scores_extreme_predictions_are_at_their_bounds(
    rows: Sequence[Sequence[float]],
    information: float,
    certainty: float,
    balance: float,
    nuclear: float,
) -> None:
    given = torch.tensor(rows, dtype=torch.float64)
    assert compute_mutual_information(given) == pytest.approx(information, abs=1e-12)
    assert compute_certainty(given) == pytest.approx(certainty, abs=1e-12)
    assert compute_balance(given) == pytest.approx(balance, abs=1e-12)
    assert compute_nuclear_norm(given) == pytest.approx(nuclear, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclear_norm_random_predictions_equals_the_trace_of_the_root(
    shape: tuple[int, int],
) -> None:
    p = draw_probabilities(*shape)
    eigenvalues = np.linalg.eigvalsh(p @ p.T).clip(0)
    expected = np.sqrt(eigenvalues).sum() / math.sqrt(min(shape) * shape[0])
    assert compute_nuclear_norm(torch.from_numpy(p)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("views", [2, 3, 5])
def test_pair_information_random_predictions_equals_a_loop_over_pairs(views: int) -> None:
    p = draw_probabilities(9, views, 4, sharpness=3.0)
    joint = np.zeros((4, 4))
    for video in p:
        for a in range(views):
            for b in range(views):
                if a != b:
                    joint += np.outer(video[a], video[b])
    joint /= joint.sum()
    expected = 0.0
    for i in range(4):
        for j in range(4):
            expected += joint[i, j] * np.log(joint[i, j] / (joint[i].sum() * joint[:, j].sum()))
    found = compute_pair_information(torch.from_numpy(p))
    assert found == pytest.approx(expected / math.log(4), abs=1e-12)


def test_pair_information_sure_predictions_equal_the_information_of_their_labels() -> None:
    labels = np.random.default_rng(3).integers(5, size=(30, 2))
    found = compute_pair_information(torch.from_numpy(np.eye(5)[labels]))
    both_ways = np.concatenate([labels, labels[:, ::-1]])
    expected = mutual_info_score(both_ways[:, 0], both_ways[:, 1]) / math.log(5)
    assert found == pytest.approx(expected, abs=1e-12)


def test_pair_information_collapsed_predictions_is_zero() -> None:
    p = torch.zeros(6, 3, 4, dtype=torch.float64)
    p[..., 1] = 1.0
    assert compute_pair_information(p) == 0.0


def test_pair_views_three_views_gives_every_ordered_pair_once() -> None:
    first, second = torch.tensor([[0, 1, 2]]), torch.tensor([[10, 11, 12]])
    pairs = sorted(zip(*(part.tolist() for part in pair_views(first, second)), strict=True))
    assert pairs == [(0, 11), (0, 12), (1, 10), (1, 12), (2, 10), (2, 11)]


@pytest.mark.parametrize("seed", range(4))
def test_kappa_random_labels_equals_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(4, size=50)
    second = np.where(rng.random(50) < 0.6, first, rng.integers(4, size=50))
    found = compute_kappa(torch.from_numpy(first), torch.from_numpy(second), num_labels=9)
    assert found == pytest.approx(cohen_kappa_score(first, second), abs=1e-6)


def test_kappa_one_label_only_earns_nothing() -> None:
    same = torch.full((20,), 3)
    assert compute_kappa(same, same, num_labels=5) == 0.0


def test_balance_scores_skewed_predictions_use_every_label_alike() -> None:
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(rng.normal(loc=(3.0, 0.0, 0.0, -2.0), size=(60, 4)))
    balanced = balance_scores(scores).exp()
    assert torch.allclose(balanced.sum(dim=1), torch.ones(60, dtype=torch.float64))
    assert torch.allclose(balanced.mean(dim=0), torch.full((4,), 0.25).double(), atol=1e-3)
    # Only a factor per video and one per label came in: ratios of ratios stay.
    change = balanced.log() - scores
    rest = change - change.mean(dim=0) - change.mean(dim=1, keepdim=True) + change.mean()
    assert rest.abs().max() < 1e-9


def test_balance_scores_cold_temperature_stays_finite() -> None:
    scores = torch.from_numpy(np.random.default_rng(2).normal(size=(10, 30)) / 1e-4)
    assert balance_scores(scores).exp().isfinite().all()
