"""Which clips score highest on each concept, before and after, and how much that changed.

Scores are cosines [clips, concepts]. Places count from 1; equal scores keep the order of the clips.
"""

from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lssl_ray.concepts.space import ConceptSpace

Kind = Literal["category", "description"]


@dataclass(frozen=True)
class ConceptAxes:
    """Concepts of one kind.

    Attributes:
        kind: Action names, or descriptions of actions.
        names: What a row is called.
        details: What a row was embedded from, where the name does not say it.
        labels: The action that each row belongs to.
        rows: Unit-length text embeddings.
    """

    kind: Kind
    names: tuple[str, ...]
    details: tuple[str, ...]
    labels: tuple[str, ...]
    rows: Float[Tensor, "concepts embedding"]

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self.names)


@dataclass(frozen=True)
class RankedClip:
    """A clip in a concept's list.

    Attributes:
        clip: Its row.
        cosine: Its score on the concept.
        place: Its place among all clips on this concept, from 1.
        other_place: Its place under the other encoder.
        concept_place: The concept's place among all concepts of its kind for this clip, from 1.
    """

    clip: int
    cosine: float
    place: int
    other_place: int
    concept_place: int


@dataclass(frozen=True)
class RankedConcept:
    """A concept and the clips that score highest on it.

    Attributes:
        row: Of the concept, in its axes.
        before: Best clips under CLIP's frame average, best first.
        after: Best clips under the teacher.
        num_kept: Clips in both lists.
        median_move: Median over the clips of both lists of how many places they moved.
        best_before: Clips whose best concept of this kind it is, before.
        best_after: The same, after.
    """

    row: int
    before: tuple[RankedClip, ...]
    after: tuple[RankedClip, ...]
    num_kept: int
    median_move: float
    best_before: int
    best_after: int


def build_axes(space: ConceptSpace) -> tuple[ConceptAxes, ...]:
    """The concepts of a space: its action names, and its descriptions where it has some."""
    nothing = ("",) * len(space.labels)
    categories = ConceptAxes("category", space.labels, nothing, space.labels, space.categories)
    if space.descriptions is None:
        return (categories,)
    if space.link is None:  # pooled: a row per label, the mean of its descriptions
        details = tuple("; ".join(texts) for texts in space.description_texts)
        pooled = ConceptAxes("description", space.labels, details, space.labels, space.descriptions)
        return categories, pooled
    owned = [
        (text, label)
        for label, texts in zip(space.labels, space.description_texts, strict=True)
        for text in texts
    ]
    texts, owners = (tuple(column) for column in zip(*owned, strict=True))
    return categories, ConceptAxes("description", texts, owners, owners, space.descriptions)


def rank_concepts(
    before: Float[Tensor, "clips concepts"],
    after: Float[Tensor, "clips concepts"],
    *,
    num_top: int,
    num_concepts: int,
) -> list[RankedConcept]:
    """The concepts that fit most clips, each with its best clips under both encoders.

    Args:
        before: Cosines of CLIP's frame average.
        after: Cosines of the teacher.
        num_top: Length of the lists; all clips where there are fewer.
        num_concepts: Most concepts to return; the ones that are the best concept of most clips,
            before or after.

    Returns:
        Concepts whose lists changed most first: fewest clips kept, then most places moved.
    """
    num_top = min(num_top, len(before))
    best_before, best_after = (_count_best(scores) for scores in (before, after))
    most = torch.maximum(best_before, best_after)
    chosen = most.argsort(descending=True, stable=True)[:num_concepts].tolist()
    ranked = [
        _rank_concept(
            before, after, row, num_top=num_top, best=(int(best_before[row]), int(best_after[row]))
        )
        for row in sorted(chosen)
    ]
    return sorted(ranked, key=lambda one: (one.num_kept, -one.median_move))


def find_top_rows(
    scores: Float[Tensor, "clips concepts"], num_top: int
) -> Int[Tensor, "top concepts"]:
    """Rows of the clips that score highest on each concept, best first."""
    return scores.argsort(dim=0, descending=True, stable=True)[:num_top]


def _count_best(scores: Float[Tensor, "clips concepts"]) -> Int[Tensor, "concepts"]:
    return torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1])


def _rank_concept(
    before: Tensor, after: Tensor, row: int, *, num_top: int, best: tuple[int, int]
) -> RankedConcept:
    places_before, places_after = (_find_places(scores[:, row]) for scores in (before, after))
    lists = []
    for scores, places, others in (
        (before, places_before, places_after),
        (after, places_after, places_before),
    ):
        clips = places.argsort()[:num_top].tolist()
        lists.append(
            tuple(
                RankedClip(
                    clip=clip,
                    cosine=float(scores[clip, row]),
                    place=int(places[clip]),
                    other_place=int(others[clip]),
                    concept_place=1 + int((scores[clip] > scores[clip, row]).sum()),
                )
                for clip in clips
            )
        )
    kept = {one.clip for one in lists[0]} & {one.clip for one in lists[1]}
    moves = {one.clip: abs(one.place - one.other_place) for ranked in lists for one in ranked}
    return RankedConcept(
        row=row,
        before=lists[0],
        after=lists[1],
        num_kept=len(kept),
        median_move=float(median(moves.values())),
        best_before=best[0],
        best_after=best[1],
    )


def _find_places(scores: Float[Tensor, "clips"]) -> Int[Tensor, "clips"]:
    order = scores.argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(1, len(order) + 1)
    return places
