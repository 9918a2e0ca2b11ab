"""What an atlas says, as plain data: the JSON beside the page, and what the page draws from.

Features in, facts out. Clips are numbered in the order in which the page needs them, so that only
those that appear are described, and pictures can be left out from the end.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.atlas.confusions import (
    TIE_MARGIN,
    ClosePair,
    Confusion,
    count_confusions,
    find_close_pairs,
)
from lssl_ray.atlas.layout import CAUTION, compute_layout, place_concepts
from lssl_ray.atlas.ranking import ConceptAxes, RankedClip, RankedConcept, rank_concepts
from lssl_ray.concepts.bank import resolve_label
from lssl_ray.video.manifest import VideoRecord

MAX_PAIRS = 80
MAX_MAP_CLIPS = 1000
_DECIMALS = 4


@dataclass(frozen=True)
class AtlasClips:
    """The clips that decoded.

    Attributes:
        records: Their videos.
        before: Unit-length features of CLIP's frame average.
        after: Those of the teacher.
    """

    records: tuple[VideoRecord, ...]
    before: Float[Tensor, "clips embedding"]
    after: Float[Tensor, "clips embedding"]


class PageClips:
    """Numbers clips in the order in which they are asked for."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    @property
    def rows(self) -> list[int]:
        """Rows of the clips, by number."""
        return list(self._numbers)

    def number(self, row: int) -> int:
        """The number of a clip on the page."""
        return self._numbers.setdefault(row, len(self._numbers))


def compute_figures(
    clips: AtlasClips,
    axes: Sequence[ConceptAxes],
    *,
    num_top: int,
    num_concepts: int,
    num_map_clips: int = MAX_MAP_CLIPS,
) -> tuple[dict[str, Any], list[VideoRecord]]:
    """Everything the atlas says of clips and concepts.

    Args:
        clips: At least one.
        axes: Concepts by kind, categories first.
        num_top: Length of the lists of top-scoring clips.
        num_concepts: Most concepts to show of each kind.
        num_map_clips: Most clips on the map.

    Returns:
        The facts, and the videos of the clips in them, in the order of `facts["clips"]`.
    """
    scores = {one.kind: (clips.before @ one.rows.T, clips.after @ one.rows.T) for one in axes}
    ranked = {
        one.kind: rank_concepts(*scores[one.kind], num_top=num_top, num_concepts=num_concepts)
        for one in axes
    }
    categories = axes[0]
    truth = find_truth(clips.records, categories.names)
    before, after = scores[categories.kind]
    numbers = PageClips()
    spaces = _describe_spaces(axes, ranked, truth, categories, numbers)
    confusions = count_confusions(before, after, truth, num_pairs=MAX_PAIRS)
    pairs = find_close_pairs(before, after, categories.rows, num_top=num_top, num_pairs=MAX_PAIRS)
    facts = {
        "num_top": min(num_top, len(clips.records)),
        "spaces": spaces,
        "confusions": [
            _describe_confusion(one, categories, num_top, numbers) for one in confusions
        ],
        "close_pairs": [_describe_pair(one, categories, num_top, numbers) for one in pairs],
        "tie_margin": round(TIE_MARGIN, _DECIMALS),
        "accuracy": _describe_accuracy(before, after, truth),
        "map": _describe_map(
            clips, scores[categories.kind], ranked[categories.kind], numbers, num_map_clips
        ),
    }
    best = [values.argmax(dim=1).tolist() for values in (before, after)]
    facts["clips"] = [
        {
            "id": clips.records[row].video_id,
            "label": clips.records[row].label,
            "truth": truth[row],
            "best_before": best[0][row],
            "best_after": best[1][row],
        }
        for row in numbers.rows
    ]
    facts["names"] = list(categories.names)
    return facts, [clips.records[row] for row in numbers.rows]


def find_truth(records: Sequence[VideoRecord], names: Sequence[str]) -> list[int | None]:
    """Row of the concept that is each video's label; None without label, or with another one."""
    places = {name: row for row, name in enumerate(names)}
    return [
        None if record.label is None else places.get(resolve_label(record.label, places))
        for record in records
    ]


def choose_videos(video_ids: Sequence[str], number: int) -> tuple[str, ...]:
    """As many videos as asked for, in order; which ones depends on the ids alone."""
    if len(video_ids) <= number:
        return tuple(video_ids)
    kept = set(sorted(video_ids, key=_hash)[:number])
    return tuple(video_id for video_id in video_ids if video_id in kept)


def _hash(video_id: str) -> bytes:
    return hashlib.sha256(video_id.encode()).digest()


