"""Label-free scores of features, against plain loops and hand-made cases."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from scipy.stats import entropy

from lssl_ray.evaluation.label_free_features import (
    LIDAR_REGULARISER,
    compute_cluster_information,
    compute_dispersion,
    compute_effective_rank,
    compute_lidar,
    compute_neighbourhood_density,
    find_neighbours,
)


def draw_units(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def draw_groups(*, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors around three centres, 10 each, and which centre is whose."""
    centres = np.eye(8)[:3].repeat(10, axis=0)
    rows = centres + spread * np.random.default_rng(seed).normal(size=(30, 8))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(units), torch.arange(3).repeat_interleave(10)


def test_neighbourhood_density_random_predictions_equals_a_loop() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=12)
    entropies = []
    for i in range(12):
        cosines = [
            p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j]) for j in range(12) if j != i
        ]
        weights = np.exp(np.array(cosines) / 0.05)
        entropies.append(entropy(weights / weights.sum()))
    found = compute_neighbourhood_density(torch.from_numpy(p))
    assert found == pytest.approx(np.mean(entropies), abs=1e-9)


@pytest.mark.parametrize(("videos", "expected"), [(2, 0.0), (9, math.log(8))])
def test_neighbourhood_density_predictions_all_alike_is_at_its_bound(
    videos: int, expected: float
) -> None:
    alike = torch.full((videos, 4), 0.25, dtype=torch.float64)
    assert compute_neighbourhood_density(alike) == pytest.approx(expected, abs=1e-12)


def test_neighbours_random_features_are_the_closest_others() -> None:
    units = draw_units(15, 6)
    distances = cdist(units, units)
    np.fill_diagonal(distances, np.inf)
    found = find_neighbours(torch.from_numpy(units), num_neighbours=4)
    assert found.tolist() == np.argsort(distances, axis=1)[:, :4].tolist()


def test_cluster_information_labels_that_are_the_groups_is_one() -> None:
    features, groups = draw_groups(spread=0.02)
    assert compute_cluster_information(features, groups) == pytest.approx(1.0)
    renamed = torch.tensor([7, 2, 5])[groups]
    assert compute_cluster_information(features, renamed) == pytest.approx(1.0)


def test_cluster_information_shuffled_labels_is_near_chance() -> None:
    features, groups = draw_groups(spread=0.02)
    shuffled = groups[torch.from_numpy(np.random.default_rng(0).permutation(30))]
    assert abs(compute_cluster_information(features, shuffled)) < 0.15


def test_cluster_information_one_label_or_one_per_video_is_zero() -> None:
    features, _ = draw_groups(spread=0.1)
    assert compute_cluster_information(features, torch.zeros(30, dtype=torch.long)) == 0.0
    assert compute_cluster_information(features, torch.arange(30)) == 0.0


def test_dispersion_groups_equals_total_less_within_variance() -> None:
    features, groups = draw_groups(spread=0.3)
    rows, labels = features.numpy(), groups.numpy()
    total = rows.var(axis=0).sum()
    within = sum(rows[labels == k].var(axis=0).sum() for k in range(3)) / 3
    assert compute_dispersion(features, groups) == pytest.approx(total - within, abs=1e-12)


def test_dispersion_one_label_is_zero() -> None:
    features, _ = draw_groups(spread=0.3)
    assert compute_dispersion(features, torch.full((30,), 5)) == pytest.approx(0.0, abs=1e-15)


def test_effective_rank_orthogonal_features_counts_them() -> None:
    rows = torch.eye(7, dtype=torch.float64)[[0, 0, 3, 3, 5, 5]]
    assert compute_effective_rank(rows) == pytest.approx(3.0)


def test_effective_rank_identical_features_is_one() -> None:
    rows = torch.from_numpy(draw_units(1, 16)).expand(9, 16).contiguous()
    assert compute_effective_rank(rows) == pytest.approx(1.0, abs=1e-6)


def test_effective_rank_random_features_equals_the_entropy_of_eigenvalue_roots() -> None:
    units = draw_units(20, 6)
    roots = np.sqrt(np.linalg.eigvalsh(units.T @ units))
    expected = math.exp(entropy(roots / roots.sum()))
    assert compute_effective_rank(torch.from_numpy(units)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("videos", "views", "dims"), [(12, 2, 5), (4, 3, 9)])
def test_lidar_random_features_equals_generalised_eigenvalues(
    videos: int, views: int, dims: int
) -> None:
    units = draw_units(videos, views, dims)
    grand = units.mean(axis=(0, 1))
    between, within = np.zeros((dims, dims)), LIDAR_REGULARISER * np.eye(dims)
    for video in units:
        mean = video.mean(axis=0)
        between += np.outer(mean - grand, mean - grand) / videos
        for view in video:
            within += np.outer(view - mean, view - mean) / (videos * views)
    values = eigh(between, within, eigvals_only=True).clip(0)
    expected = math.exp(entropy(values / values.sum()))
    assert compute_lidar(torch.from_numpy(units)) == pytest.approx(expected, rel=1e-6)


def test_lidar_videos_all_alike_is_zero() -> None:
    views = torch.from_numpy(draw_units(1, 2, 8)).expand(5, 2, 8).contiguous()
    assert compute_lidar(views) == 0.0
