"""The map: the same every time, within the frame, and groups stay groups."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lssl_ray.atlas.layout import compute_layout, place_concepts


def build_groups(num_each: int, num_groups: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(16)[:num_groups].repeat_interleave(num_each, dim=0)
    return F.normalize(centres + 0.1 * torch.randn(len(centres), 16, generator=generator), dim=1)


def test_layout_repeats_exactly_and_keeps_groups_together() -> None:
    before = build_groups(12)
    after = F.normalize(before + 0.05, dim=1)
    one, other = compute_layout(before, after), compute_layout(before, after)
    np.testing.assert_array_equal(one.before, other.before)
    np.testing.assert_array_equal(one.after, other.after)
    groups = np.repeat(np.arange(3), 12)
    for points in (one.before, one.after):
        assert points.min() >= 0 and points.max() <= 1 and np.ptp(points) > 0.5
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        assert (groups[distances.argmin(axis=1)] == groups).all()
    assert one.trust_before > 0.9 and one.trust_after > 0.9


def test_layout_of_unchanged_clips_hardly_moves() -> None:
    before = build_groups(12)
    layout = compute_layout(before, before)
    moved = np.linalg.norm(layout.after - layout.before, axis=1)
    assert np.median(moved) < 0.05


def test_layout_trust_drops_where_two_dimensions_are_too_few() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = F.normalize(torch.randn(36, 16, generator=generator), dim=1)
    layout = compute_layout(build_groups(12), noise)
    assert layout.trust_after < layout.trust_before - 0.05


@pytest.mark.parametrize("num_clips", [1, 2, 5])
def test_layout_few_clips_are_projected(num_clips: int) -> None:
    features = build_groups(num_clips)[:num_clips]
    layout = compute_layout(features, features)
    assert layout.before.shape == (num_clips, 2) and np.isfinite(layout.before).all()
    np.testing.assert_allclose(layout.before, layout.after, atol=1e-9)
    assert "t-SNE." in layout.method


def test_layout_equal_features_are_no_error() -> None:
    same = F.normalize(torch.ones(20, 8), dim=1)
    layout = compute_layout(same, same)
    assert np.isfinite(layout.before).all() and np.isfinite(layout.after).all()


def test_layout_concept_stands_among_its_best_clips() -> None:
    points = np.array([[0.0, 0.0], [0.2, 0.1], [0.1, 0.3], [1.0, 1.0], [0.9, 0.9], [1.0, 0.8]])
    scores = torch.zeros(6, 1)
    scores[:5, 0] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    np.testing.assert_allclose(place_concepts(points, scores), [[0.2, 0.3]])
