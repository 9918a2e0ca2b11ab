"""Figures from scores, by hand; what can't be counted is refused."""

import json
import math

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import compute_accuracy

LABELS = tuple("abcdefg")


def test_compute_accuracy_figures_by_hand() -> None:
    scores = torch.tensor(
        [
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # a is first
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # e is fifth
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # f is sixth
            [1.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # a is last
        ]
    )
    accuracy = compute_accuracy(scores, labels=LABELS, truth=["a", "e", "f", "a"])
    assert (accuracy.top1, accuracy.top5) == (0.25, 0.5)
    assert accuracy.per_class == {"a": (1, 2), "e": (0, 1), "f": (0, 1)}
    assert accuracy.mean_class == pytest.approx((0.5 + 0 + 0) / 3)
    assert accuracy.predictions == (0, 0, 0, 1)
    assert accuracy.ranking[3] == (1, 2, 3, 4, 5)
    assert accuracy.right == (True, False, False, False)
    assert accuracy.num_videos == 4


def test_compute_accuracy_random_scores_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 7, generator=generator)
    truth = torch.randint(0, 7, (300,), generator=generator)
    accuracy = compute_accuracy(scores, labels=LABELS, truth=[LABELS[i] for i in truth])
    columns = list(range(7))
    assert accuracy.top1 == pytest.approx(
        top_k_accuracy_score(truth, scores, k=1, labels=columns), abs=1e-12
    )
    assert accuracy.top5 == pytest.approx(
        top_k_accuracy_score(truth, scores, k=5, labels=columns), abs=1e-12
    )
    assert accuracy.mean_class == pytest.approx(
        balanced_accuracy_score(truth, accuracy.predictions), abs=1e-12
    )


def test_compute_accuracy_equal_scores_go_to_the_first_label() -> None:
    accuracy = compute_accuracy(torch.zeros(1, 7), labels=LABELS, truth=["b"])
    assert accuracy.ranking == ((0, 1, 2, 3, 4),)


def test_compute_accuracy_five_labels_have_no_top5() -> None:
    accuracy = compute_accuracy(torch.eye(5), labels=LABELS[:5], truth=LABELS[:5])
    assert accuracy.top5 is None
    assert accuracy.to_json()["top5_percent"] is None


def test_compute_accuracy_one_label_is_always_right() -> None:
    accuracy = compute_accuracy(torch.zeros(2, 1), labels=["a"], truth=["a", "a"])
    assert (accuracy.top1, accuracy.top5, accuracy.predictions) == (1.0, None, (0, 0))


def test_accuracy_to_json_is_plain_and_names_the_reading() -> None:
    accuracy = compute_accuracy(
        torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]),
        labels=["a", "b"],
        truth=["a", "b", "a"],
        transductive="vocabulary",
    )
    values = json.loads(json.dumps(accuracy.to_json()))
    assert values["transductive"] == "vocabulary"
    assert values["top1_percent"] == pytest.approx(66.6667)
    assert values["mean_class_percent"] == 50.0
    assert values["per_class"]["b"] == {"videos": 1, "right": 0}
    assert (values["truth"], values["ranking"]) == ([0, 1, 0], [[0, 1]] * 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_compute_accuracy_score_that_is_not_finite_is_refused(value: float) -> None:
    scores = torch.zeros(3, 2)
    scores[1, 1] = value
    with pytest.raises(DataError, match="1 of 3"):
        compute_accuracy(scores, labels=["a", "b"], truth=["a", "a", "b"])


def test_compute_accuracy_label_listed_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"\['a'\]"):
        compute_accuracy(torch.zeros(1, 3), labels=["a", "b", "a"], truth=["b"])


def test_compute_accuracy_other_number_of_videos_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(3, 2\)"):
        compute_accuracy(torch.zeros(3, 2), labels=["a", "b"], truth=["a", "b"])
