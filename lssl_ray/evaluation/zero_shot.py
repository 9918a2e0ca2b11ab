"""Zero-shot classification: nearest label embedding by cosine. Features in, figures out.

Several views per video (temporal clips x spatial crops) count as one video. They are averaged as
`features` (the mean of the unit features, made unit length again: the same ranking as the mean of
the cosines, which is the mean of CLIP's logits) or as `probabilities` (the mean of the views'
softmax, where one certain view outweighs several unsure ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy, compute_accuracy, percent
from lssl_ray.evaluation.statistics import Summary, summarise
from lssl_ray.evaluation.transductive import Reading

ViewAverage = Literal["features", "probabilities"]
# CLIP's own scale of 100.
CLIP_TEMPERATURE = 0.01


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult(Accuracy):
    """Zero-shot accuracy of one model on one set of videos.

    Attributes:
        num_views: Views per video: temporal clips x spatial crops.
        view_average: What was averaged over the views: `features` or `probabilities`.
    """

    num_views: int = 1
    view_average: ViewAverage = "features"

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "protocol": "zero_shot",
            "views_per_video": self.num_views,
            "view_average": self.view_average,
            **super().to_json(),
        }


@dataclass(frozen=True)
class ZeroShotOverSplits:
    """Zero-shot accuracy over a benchmark's test splits and on all its videos.

    Attributes:
        full: All videos.
        splits: Each test split.
        top1: Over the splits, shares in [0, 1].
        top5: Over the splits; None with five labels or fewer.
    """

    full: ZeroShotResult
    splits: tuple[ZeroShotResult, ...]
    top1: Summary
    top5: Summary | None

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "protocol": "zero_shot",
            "transductive": self.full.transductive,
            "top1_percent": percent(self.top1.mean),
            "top1_std_points": None if self.top1.std is None else percent(self.top1.std),
            "top5_percent": None if self.top5 is None else percent(self.top5.mean),
            "full_top1_percent": percent(self.full.top1),
            "splits": [result.to_json() for result in self.splits],
            "full": self.full.to_json(),
        }


def compute_zero_shot(
    features: Float[Tensor, "videos *views embedding"],
    categories: Float[Tensor, "labels embedding"],
    *,
    labels: Sequence[str],
    truth: Sequence[str],
    view_average: ViewAverage = "features",
    temperature: float = CLIP_TEMPERATURE,
    transductive: Reading = "not stated",
) -> ZeroShotResult:
    """Score features against label embeddings.

    Args:
        features: Unit-length clip features; axes between videos and embedding are views of the
            same video, e.g. temporal clips and spatial crops.
        categories: Unit-length label embeddings, in the order of `labels`.
        labels: Names that may be predicted.
        truth: The right name of each video.
        view_average: See the module.
        temperature: Divides cosines, for `probabilities` only.
        transductive: See `transductive`.

    Raises:
        DataError: No video, a right name that is not among the labels, or damaged features.
    """
    scores = score_views(
        features, categories, view_average=view_average, temperature=temperature
    )  # [videos, labels]
    accuracy = compute_accuracy(scores, labels=labels, truth=truth, transductive=transductive)
    return _describe(accuracy, features, view_average)


def compute_zero_shot_over_splits(
    features: Float[Tensor, "videos *views embedding"],
    categories: Float[Tensor, "labels embedding"],
    *,
    labels: Sequence[str],
    truth: Sequence[str],
    splits: Sequence[Sequence[int]],
    view_average: ViewAverage = "features",
    temperature: float = CLIP_TEMPERATURE,
    transductive: Reading = "not stated",
) -> ZeroShotOverSplits:
    """Score all videos once; figures for each test split, over the splits, and for all videos.

    Args:
        features: As in `compute_zero_shot`, of all videos of the benchmark.
        categories: As in `compute_zero_shot`.
        labels: As in `compute_zero_shot`.
        truth: As in `compute_zero_shot`.
        splits: Row numbers of each split's test videos.
        view_average: See the module.
        temperature: Divides cosines, for `probabilities` only.
        transductive: See `transductive`.

    Raises:
        DataError: No split, a split without videos, or what `compute_zero_shot` refuses.
    """
    empty = [number for number, rows in enumerate(splits, start=1) if not rows]
    if empty or not splits:
        raise DataError(
            f"{len(splits)} test splits, without videos: {empty or 'all'}. Check that the manifest "
            "holds the benchmark's videos under their published file names."
        )
    scores = score_views(features, categories, view_average=view_average, temperature=temperature)
    full = compute_accuracy(scores, labels=labels, truth=truth, transductive=transductive)
    parts = [
        compute_accuracy(
            scores[torch.tensor(rows)],
            labels=labels,
            truth=[truth[row] for row in rows],
            transductive=transductive,
        )
        for rows in splits
    ]
    top5 = [part.top5 for part in parts if part.top5 is not None]
    return ZeroShotOverSplits(
        full=_describe(full, features, view_average),
        splits=tuple(_describe(part, features, view_average) for part in parts),
        top1=summarise([part.top1 for part in parts]),
        top5=summarise(top5) if top5 else None,
    )


def score_views(
    features: Float[Tensor, "videos *views embedding"],
    categories: Float[Tensor, "labels embedding"],
    *,
    view_average: ViewAverage = "features",
    temperature: float = CLIP_TEMPERATURE,
) -> Float[Tensor, "videos labels"]:
    """One score per video and label: a cosine, or a probability averaged over views.

    Raises:
        DataError: A video without views.
    """
    if features.ndim == 2 and view_average == "features":
        return features @ categories.T
    views = features.flatten(1, -2) if features.ndim > 2 else features[:, None]  # [B, V, E]
    if views.shape[1] == 0:
        raise DataError("The features hold no view of any video; give at least one per video.")
    if view_average == "features":
        return F.normalize(views.mean(dim=1), dim=-1) @ categories.T
    return torch.softmax(views @ categories.T / temperature, dim=-1).mean(dim=1)


def _describe(accuracy: Accuracy, features: Tensor, view_average: ViewAverage) -> ZeroShotResult:
    num_views = features.shape[1:-1].numel()
    return ZeroShotResult(**vars(accuracy), num_views=num_views, view_average=view_average)
