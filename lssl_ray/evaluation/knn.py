"""k-NN classification as in DINO and SVT: the nearest training videos vote, weighted.

Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021,
https://arxiv.org/abs/2104.14294. Each of the k nearest training videos by cosine votes for its
label with weight exp(cosine / temperature). No choice is made here: every k is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy, compute_accuracy, index_truth
from lssl_ray.evaluation.transductive import Reading

NUM_NEIGHBOURS = (5, 10, 20)
TEMPERATURE = 0.07
# Cosines held at a time, 128 MiB: 240 000 training videos go against 139 test videos at once.
MAX_COSINES = 2**25


@dataclass(frozen=True, kw_only=True)
class KnnResult(Accuracy):
    """k-NN accuracy of one model at one k.

    Attributes:
        num_neighbours: k.
        temperature: Divides cosines in the votes.
        num_train: Training videos.
    """

    num_neighbours: int
    temperature: float
    num_train: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "protocol": "knn",
            "k": self.num_neighbours,
            "temperature": self.temperature,
            "training_videos": self.num_train,
            **super().to_json(),
        }


def compute_knn(
    train_features: Float[Tensor, "train embedding"],
    *,
    train_truth: Sequence[str],
    test_features: Float[Tensor, "test embedding"],
    test_truth: Sequence[str],
    labels: Sequence[str],
    num_neighbours: Sequence[int] = NUM_NEIGHBOURS,
    temperature: float = TEMPERATURE,
    transductive: Reading = "not stated",
) -> tuple[KnnResult, ...]:
    """Classify test videos by their nearest training videos.

    Args:
        train_features: Features of the training videos; made unit length here.
        train_truth: Their labels.
        test_features: Features of the test videos; made unit length here.
        test_truth: Their labels.
        labels: Names that may be predicted.
        num_neighbours: Each k to report.
        temperature: Divides cosines in the votes, > 0.
        transductive: See `transductive`.

    Returns:
        One result per k, in the order given. Labels without any vote tie at zero.

    Raises:
        DataError: No videos, labels not in the list, a k below 1 or above the number of training
            videos, a temperature that is not positive, or damaged features.
    """
    targets = index_truth(train_truth, labels)
    index_truth(test_truth, labels)
    wrong = [k for k in num_neighbours if not 1 <= k <= len(targets)]
    if wrong or not num_neighbours:
        raise DataError(
            f"k={list(num_neighbours)} of k-NN with {len(targets)} training videos: give at least "
            f"one k, each from 1 to the number of training videos; not {wrong or 'none'}."
        )
    if not temperature > 0:
        raise DataError(f"temperature={temperature} of k-NN must be above 0; 0.07 is usual.")
    votes = _count_votes(
        F.normalize(train_features, dim=-1),
        F.normalize(test_features, dim=-1),
        targets,
        num_labels=len(labels),
        num_neighbours=num_neighbours,
        temperature=temperature,
    )
    results = []
    for k, scores in zip(num_neighbours, votes, strict=True):
        accuracy = compute_accuracy(
            scores, labels=labels, truth=test_truth, transductive=transductive
        )
        results.append(
            KnnResult(
                **vars(accuracy),
                num_neighbours=k,
                temperature=temperature,
                num_train=len(targets),
            )
        )
    return tuple(results)


def _count_votes(
    train: Float[Tensor, "train embedding"],
    test: Float[Tensor, "test embedding"],
    targets: Int64[Tensor, "train"],
    *,
    num_labels: int,
    num_neighbours: Sequence[int],
    temperature: float,
) -> list[Float[Tensor, "test labels"]]:
    """Per k, the sum of weights that each label gets for each test video."""
    votes = [torch.zeros(len(test), num_labels, dtype=torch.float64) for _ in num_neighbours]
    num_rows = max(1, MAX_COSINES // len(train))
    for start in range(0, len(test), num_rows):
        cosines = test[start : start + num_rows] @ train.T  # [rows, train]
        best, nearest = (part.cpu() for part in cosines.topk(max(num_neighbours), dim=1))
        # Against the nearest one: the same ranking, and no overflow at a small temperature.
        weights = ((best - best[:, :1]).double() / temperature).exp()  # [rows, k]
        voted = targets[nearest]  # [rows, k]
        for k, counted in zip(num_neighbours, votes, strict=True):
            counted[start : start + num_rows].scatter_add_(1, voted[:, :k], weights[:, :k])
    return votes
