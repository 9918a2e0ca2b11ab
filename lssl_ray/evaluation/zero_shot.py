"""Zero-shot classification: nearest label embedding by cosine. Features in, figures out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError


@dataclass(frozen=True)
class ZeroShotResult:
    """Accuracy of one model on one set of videos.

    Attributes:
        top1: Share of right videos, in [0, 1].
        per_class: Label to (right, all).
        predictions: Per video, the index of the predicted label.
    """

    top1: float
    per_class: dict[str, tuple[int, int]]
    predictions: tuple[int, ...]

    @property
    def num_videos(self) -> int:
        """Videos that were scored."""
        return len(self.predictions)


def compute_zero_shot(
    features: Float[Tensor, "videos embedding"],
    categories: Float[Tensor, "labels embedding"],
    *,
    labels: Sequence[str],
    truth: Sequence[str],
) -> ZeroShotResult:
    """Score features against label embeddings.

    Args:
        features: Unit-length clip features.
        categories: Unit-length label embeddings, in the order of `labels`.
        labels: Names that may be predicted.
        truth: The right name of each video.

    Raises:
        DataError: No video, or a right name that is not among the labels.
    """
    if not truth:
        raise DataError("Zero-shot evaluation got no video; check the manifest's split and labels.")
    index = {label: i for i, label in enumerate(labels)}
    unknown = sorted(set(truth) - set(index))
    if unknown:
        raise DataError(
            f"These labels of the videos are not in the label list: {unknown[:5]} "
            f"({len(unknown)} in all). The list knows: {sorted(index)[:5]} ... Name them alike, or "
            "add them to the label file."
        )
    predictions = (features @ categories.T).argmax(dim=-1)  # [videos]
    right = predictions == torch.tensor([index[name] for name in truth])
    per_class = {}
    for label in labels:
        members = torch.tensor([name == label for name in truth])
        if members.any():
            per_class[label] = (int(right[members].sum()), int(members.sum()))
    return ZeroShotResult(
        top1=right.double().mean().item(),
        per_class=per_class,
        predictions=tuple(predictions.tolist()),
    )
