"""Several views per video and several splits, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from lssl_ray.errors import DataError
from lssl_ray.evaluation.zero_shot import (
    compute_zero_shot,
    compute_zero_shot_over_splits,
    score_views,
)

LABELS = ("left", "up")
CATEGORIES = torch.eye(2)


def at_angle(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_score_views_average_of_features_by_hand() -> None:
    # Mean direction of 0 and 60 degrees is 30 degrees.
    features = torch.tensor([[at_angle(0), at_angle(60)]])
    scores = score_views(features, CATEGORIES)
    torch.testing.assert_close(scores, torch.tensor([at_angle(30)]))


def test_score_views_average_of_probabilities_by_hand() -> None:
    features = torch.tensor([[at_angle(0), at_angle(60)]])
    scores = score_views(features, CATEGORIES, view_average="probabilities", temperature=0.5)
    first = math.exp(2) / (math.exp(2) + 1)
    second = math.exp(1) / (math.exp(1) + math.exp(math.sqrt(3)))
    expected = (first + second) / 2
    torch.testing.assert_close(scores, torch.tensor([[expected, 1 - expected]]))


def test_compute_zero_shot_the_two_averages_can_disagree() -> None:
    # Mean cosines: left (1 + 2 * 0.574) / 3 = 0.72, up (0 + 2 * 0.819) / 3 = 0.55. Mean
    # probability of up at temperature 0.1: (0 + 2 * 0.921) / 3 = 0.61.
    features = torch.tensor([[at_angle(0), at_angle(55), at_angle(55)]])
    by_features = compute_zero_shot(features, CATEGORIES, labels=LABELS, truth=["up"])
    by_shares = compute_zero_shot(
        features,
        CATEGORIES,
        labels=LABELS,
        truth=["up"],
        view_average="probabilities",
        temperature=0.1,
    )
    assert (by_features.predictions, by_shares.predictions) == ((0,), (1,))


def test_compute_zero_shot_clips_and_crops_are_views_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(5, 4, 3, 8, generator=generator), dim=-1)
    categories = F.normalize(torch.randn(6, 8, generator=generator), dim=-1)
    labels, truth = list("abcdef"), list("abcde")
    grid = compute_zero_shot(features, categories, labels=labels, truth=truth)
    flat = compute_zero_shot(features.flatten(1, 2), categories, labels=labels, truth=truth)
    assert grid == flat
    assert grid.num_views == 12
    # The ranking of the mean of the views' cosines, video by video.
    for row in range(5):
        views = features[row].reshape(12, 8)
        means = [sum(float(view @ category) for view in views) / 12 for category in categories]
        expected = sorted(range(6), key=lambda label: -means[label])[:5]
        assert list(grid.ranking[row]) == expected


def test_compute_zero_shot_states_views_and_average() -> None:
    values = compute_zero_shot(
        torch.ones(1, 3, 2) / math.sqrt(2),
        CATEGORIES,
        labels=LABELS,
        truth=["up"],
        view_average="probabilities",
        transductive="both",
    ).to_json()
    assert (values["views_per_video"], values["view_average"]) == (3, "probabilities")
    assert (values["protocol"], values["transductive"]) == ("zero_shot", "both")


def test_score_views_no_view_is_refused() -> None:
    with pytest.raises(DataError, match="no view"):
        score_views(torch.zeros(2, 0, 2), CATEGORIES)


def test_compute_zero_shot_over_splits_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    truth = ["left", "up", "up", "left", "left"]  # right, wrong, right, wrong, right
    result = compute_zero_shot_over_splits(
        features, CATEGORIES, labels=LABELS, truth=truth, splits=[[0, 1], [2, 0, 4, 3], [2]]
    )
    assert result.full.top1 == pytest.approx(3 / 5)
    assert [split.top1 for split in result.splits] == [0.5, 0.75, 1.0]
    assert result.splits[1].truth == (1, 0, 0, 0)
    assert result.splits[2].per_class == {"up": (1, 1)}
    assert result.top1.mean == pytest.approx(0.75)
    assert result.top1.std == pytest.approx(0.25)
    assert result.top5 is None
    values = result.to_json()
    assert (values["top1_percent"], values["top1_std_points"]) == (75.0, 25.0)
    assert values["full_top1_percent"] == 60.0


def test_compute_zero_shot_over_one_split_has_no_deviation() -> None:
    result = compute_zero_shot_over_splits(
        torch.eye(2), CATEGORIES, labels=LABELS, truth=LABELS, splits=[[0, 1]]
    )
    assert result.top1.std is None
    assert result.to_json()["top1_std_points"] is None


@pytest.mark.parametrize("splits", [[], [[0], []]])
def test_compute_zero_shot_over_splits_empty_split_is_refused(splits: list[list[int]]) -> None:
    with pytest.raises(DataError, match="without videos"):
        compute_zero_shot_over_splits(
            torch.eye(2), CATEGORIES, labels=LABELS, truth=LABELS, splits=splits
        )
