"""Accuracy from scores: what every protocol reports. Scores and right names in, figures out.

A class that no video of the set belongs to has no accuracy: it is in no `per_class` and takes no
part in the mean over classes. Equal scores: the label that comes first in the list wins.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.transductive import Reading

NUM_RANKED = 5


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of one model on one set of videos; each protocol adds how it came about.

    Attributes:
        labels: Names that could be predicted.
        truth: Per video, the index of the right label.
        ranking: Per video, the indices of the five labels with the highest scores (of all, if
            there are fewer), best first.
        top1: Share of videos whose best label is right, in [0, 1].
        top5: Share of videos with the right label among the best five; None with five labels or
            fewer, where it would be 1 whatever the model.
        per_class: Label to (right at top-1, all), for the labels that have videos.
        transductive: What training knew about these videos; see `transductive`.
    """

    labels: tuple[str, ...]
    truth: tuple[int, ...]
    ranking: tuple[tuple[int, ...], ...]
    top1: float
    top5: float | None
    per_class: dict[str, tuple[int, int]]
    transductive: Reading = "not stated"

    @property
    def num_videos(self) -> int:
        """Videos that were scored."""
        return len(self.truth)

    @property
    def predictions(self) -> tuple[int, ...]:
        """Per video, the index of the predicted label."""
        return tuple(ranked[0] for ranked in self.ranking)

    @property
    def right(self) -> tuple[bool, ...]:
        """Per video, whether the prediction is right."""
        pairs = zip(self.truth, self.predictions, strict=True)
        return tuple(truth == prediction for truth, prediction in pairs)

    @property
    def mean_class(self) -> float:
        """Mean of the accuracies of the classes that have videos, in [0, 1]."""
        shares = [right / total for right, total in self.per_class.values()]
        return sum(shares) / len(shares)

    def to_json(self) -> dict[str, Any]:
        """Plain data for files; predictions as indices into `labels`."""
        return {
            "transductive": self.transductive,
            "videos": self.num_videos,
            "top1_percent": percent(self.top1),
            "top5_percent": None if self.top5 is None else percent(self.top5),
            "mean_class_percent": percent(self.mean_class),
            "classes_with_videos": len(self.per_class),
            "per_class": {
                label: {"videos": total, "right": right}
                for label, (right, total) in self.per_class.items()
            },
            "labels": list(self.labels),
            "truth": list(self.truth),
            "ranking": [list(ranked) for ranked in self.ranking],
        }


def compute_accuracy(
    scores: Float[Tensor, "videos labels"],
    *,
    labels: Sequence[str],
    truth: Sequence[str],
    transductive: Reading = "not stated",
) -> Accuracy:
    """Rank the labels of each video and count.

    Args:
        scores: Higher is better; finite.
        labels: Names of the columns, each once.
        truth: The right name of each row.
        transductive: See `transductive`.

    Raises:
        DataError: No video, a right name that is not among the labels, another number of rows or
            columns than names, or a score that is not finite.
    """
    targets = index_truth(truth, labels)
    if scores.shape != (len(truth), len(labels)):
        raise DataError(
            f"Scores of shape {tuple(scores.shape)} don't fit {len(truth)} videos and "
            f"{len(labels)} labels; give one row per video and one column per label."
        )
    num_wrong = int((~scores.isfinite()).any(dim=1).sum())
    if num_wrong:
        raise DataError(
            f"{num_wrong} of {len(truth)} videos have scores that are not finite numbers; the "
            "model's weights or the cached features are damaged. Extract the features again."
        )
    # Sorted, not topk, which leaves open who wins between equals.
    order = scores.sort(dim=1, descending=True, stable=True).indices.cpu()  # [videos, labels]
    ranked = order[:, :NUM_RANKED]
    hits = ranked == targets[:, None]  # [videos, ranks]
    totals, rights = Counter(truth), Counter[str]()
    for name, hit in zip(truth, hits[:, 0].tolist(), strict=True):
        rights[name] += hit
    return Accuracy(
        labels=tuple(labels),
        truth=tuple(targets.tolist()),
        ranking=tuple(map(tuple, ranked.tolist())),
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item() if len(labels) > NUM_RANKED else None,
        per_class={label: (rights[label], totals[label]) for label in labels if totals[label]},
        transductive=transductive,
    )


def index_truth(truth: Sequence[str], labels: Sequence[str]) -> Int64[Tensor, "videos"]:
    """The index of each right name in the label list.

    Raises:
        DataError: No video, a name twice in the list, or a right name that is not in it.
    """
    if not truth:
        raise DataError(
            "The evaluation got no video; check the split's name, the manifest's labels, and "
            "whether any video could be decoded."
        )
    index = {label: i for i, label in enumerate(labels)}
    if len(index) < len(labels):
        twice = [label for label, count in Counter(labels).items() if count > 1]
        raise DataError(
            f"The label list has these names more than once: {twice[:5]}; keep each once."
        )
    unknown = sorted(set(truth) - set(index))
    if unknown:
        raise DataError(
            f"These labels of the videos are not in the label list: {unknown[:5]} "
            f"({len(unknown)} in all). The list knows: {sorted(index)[:5]} ... Name them alike, or "
            "add them to the label file."
        )
    return torch.tensor([index[name] for name in truth])


def percent(share: float) -> float:
    """A share in [0, 1] as files hold it: percent with four decimals."""
    return round(100 * share, 4)
