"""k-NN accuracy within one set of videos: each is classified by the others.

For watching a run, where no training split has labels: the same votes as `knn`, with the set
itself, without the video in question, in the place of the training videos. Not comparable with
`lssl-ray evaluate --protocol knn`, which learns from another split.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.knn import MAX_COSINES, TEMPERATURE

NUM_NEIGHBOURS = 5


def compute_leave_one_out_knn(
    features: Float[Tensor, "videos embedding"],
    *,
    truth: Sequence[str],
    num_neighbours: int = NUM_NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """The share of videos whose nearest others vote for the right label.

    Args:
        features: Of all videos; made unit length here.
        truth: Their labels.
        num_neighbours: k; all others where there are fewer.
        temperature: Divides cosines in the votes, > 0.

    Returns:
        Top-1 in [0, 1].

    Raises:
        DataError: Fewer than two videos.
    """
    if len(truth) < 2:
        raise DataError(f"{len(truth)} video has no neighbour; k-NN within a set takes two.")
    names = sorted(set(truth))
    right = torch.tensor([names.index(label) for label in truth])
    rows = F.normalize(features.float(), dim=-1)
    count = min(num_neighbours, len(truth) - 1)
    num_right = 0
    for chunk in torch.arange(len(rows)).split(max(1, MAX_COSINES // len(rows))):
        cosines = rows[chunk] @ rows.T  # [chunk, N]
        cosines[torch.arange(len(chunk)), chunk] = -torch.inf
        nearest = cosines.topk(count, dim=-1)
        # Against the nearest one: the same ranking, and no overflow at a small temperature.
        weights = ((nearest.values - nearest.values[:, :1]).double() / temperature).exp()
        votes = torch.zeros(len(chunk), len(names), dtype=torch.float64)
        votes.scatter_add_(1, right[nearest.indices], weights)
        num_right += int((votes.argmax(dim=-1) == right[chunk]).sum())
    return num_right / len(truth)
