"""Confusion against scikit-learn; pairs and changes by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy, compute_accuracy
from lssl_ray.evaluation.confusion import (
    compare_classes,
    compute_confusion,
    find_confused_pairs,
)

LABELS = ("a", "b", "c")


def score(predicted: str, truth: str) -> Accuracy:
    """The accuracy of predictions given as letters."""
    scores = torch.eye(len(LABELS))[[LABELS.index(letter) for letter in predicted]]
    return compute_accuracy(scores, labels=LABELS, truth=list(truth))


def test_compute_confusion_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = ("".join(rng.choice(LABELS, size=200)) for _ in range(2))
    counts = compute_confusion(score(predicted, truth)).counts
    expected = confusion_matrix(list(truth), list(predicted), labels=LABELS)
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.int64


def test_compute_confusion_absent_labels_keep_their_places() -> None:
    confusion = compute_confusion(score("ac", "aa"))
    assert confusion.to_json() == {
        "labels": ["a", "b", "c"],
        "counts": [[1, 0, 1], [0, 0, 0], [0, 0, 0]],
    }


def test_find_confused_pairs_by_hand() -> None:
    #        truth a: 5 videos       b: 2     c: 4
    confusion = compute_confusion(score("aabbc" + "cc" + "caab", "aaaaa" + "bb" + "cccc"))
    pairs = find_confused_pairs(confusion)
    found = [(pair.truth, pair.predicted, pair.count, pair.share) for pair in pairs]
    assert found == [
        ("b", "c", 2, 1.0),
        ("c", "a", 2, 0.5),
        ("a", "b", 2, 0.4),
        ("c", "b", 1, 0.25),
        ("a", "c", 1, 0.2),
    ]
    assert find_confused_pairs(confusion, limit=2) == pairs[:2]
    assert pairs[0].to_json()["percent_of_truth"] == 100.0


def test_find_confused_pairs_nothing_wrong_is_empty() -> None:
    assert find_confused_pairs(compute_confusion(score("abc", "abc"))) == ()


def test_compare_classes_by_hand() -> None:
    truth = "aaaabb"
    changes = compare_classes(score("abbbab", truth), score("aaabaa", truth))
    assert [(c.label, c.num_videos, c.first, c.second) for c in changes] == [
        ("a", 4, 0.25, 0.75),
        ("b", 2, 0.5, 0.0),
    ]
    assert [change.change for change in changes] == [0.5, -0.5]
    assert changes[1].to_json()["change_points"] == -50.0


def test_compare_classes_other_videos_are_refused() -> None:
    with pytest.raises(DataError, match="2 and 3 videos"):
        compare_classes(score("ab", "ab"), score("abc", "abc"))
    with pytest.raises(DataError):
        compare_classes(score("ab", "ab"), score("ab", "ba"))
