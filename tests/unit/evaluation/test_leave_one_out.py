"""k-NN within a set against scikit-learn, which is fitted anew without each video."""

import numpy as np
import pytest
import torch
from blobs import draw_blobs
from sklearn.neighbors import KNeighborsClassifier

from lssl_ray.errors import DataError
from lssl_ray.evaluation import leave_one_out
from lssl_ray.evaluation.leave_one_out import compute_leave_one_out_knn


def weigh(distances: np.ndarray) -> np.ndarray:
    """DINO's weight, from the distance between unit vectors: cosine = 1 - d^2 / 2."""
    weights: np.ndarray = np.exp((1 - distances**2 / 2) / 0.07)
    return weights


@pytest.mark.parametrize("num_neighbours", [1, 5, 20])
def test_leave_one_out_agrees_with_scikit_learn(
    num_neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave_one_out, "MAX_COSINES", 200)  # several chunks
    blobs = draw_blobs(num_train=41)
    rows = blobs.train.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    right = 0
    for left_out, label in enumerate(blobs.train_truth):
        others = [row for row in range(len(rows)) if row != left_out]
        oracle = KNeighborsClassifier(num_neighbours, weights=weigh, algorithm="brute")
        oracle.fit(rows[others], [blobs.train_truth[row] for row in others])
        right += oracle.predict(rows[[left_out]])[0] == label
    found = compute_leave_one_out_knn(
        3 * blobs.train, truth=blobs.train_truth, num_neighbours=num_neighbours
    )
    assert found == right / len(rows)
    assert 0.3 < found < 1  # neither chance nor trivial


def test_leave_one_out_never_asks_a_video_about_itself() -> None:
    rows = torch.eye(4)
    assert compute_leave_one_out_knn(rows, truth=["a", "b", "c", "d"]) == 0.0


def test_leave_one_out_of_fewer_videos_than_neighbours_takes_all_others() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert compute_leave_one_out_knn(rows, truth=["a", "a", "b"]) == pytest.approx(2 / 3)


def test_leave_one_out_of_one_video_is_refused() -> None:
    with pytest.raises(DataError, match="1 video"):
        compute_leave_one_out_knn(torch.eye(1), truth=["a"])
