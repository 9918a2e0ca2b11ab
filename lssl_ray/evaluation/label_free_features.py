"""Label-free scores of features: neighbours, clusters, ranks. Features and predictions in.

What `label_free` is made of, one function per score, with its source and its known weakness.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

# Saito et al.'s.
DENSITY_TEMPERATURE = 0.05
# Thilak et al.'s, added to the spread within a video.
LIDAR_REGULARISER = 1e-4


def compute_neighbourhood_density(probabilities: Float[Tensor, "videos labels"]) -> float:
    """Whether each video has many others that are predicted alike: soft neighbourhood density.

    Mean entropy of the softmax over cosines with all other videos' predictions, in [0, log(N-1)].
    Saito et al., "Tune it the right way: unsupervised validation of domain adaptation via soft
    neighborhood density", ICCV 2021, https://arxiv.org/abs/2108.10860. A collapsed model, whose
    predictions are all alike, scores highest: the paper's remedy is to look.
    """
    rows = F.normalize(probabilities, dim=-1)
    cosines = (rows @ rows.T).fill_diagonal_(-torch.inf)  # [N, N]
    shares = torch.softmax(cosines / DENSITY_TEMPERATURE, dim=-1)
    return float(torch.special.entr(shares).sum(dim=-1).mean())


def find_neighbours(
    features: Float[Tensor, "videos embedding"], *, num_neighbours: int
) -> Int64[Tensor, "videos neighbours"]:
    """The nearest other videos of each by cosine, nearest first."""
    cosines = (features @ features.T).fill_diagonal_(-torch.inf)  # [N, N]
    return cosines.topk(num_neighbours, dim=1).indices


def compute_cluster_information(
    features: Float[Tensor, "videos embedding"], predicted: Int64[Tensor, "videos"]
) -> float:
    """Whether clusters of the features are the predicted labels: adjusted mutual information.

    As many clusters as labels are predicted; about 0 by chance, 1 where both divide the videos
    alike. `ClassAMI` of Musgrave et al., "Three new validators and a large-scale benchmark ranking
    for unsupervised domain adaptation", https://arxiv.org/abs/2208.07360, with Ward's clustering,
    which needs no random start, for k-means. 0 where one label is predicted, or another one for
    each video: there is nothing to agree on.
    """
    num_clusters = len(predicted.unique())
    if num_clusters in (1, len(predicted)):
        return 0.0
    clusters = AgglomerativeClustering(num_clusters, linkage="ward").fit_predict(features.numpy())
    return float(adjusted_mutual_info_score(predicted.numpy(), clusters))


def compute_dispersion(
    features: Float[Tensor, "videos embedding"], predicted: Int64[Tensor, "videos"]
) -> float:
    """How far apart the predicted labels' mean features lie, in [0, 1].

    Mean squared distance of a video's label mean from the mean of all. Xie et al., "On the
    importance of feature separability in predicting out-of-distribution error", NeurIPS 2023,
    https://arxiv.org/abs/2303.15488, without its logarithm, which has no value where one label is
    predicted; here that is 0.
    """
    labels, places = predicted.unique(return_inverse=True)
    members = F.one_hot(places, len(labels)).to(features.dtype)  # [N, labels]
    counts = members.sum(dim=0)
    means = members.T @ features / counts[:, None]  # [labels, E]
    distances = (means - features.mean(dim=0)).square().sum(dim=-1)
    return (counts * distances).sum().item() / len(features)


def compute_effective_rank(features: Float[Tensor, "videos embedding"]) -> float:
    """How many directions the features use: RankMe, from 1 (all alike) to min(N, E).

    Exponential of the entropy of the singular values' shares. Garrido et al., "RankMe", ICML 2023,
    https://arxiv.org/abs/2210.02885. Noise in all directions has full rank.
    """
    return _count_directions(torch.linalg.svdvals(features))


def compute_lidar(features: Float[Tensor, "videos views embedding"]) -> float:
    """How many directions tell videos apart, in units of the spread over views: LiDAR.

    Effective rank of the linear-discriminant matrix whose classes are the videos, from 1 to
    min(N-1, E); 0 where all videos are alike. Thilak et al., "LiDAR", ICLR 2024,
    https://arxiv.org/abs/2312.04000. Their paper has 10 views or more per clip; two say less.
    """
    means = features.mean(dim=1)  # [N, E]
    within = (features - means[:, None]).flatten(0, 1)  # [N*V, E]
    between = means - means.mean(dim=0)
    spread = within.T @ within / len(within)  # [E, E]
    spread.diagonal().add_(LIDAR_REGULARISER)
    factor = torch.linalg.cholesky(spread)
    whitened = torch.linalg.solve_triangular(factor, between.T, upper=False)  # [E, N]
    # The eigenvalues of the whitened between-video spread.
    return _count_directions(torch.linalg.svdvals(whitened).square() / len(means))


def _count_directions(sizes: Float[Tensor, "directions"]) -> float:
    total = sizes.sum()
    if total < 1e-12:  # rounding of nothing at all
        return 0.0
    return float(torch.special.entr(sizes / total).sum().exp())
