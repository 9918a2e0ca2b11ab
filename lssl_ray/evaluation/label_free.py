"""Scores of a run that need no label, to choose between runs by: features in, figures out.

They look at held-back videos that were not trained on. Each is a stand-in for accuracy, with a way
to be wrong; how well each of them ranks runs was measured in docs/label_free_selection.md. How
they are computed: `label_free_predictions` and `label_free_features`. No choice is made here, and
nothing is decoded or encoded.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.label_free_features import (
    compute_cluster_information,
    compute_dispersion,
    compute_effective_rank,
    compute_lidar,
    compute_neighbourhood_density,
    find_neighbours,
)
from lssl_ray.evaluation.label_free_predictions import (
    balance_scores,
    compute_balance,
    compute_certainty,
    compute_kappa,
    compute_mutual_information,
    compute_nuclear_norm,
    compute_pair_information,
    pair_views,
)
from lssl_ray.losses.scores import UNIT_TOLERANCE

SCORE_NAMES = (
    "mutual_information",
    "certainty",
    "balance",
    "nuclear_norm",
    "view_information",
    "view_agreement",
    "student_agreement",
    "clip_agreement",
    "balanced_clip_agreement",
    "description_agreement",
    "neighbour_agreement",
    "neighbourhood_density",
    "cluster_information",
    "dispersion",
    "effective_rank",
    "lidar",
)
# What a sweep chooses by unless told otherwise; measured: docs/label_free_selection.md.
DEFAULT_SCORE = "balanced_clip_agreement"
NUM_NEIGHBOURS = 5


@dataclass(frozen=True)
class LabelFreeViews:
    """Held-back videos, each seen several times by teacher and student.

    Attributes:
        teacher: Unit-length features of at least two different views of at least two videos.
        student: Of the same views.
        clip: Unit-length features of the same videos by CLIP before adaptation, averaged over
            frames.
    """

    teacher: Float32[Tensor, "videos views embedding"]
    student: Float32[Tensor, "videos views embedding"]
    clip: Float32[Tensor, "videos embedding"]

    def __post_init__(self) -> None:
        """Check what annotations can't.

        Raises:
            DataError: Fewer than two videos or views, sizes that don't fit together, or features
                that are no finite unit vectors.
        """
        shapes = [list(rows.shape) for rows in (self.teacher, self.student, self.clip)]
        if self.teacher.ndim != 3 or min(shapes[0][:2]) < 2:
            raise DataError(
                f"Label-free scores need [videos, views, embedding] with at least two of the first "
                f"two, not {shapes[0]}; hold back more videos, or look at each more than once."
            )
        if shapes[1] != shapes[0] or shapes[2] != [shapes[0][0], shapes[0][2]]:
            raise DataError(
                f"Features of teacher {shapes[0]}, student {shapes[1]} and CLIP {shapes[2]} are "
                "not of the same videos and views."
            )
        for name, rows in vars(self).items():
            _check_unit(name, rows)


def compute_label_free_scores(
    views: LabelFreeViews,
    *,
    category: Float[Tensor, "labels embedding"],
    description: Float[Tensor, "descriptions embedding"] | None,
    temperature: float,
    link: Float[Tensor, "labels descriptions"] | None = None,
) -> dict[str, float]:
    """Score a run without labels; of each score, higher is better.

    Compare runs only on the same videos, views, labels and temperature: several scores depend on
    all of them. Time and memory grow with the square of the number of videos: 2000 videos and 400
    labels of 512 dimensions took 2 s of one core and 0.3 GiB.

    Args:
        views: See there.
        category: Unit-length label embeddings, at least two.
        description: Unit-length description embeddings; None leaves `description_agreement` out.
        temperature: Divides cosines, > 0. One value for all runs that are compared, not the one a
            run was trained with: that would reward a cold one. CLIP's is 1 / its logit scale.
        link: 1 where a description (column) belongs to a label (row). Without it row i of
            `description` belongs to label i; where the numbers differ, `description_agreement`
            is left out.

    Returns:
        Every one of `SCORE_NAMES`, except as said above, in that order; all finite.

    Raises:
        DataError: Fewer than two labels, damaged or misfitting embeddings, or a temperature that
            is not positive.
    """
    _check_spaces(views, category, description, link, temperature=temperature)
    teacher, clip, category = (_prepare(rows) for rows in (views.teacher, views.clip, category))
    videos = F.normalize(teacher.mean(dim=1), dim=-1)  # [N, E]
    probabilities = torch.softmax(videos @ category.T / temperature, dim=-1)  # [N, K]
    predicted = probabilities.argmax(dim=-1)
    by_view = torch.softmax(teacher @ category.T / temperature, dim=-1)  # [N, V, K]
    by_teacher = by_view.argmax(dim=-1)
    by_student = (_prepare(views.student) @ category.T).argmax(dim=-1)
    clip_scores = clip @ category.T / temperature  # [N, K]
    neighbours = find_neighbours(videos, num_neighbours=min(NUM_NEIGHBOURS, len(videos) - 1))

    def agree(first: Tensor, second: Tensor) -> float:
        return compute_kappa(first.flatten(), second.flatten(), num_labels=len(category))

    scores = {
        "mutual_information": compute_mutual_information(probabilities),
        "certainty": compute_certainty(probabilities),
        "balance": compute_balance(probabilities),
        "nuclear_norm": compute_nuclear_norm(probabilities),
        "view_information": compute_pair_information(by_view),
        "view_agreement": agree(*pair_views(by_teacher, by_teacher)),
        "student_agreement": agree(*pair_views(by_teacher, by_student)),
        "clip_agreement": agree(predicted, clip_scores.argmax(dim=-1)),
        "balanced_clip_agreement": agree(predicted, balance_scores(clip_scores).argmax(dim=-1)),
        "neighbour_agreement": agree(
            predicted[:, None].expand_as(neighbours), predicted[neighbours]
        ),
        "neighbourhood_density": compute_neighbourhood_density(probabilities),
        "cluster_information": compute_cluster_information(videos, predicted),
        "dispersion": compute_dispersion(videos, predicted),
        "effective_rank": compute_effective_rank(videos),
        "lidar": compute_lidar(teacher),
    }
    if description is not None and (link is not None or len(description) == len(category)):
        described = videos @ _prepare(description).T / temperature  # [N, D]
        if link is not None:
            described = torch.softmax(described, dim=-1) @ _prepare(link).T  # [N, K]
        scores["description_agreement"] = agree(predicted, described.argmax(dim=-1))
    return {name: scores[name] for name in SCORE_NAMES if name in scores}


def _prepare(rows: Tensor) -> Tensor:
    return rows.detach().cpu().double()


def _check_spaces(
    views: LabelFreeViews,
    category: Tensor,
    description: Tensor | None,
    link: Tensor | None,
    *,
    temperature: float,
) -> None:
    if len(category) < 2:
        raise DataError(
            f"Label-free scores compare predictions, which takes at least two labels, not "
            f"{len(category)}."
        )
    if not 0 < temperature < float("inf"):
        raise DataError(
            f"temperature={temperature} of label-free scores must be above 0; CLIP's own is 1 / "
            "its logit scale, 0.01 for OpenAI's."
        )
    spaces = {"category": category} | ({} if description is None else {"description": description})
    for name, rows in spaces.items():
        if rows.shape[-1] != views.teacher.shape[-1]:
            raise DataError(
                f"Features have {views.teacher.shape[-1]} dimensions and {name} embeddings "
                f"{rows.shape[-1]}; both must come from the same CLIP."
            )
        _check_unit(name, rows)
    fitting = [len(category), 0 if description is None else len(description)]
    if link is not None and list(link.shape) != fitting:
        raise DataError(
            f"link is {list(link.shape)}; it must be [labels, descriptions]: {fitting}."
        )


def _check_unit(name: str, rows: Tensor) -> None:
    worst = (rows.detach().norm(dim=-1) - 1).abs().max().item()
    if not worst <= UNIT_TOLERANCE:
        raise DataError(
            f"The length of {name} features is off 1 by up to {worst:.3g} (allowed: "
            f"{UNIT_TOLERANCE}); give finite features, normalised."
        )
