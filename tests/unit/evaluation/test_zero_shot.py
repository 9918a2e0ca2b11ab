"""Zero-shot figures, computed by hand."""

import pytest
import torch

from lssl_ray.errors import DataError
from lssl_ray.evaluation.zero_shot import compute_zero_shot

LABELS = ("left", "right", "up")
CATEGORIES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])


def test_compute_zero_shot_counts_by_hand() -> None:
    features = torch.tensor([[0.9, 0.1], [0.6, 0.8], [-0.8, 0.6], [0.0, 1.0], [0.8, -0.6]])
    result = compute_zero_shot(
        features, CATEGORIES, labels=LABELS, truth=["left", "left", "right", "left", "left"]
    )
    assert result.predictions == (0, 2, 1, 2, 0)
    assert result.top1 == pytest.approx(3 / 5)
    assert result.per_class == {"left": (2, 4), "right": (1, 1)}
    assert result.num_videos == 5
    assert result.mean_class == pytest.approx((2 / 4 + 1) / 2)
    assert (result.num_views, result.top5) == (1, None)


def test_compute_zero_shot_no_video_is_refused() -> None:
    with pytest.raises(DataError, match="no video"):
        compute_zero_shot(torch.zeros(0, 2), CATEGORIES, labels=LABELS, truth=[])


def test_compute_zero_shot_unknown_label_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"\['down'\]"):
        compute_zero_shot(torch.zeros(2, 2), CATEGORIES, labels=LABELS, truth=["left", "down"])
