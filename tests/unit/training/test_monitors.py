"""Health figures on batches whose answers are known by hand."""

import math

import pytest
import torch
from torch import Tensor

from lssl_ray.training.monitors import compute_monitors


def build_scores(*best: int) -> Tensor:
    """One view of clips that are sure of one of four concepts each: [1, clips, 4]."""
    return torch.eye(4)[list(best)][None]


def test_compute_monitors_collapsed_batch_shows_it() -> None:
    scores = build_scores(2, 2, 2).expand(3, 3, 4)
    monitors = compute_monitors(scores, scores[:2], temperature=0.01)
    assert monitors["mean_prediction_entropy"] == pytest.approx(0, abs=1e-6)
    assert monitors["sample_entropy"] == pytest.approx(0, abs=1e-6)
    assert monitors["distinct_concepts"] == 1
    assert monitors["agreement"] == 1


def test_compute_monitors_spread_batch_shows_it() -> None:
    student = build_scores(0, 1, 2, 3)
    teacher = build_scores(0, 1, 3, 3)
    monitors = compute_monitors(student, teacher, temperature=0.01)
    assert monitors["mean_prediction_entropy"] == pytest.approx(1, abs=1e-6)
    assert monitors["sample_entropy"] == pytest.approx(0, abs=1e-6)
    assert monitors["distinct_concepts"] == 3
    assert monitors["agreement"] == 0.75


def test_compute_monitors_unsure_batch_has_full_sample_entropy() -> None:
    monitors = compute_monitors(torch.zeros(2, 3, 4), build_scores(1, 1, 0), temperature=0.1)
    assert monitors["mean_prediction_entropy"] == pytest.approx(1)
    assert monitors["sample_entropy"] == pytest.approx(1)


def test_compute_monitors_entropies_follow_the_temperature() -> None:
    scores = torch.tensor([[[0.0, 0.1]], [[0.3, 0.0]]])
    monitors = compute_monitors(scores, scores[:1], temperature=0.1)
    first = 1 / (1 + math.exp(1.0))
    second = 1 / (1 + math.exp(-3.0))

    def entropy(p: float) -> float:
        return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)

    assert monitors["sample_entropy"] == pytest.approx((entropy(first) + entropy(second)) / 2)
    assert monitors["mean_prediction_entropy"] == pytest.approx(entropy((first + second) / 2))
