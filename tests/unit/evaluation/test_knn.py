"""k-NN against scikit-learn with the same weights, and against a plain loop."""

import math

import numpy as np
import pytest
import torch
from blobs import LABELS, Blobs, draw_blobs
from sklearn.neighbors import KNeighborsClassifier

from lssl_ray.errors import DataError
from lssl_ray.evaluation import knn
from lssl_ray.evaluation.knn import KnnResult, compute_knn


def run(blobs: Blobs, *, num_neighbours: tuple[int, ...] = (5, 10, 20)) -> tuple[KnnResult, ...]:
    return compute_knn(
        blobs.train,
        train_truth=blobs.train_truth,
        test_features=blobs.test,
        test_truth=blobs.test_truth,
        labels=LABELS,
        num_neighbours=num_neighbours,
    )


def weigh(distances: np.ndarray) -> np.ndarray:
    """DINO's weight, from the distance between unit vectors: cosine = 1 - d^2 / 2."""
    weights: np.ndarray = np.exp((1 - distances**2 / 2) / 0.07)
    return weights


def test_compute_knn_agrees_with_scikit_learn() -> None:
    blobs = draw_blobs()
    for result in run(blobs):
        oracle = KNeighborsClassifier(result.num_neighbours, weights=weigh, algorithm="brute")
        oracle.fit(blobs.train.double().numpy(), blobs.train_truth)
        expected = oracle.predict(blobs.test.double().numpy()).tolist()
        assert [LABELS[index] for index in result.predictions] == expected
        assert result.top1 == oracle.score(blobs.test.double().numpy(), blobs.test_truth)
        assert 0.4 < result.top1 < 1  # neither trivial nor chance


def test_compute_knn_equals_plain_loop() -> None:
    blobs = draw_blobs(seed=1, num_train=30, num_test=20)
    (result,) = run(blobs, num_neighbours=(7,))
    for row, test in enumerate(blobs.test.tolist()):
        near = sorted(
            (
                (sum(a * b for a, b in zip(test, train, strict=True)), label)
                for train, label in zip(blobs.train.tolist(), blobs.train_truth, strict=True)
            ),
            reverse=True,
        )[:7]
        votes = dict.fromkeys(LABELS, 0.0)
        for cosine, label in near:
            votes[label] += math.exp(cosine / 0.07)
        expected = sorted(range(4), key=lambda index: -votes[LABELS[index]])
        assert list(result.ranking[row]) == expected


def test_compute_knn_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = draw_blobs(num_test=50)
    whole = run(blobs)
    monkeypatch.setattr(knn, "MAX_COSINES", 7 * len(blobs.train))  # 7 test videos at a time
    assert run(blobs) == whole
    monkeypatch.setattr(knn, "MAX_COSINES", 1)
    assert run(blobs) == whole


def test_compute_knn_length_of_features_does_not_matter() -> None:
    blobs = draw_blobs()
    scale = torch.linspace(0.1, 9, len(blobs.train))[:, None]
    longer = Blobs(blobs.train * scale, blobs.train_truth, blobs.test * 3, blobs.test_truth)
    assert [r.predictions for r in run(longer)] == [r.predictions for r in run(blobs)]


def test_compute_knn_votes_are_weighted_not_counted() -> None:
    # One neighbour at cosine 1 outweighs two at 0.9: e^(1 / 0.07) > 2 e^(0.9 / 0.07).
    beside = [0.9, math.sqrt(1 - 0.81)]
    results = compute_knn(
        torch.tensor([[1.0, 0.0], beside, beside]),
        train_truth=["cook", "dive", "dive"],
        test_features=torch.tensor([[1.0, 0.0]]),
        test_truth=["cook"],
        labels=LABELS,
        num_neighbours=(3,),
    )
    assert results[0].top1 == 1.0


def test_compute_knn_small_temperature_is_the_nearest_neighbour() -> None:
    blobs = draw_blobs()
    sharp, nearest = (
        compute_knn(
            blobs.train,
            train_truth=blobs.train_truth,
            test_features=blobs.test,
            test_truth=blobs.test_truth,
            labels=LABELS,
            num_neighbours=(k,),
            temperature=temperature,
        )[0]
        for k, temperature in ((20, 1e-4), (1, 0.07))
    )
    assert sharp.predictions == nearest.predictions


@pytest.mark.parametrize("k", [0, 121])
def test_compute_knn_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(DataError, match=str(k)):
        run(draw_blobs(), num_neighbours=(5, k))


def test_compute_knn_unknown_training_label_is_refused() -> None:
    with pytest.raises(DataError, match="fly"):
        compute_knn(
            torch.eye(2),
            train_truth=["cook", "fly"],
            test_features=torch.eye(2),
            test_truth=["cook", "cook"],
            labels=LABELS,
            num_neighbours=(1,),
        )


def test_compute_knn_damaged_training_feature_is_refused() -> None:
    blobs = draw_blobs()
    blobs.train[3, 0] = math.nan
    with pytest.raises(DataError, match="finite"):
        run(blobs)


def test_knn_result_to_json_states_its_settings() -> None:
    values = run(draw_blobs(), num_neighbours=(10,))[0].to_json()
    assert (values["protocol"], values["k"], values["temperature"]) == ("knn", 10, 0.07)
    assert values["training_videos"] == 120