def _describe_spaces(
    axes: Sequence[ConceptAxes],
    ranked: dict[Any, list[RankedConcept]],
    truth: Sequence[int | None],
    categories: ConceptAxes,
    numbers: PageClips,
) -> list[dict[str, Any]]:
    owners = {name: row for row, name in enumerate(categories.names)}
    return [
        {
            "kind": one.kind,
            "num_concepts": len(one),
            "concepts": [
                {
                    "row": concept.row,
                    "name": one.names[concept.row],
                    "detail": one.details[concept.row],
                    "label": one.labels[concept.row],
                    "kept": concept.num_kept,
                    "median_move": concept.median_move,
                    "best_before": concept.best_before,
                    "best_after": concept.best_after,
                    **_describe_lists(concept, owners[one.labels[concept.row]], truth, numbers),
                }
                for concept in ranked[one.kind]
            ],
        }
        for one in axes
    ]


def _describe_lists(
    concept: RankedConcept, owner: int, truth: Sequence[int | None], numbers: PageClips
) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for side, ranked in (("before", concept.before), ("after", concept.after)):
        known = [truth[one.clip] for one in ranked]
        sides[side] = [_describe_clip(one, owner, truth, numbers) for one in ranked]
        sides[f"hits_{side}"] = sum(right == owner for right in known)
        sides[f"known_{side}"] = sum(right is not None for right in known)
    return sides


def _describe_clip(
    one: RankedClip, owner: int, truth: Sequence[int | None], numbers: PageClips
) -> dict[str, Any]:
    right = truth[one.clip]
    return {
        "clip": numbers.number(one.clip),
        "cosine": round(one.cosine, _DECIMALS),
        "other_place": one.other_place,
        "concept_place": one.concept_place,
        "hit": None if right is None else right == owner,
    }


def _describe_confusion(
    one: Confusion, categories: ConceptAxes, num_shown: int, numbers: PageClips
) -> dict[str, Any]:
    return {
        "truth": categories.names[one.truth],
        "predicted": categories.names[one.predicted],
        "num_truth": one.num_truth,
        "cosine": round(
            float(categories.rows[one.truth] @ categories.rows[one.predicted]), _DECIMALS
        ),
        "before": len(one.before),
        "after": len(one.after),
        "clips_before": _number_all(one.before[:num_shown], numbers),
        "clips_after": _number_all(one.after[:num_shown], numbers),
    }


def _describe_pair(
    one: ClosePair, categories: ConceptAxes, num_shown: int, numbers: PageClips
) -> dict[str, Any]:
    return {
        "first": categories.names[one.first],
        "second": categories.names[one.second],
        "cosine": round(one.cosine, _DECIMALS),
        "ties_before": len(one.ties_before),
        "ties_after": len(one.ties_after),
        "shared_before": one.shared_before,
        "shared_after": one.shared_after,
        "clips_before": _number_all(one.ties_before[:num_shown], numbers),
        "clips_after": _number_all(one.ties_after[:num_shown], numbers),
    }


def _number_all(rows: Iterable[int], numbers: PageClips) -> list[int]:
    return [numbers.number(row) for row in rows]


def _describe_accuracy(
    before: Tensor, after: Tensor, truth: Sequence[int | None]
) -> dict[str, Any] | None:
    """Clips whose best concept is their label; None without known labels."""
    known = [row for row, right in enumerate(truth) if right is not None]
    if not known:
        return None
    right = torch.tensor([truth[row] for row in known])
    return {
        "videos": len(known),
        "right_before": int((before[known].argmax(dim=1) == right).sum()),
        "right_after": int((after[known].argmax(dim=1) == right).sum()),
    }


def _describe_map(
    clips: AtlasClips,
    scores: tuple[Tensor, Tensor],
    concepts: Sequence[RankedConcept],
    numbers: PageClips,
    num_clips: int,
) -> dict[str, Any]:
    ids = [record.video_id for record in clips.records]
    kept = set(choose_videos(ids, num_clips))
    rows = [row for row, video_id in enumerate(ids) if video_id in kept]
    layout = compute_layout(clips.before[rows], clips.after[rows])
    places = [
        place_concepts(points, values[rows]).round(_DECIMALS)
        for points, values in zip((layout.before, layout.after), scores, strict=True)
    ]
    return {
        "method": layout.method,
        "caution": CAUTION,
        "trust_before": round(layout.trust_before, _DECIMALS),
        "trust_after": round(layout.trust_after, _DECIMALS),
        "clips": _number_all(rows, numbers),
        "before": layout.before.round(_DECIMALS).tolist(),
        "after": layout.after.round(_DECIMALS).tolist(),
        "concepts": [
            {
                "row": concept.row,
                "before": places[0][concept.row].tolist(),
                "after": places[1][concept.row].tolist(),
            }
            for concept in concepts
        ],
    }
