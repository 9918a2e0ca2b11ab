"""A map of clips and concepts in the plane: t-SNE of scikit-learn, the same for the same features.

Clips are laid out by their own features, never together with texts: CLIP keeps pictures and texts
in different parts of its space, and a joint map would show that gap and little else. A concept is
drawn in the middle of the clips that score highest on it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits
from torch import Tensor

from lssl_ray.atlas.ranking import find_top_rows

MIN_TSNE_CLIPS = 12  # t-SNE of a handful says nothing
MIN_PERPLEXITY, MAX_PERPLEXITY = 5.0, 30.0
MANY_CLIPS, MIN_RATE = 200, 10.0
NUM_NEIGHBORS = 10
NUM_ANCHOR_CLIPS = 5
_START_SPREAD = 1e-4  # scikit-learn's own, of an initial layout

TSNE_METHOD = (
    "t-SNE (scikit-learn, perplexity {perplexity:g}, seed 0) of the clips' features, from their "
    "first two principal components on. The map after starts from the map before, so that clips "
    "stay where they were unless their neighbours changed. A concept stands at the median of the "
    "{anchors} clips that score highest on it."
)
PCA_METHOD = (
    "The first two principal components of the clips' features, both maps together: too few clips "
    "for t-SNE. A concept stands at the median of the {anchors} clips that score highest on it."
)
CAUTION = (
    "Near points are clips with similar features. Distances between far groups, sizes of groups "
    "and empty space mean nothing, left and up mean nothing, and two dimensions can't keep all "
    "neighbours: read a group as a question, and look at its clips."
)


@dataclass(frozen=True)
class ClipLayout:
    """Where clips are drawn.

    Attributes:
        before: Under CLIP's frame average; both axes within [0, 1].
        after: Under the teacher; each map fills its frame.
        trust_before: Trustworthiness in [0, 1]: 1 if all near points have near features.
        trust_after: The same of the other map.
        method: How, for people.
    """

    before: Float[np.ndarray, "clips 2"]
    after: Float[np.ndarray, "clips 2"]
    trust_before: float
    trust_after: float
    method: str


def compute_layout(
    before: Float[Tensor, "clips embedding"], after: Float[Tensor, "clips embedding"]
) -> ClipLayout:
    """Lay clips out in the plane, before and after.

    Args:
        before: Unit-length features of CLIP's frame average.
        after: Those of the teacher, same clips.
    """
    first, second = before.double().numpy(), after.double().numpy()
    num_clips = len(first)
    # OpenMP adds partial sums in any order; one thread makes the map the same every time.
    with threadpool_limits(limits=1):
        if num_clips < MIN_TSNE_CLIPS:
            points = _project(np.concatenate([first, second]))
            method = PCA_METHOD.format(anchors=NUM_ANCHOR_CLIPS)
        else:
            perplexity = min(MAX_PERPLEXITY, max(MIN_PERPLEXITY, num_clips / 8))
            points = np.concatenate(_run_tsne(first, second, perplexity=perplexity))
            method = TSNE_METHOD.format(perplexity=perplexity, anchors=NUM_ANCHOR_CLIPS)
        # Each by itself: a layout that goes on from another grows.
        earlier, later = _fit(points[:num_clips]), _fit(points[num_clips:])
        return ClipLayout(
            before=earlier,
            after=later,
            trust_before=_compute_trust(first, earlier),
            trust_after=_compute_trust(second, later),
            method=method,
        )


def place_concepts(
    points: Float[np.ndarray, "clips 2"], scores: Float[Tensor, "clips concepts"]
) -> Float[np.ndarray, "concepts 2"]:
    """The middle of each concept's best clips, coordinate by coordinate."""
    top = find_top_rows(scores, NUM_ANCHOR_CLIPS).numpy()  # [top, K]
    return np.asarray(np.median(points[top], axis=0))


def _run_tsne(
    first: np.ndarray, second: np.ndarray, *, perplexity: float
) -> tuple[np.ndarray, np.ndarray]:
    start = _project(first)
    spread = float(start[:, 0].std())
    start *= _START_SPREAD / spread if spread > 0 else 1.0
    # scikit-learn's own choice is never below 50, at which a few dozen clips fly apart.
    rate = "auto" if len(first) >= MANY_CLIPS else max(MIN_RATE, len(first) / 4)
    settings = {"perplexity": perplexity, "learning_rate": rate, "random_state": 0}
    earlier = TSNE(**settings, init=start.astype(np.float32)).fit_transform(first)
    # Exaggeration would tear up the layout that it starts from.
    later = TSNE(**settings, init=earlier, early_exaggeration=1.0).fit_transform(second)
    return earlier.astype(np.float64), later.astype(np.float64)


def _compute_trust(features: np.ndarray, points: np.ndarray) -> float:
    num_neighbors = min(NUM_NEIGHBORS, (len(points) - 1) // 2)
    if num_neighbors < 1:
        return 1.0  # one or two clips have no neighbours to mistake
    return float(trustworthiness(features, points, n_neighbors=num_neighbors))


def _project(features: np.ndarray) -> np.ndarray:
    """Two principal components; the largest weight of each is positive."""
    centred = features - features.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = (
        axes[:2]
        * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    )
    points = np.zeros((len(features), 2))
    points[:, : len(axes)] = centred @ axes.T
    return points


def _fit(points: np.ndarray) -> np.ndarray:
    """Into the unit square, shape kept, centred."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max()) or 1.0
    return np.asarray((points - (low + high) / 2) / side + 0.5)
