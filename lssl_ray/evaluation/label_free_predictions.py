"""Label-free scores of predictions: how sure, how spread, how stable. Probabilities in.

What `label_free` is made of, one function per score, with its source and its known weakness.
Nothing here looks at features.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Enough for rows and columns to settle to about 1e-3 on CLIP's scores; the argmax settles sooner.
BALANCE_ROUNDS = 100


def compute_mutual_information(probabilities: Float[Tensor, "videos labels"]) -> float:
    """How much a prediction says about which video it was: sure on each, different over all.

    Entropy of the mean prediction minus mean entropy, over log K: in [0, 1]. Bridle, Heading and
    MacKay, "Unsupervised classifiers, mutual information and phantom targets", NIPS 1991; among
    the validators that Musgrave et al. compare, https://arxiv.org/abs/2208.07360. Blind to which
    label is which: predictions that are sure, spread and wrong score high.

    Args:
        probabilities: Rows that sum to 1, at least two labels.
    """
    return max(0.0, compute_balance(probabilities) - (1.0 - compute_certainty(probabilities)))


def compute_certainty(probabilities: Float[Tensor, "videos labels"]) -> float:
    """How sure the predictions are: 1 - mean entropy / log K, in [0, 1].

    Morerio et al., "Minimal-entropy correlation alignment", ICLR 2018,
    https://arxiv.org/abs/1711.10288. A collapsed model is as sure as can be.
    """
    entropy = torch.special.entr(probabilities).sum(dim=-1).mean().item()
    return _clip_to_share(1.0 - entropy / math.log(probabilities.shape[1]))


def compute_balance(probabilities: Float[Tensor, "videos labels"]) -> float:
    """How evenly labels are used: entropy of the mean prediction / log K, in [0, 1].

    The diversity term of Musgrave et al., https://arxiv.org/abs/2208.07360. An unsure model
    reaches 1; so does any training with a strong uniform prior.
    """
    entropy = torch.special.entr(probabilities.mean(dim=0)).sum().item()
    return _clip_to_share(entropy / math.log(probabilities.shape[1]))


def compute_nuclear_norm(probabilities: Float[Tensor, "videos labels"]) -> float:
    """Sureness and spread in one: sum of the prediction matrix' singular values.

    Over its largest possible value sqrt(min(N, K) * N), so in (0, 1]. Deng et al., "Confidence and
    dispersity speak", ICML 2023, https://arxiv.org/abs/2302.01094; Cui et al., "Towards
    discriminability and diversity", CVPR 2020, https://arxiv.org/abs/2003.12237.
    """
    num_videos, num_labels = probabilities.shape
    norm = torch.linalg.matrix_norm(probabilities, ord="nuc").item()
    return _clip_to_share(norm / math.sqrt(min(num_videos, num_labels) * num_videos))


def compute_pair_information(probabilities: Float[Tensor, "videos views labels"]) -> float:
    """How much the prediction on one view says about that on another view of the same video.

    Mutual information of the joint distribution over pairs of different views, over log K: in
    [0, 1]; 0 for a collapsed model. Ji et al., "Invariant information clustering", ICCV 2019,
    https://arxiv.org/abs/1807.06653.

    Args:
        probabilities: Rows that sum to 1; at least two views and two labels.
    """
    num_videos, num_views, num_labels = probabilities.shape
    summed = probabilities.sum(dim=1)  # [N, K]
    each = probabilities.flatten(0, 1)  # [N*V, K]
    # All ordered pairs at once: the square of the sum without a view's pairs with itself.
    joint = (summed.T @ summed - each.T @ each).clamp_min(0.0)  # [K, K]
    joint = joint / (num_videos * num_views * (num_views - 1))
    entropies = [torch.special.entr(joint.sum(dim=dim)).sum().item() for dim in (0, 1)]
    information = sum(entropies) - torch.special.entr(joint).sum().item()
    return _clip_to_share(information / math.log(num_labels))


def pair_views(
    first: Int64[Tensor, "videos views"], second: Int64[Tensor, "videos views"]
) -> tuple[Int64[Tensor, "pairs"], Int64[Tensor, "pairs"]]:
    """Labels of all pairs (a, b) of different views: view a in `first`, view b in `second`."""
    num_views = first.shape[1]
    pairs = [(a, b) for a in range(num_views) for b in range(num_views) if a != b]
    return (
        torch.cat([first[:, a] for a, _ in pairs]),
        torch.cat([second[:, b] for _, b in pairs]),
    )


def compute_kappa(
    first: Int64[Tensor, "pairs"], second: Int64[Tensor, "pairs"], *, num_labels: int
) -> float:
    """How often two predictions agree, beyond chance: Cohen's kappa, in [-1, 1].

    0 is what independent predictions with the same shares of labels would reach, so a model that
    names one label only gains nothing by it: where chance agrees always, this is 0. Cohen, "A
    coefficient of agreement for nominal scales", 1960, https://doi.org/10.1177/001316446002000104.

    Args:
        first: Label indices.
        second: Label indices of the same pairs.
        num_labels: K.
    """
    agreement = (first == second).double().mean().item()
    counts = [torch.bincount(part, minlength=num_labels).double() for part in (first, second)]
    chance = (counts[0] * counts[1]).sum().item() / len(first) ** 2
    if chance >= 1.0:
        return 0.0
    return (agreement - chance) / (1.0 - chance)


def balance_scores(scores: Float[Tensor, "videos labels"]) -> Float[Tensor, "videos labels"]:
    """Log probabilities whose mean over the videos is uniform: every label is used equally.

    By Sinkhorn and Knopp's alternating normalisation, as Asano et al., "Self-labelling via
    simultaneous clustering and representation learning", ICLR 2020,
    https://arxiv.org/abs/1911.05371. Right only as far as the videos show all labels equally
    often.

    Args:
        scores: Divided by the temperature already.
    """
    for _ in range(BALANCE_ROUNDS):
        scores = scores - scores.logsumexp(dim=0, keepdim=True)
        scores = scores - scores.logsumexp(dim=1, keepdim=True)
    return scores


def _clip_to_share(value: float) -> float:
    """Rounding may leave [0, 1] by 1e-16."""
    return min(1.0, max(0.0, value))
