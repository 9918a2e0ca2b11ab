"""Concepts that are taken for each other: near ties, shared top clips, and true confusions.

What is counted needs no labels but for `count_confusions`. Who is shown is decided here too, so
that a space of a thousand concepts gives a table that a person reads.
"""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.atlas.ranking import find_top_rows
from lssl_ray.evaluation.zero_shot import CLIP_TEMPERATURE

# At CLIP's temperature the second concept then has at least half of the first one's share.
TIE_MARGIN = CLIP_TEMPERATURE * math.log(2)

Pair = tuple[int, int]


@dataclass(frozen=True)
class ClosePair:
    """Two concepts between which clips are undecided.

    Attributes:
        first: Row of a concept.
        second: Row of the other, larger.
        cosine: Of the two texts: how near the language model holds them.
        ties_before: Clips near a tie between the two under CLIP, nearest first.
        ties_after: The same under the teacher.
        shared_before: Clips in the top lists of both under CLIP.
        shared_after: The same under the teacher.
    """

    first: int
    second: int
    cosine: float
    ties_before: tuple[int, ...]
    ties_after: tuple[int, ...]
    shared_before: int
    shared_after: int


@dataclass(frozen=True)
class Confusion:
    """Clips of one concept that another scores highest on.

    Attributes:
        truth: Row of the right concept.
        predicted: Row of the wrong one.
        num_truth: Clips of the right concept.
        before: The clips under CLIP, in order.
        after: The clips under the teacher.
    """

    truth: int
    predicted: int
    num_truth: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def find_close_pairs(
    before: Float[Tensor, "clips concepts"],
    after: Float[Tensor, "clips concepts"],
    rows: Float[Tensor, "concepts embedding"],
    *,
    num_top: int,
    num_pairs: int,
) -> tuple[ClosePair, ...]:
    """Pairs with most clips near a tie, then with most clips that both have in their top lists.

    Args:
        before: Cosines of CLIP's frame average.
        after: Cosines of the teacher.
        rows: The concepts' unit-length embeddings.
        num_top: Length of the top lists.
        num_pairs: Most pairs to return.
    """
    ties = [_find_ties(scores) for scores in (before, after)]
    shared = [_count_shared(scores, num_top) for scores in (before, after)]

    def weigh(pair: Pair) -> tuple[int, int, Pair]:
        num_ties = sum(len(found.get(pair, ())) for found in ties)
        return -num_ties, -sum(counts.get(pair, 0) for counts in shared), pair

    pairs = {*ties[0], *ties[1], *shared[0], *shared[1]}
    return tuple(
        ClosePair(
            first=pair[0],
            second=pair[1],
            cosine=float(rows[pair[0]] @ rows[pair[1]]),
            ties_before=ties[0].get(pair, ()),
            ties_after=ties[1].get(pair, ()),
            shared_before=shared[0].get(pair, 0),
            shared_after=shared[1].get(pair, 0),
        )
        for pair in heapq.nsmallest(num_pairs, pairs, key=weigh)
    )


def count_confusions(
    before: Float[Tensor, "clips concepts"],
    after: Float[Tensor, "clips concepts"],
    truth: Sequence[int | None],
    *,
    num_pairs: int,
) -> tuple[Confusion, ...]:
    """Who is taken for whom, most confused first; clips without a known label take no part.

    Args:
        before: Cosines of CLIP's frame average.
        after: Cosines of the teacher.
        truth: Row of each clip's right concept, or None.
        num_pairs: Most pairs to return.
    """
    found: list[dict[Pair, list[int]]] = []
    for scores in (before, after):
        by_pair: dict[Pair, list[int]] = {}
        for clip, (right, said) in enumerate(zip(truth, scores.argmax(1).tolist(), strict=True)):
            if right is not None and right != said:
                by_pair.setdefault((right, said), []).append(clip)
        found.append(by_pair)
    totals = Counter(truth)
    confusions = [
        Confusion(
            truth=pair[0],
            predicted=pair[1],
            num_truth=totals[pair[0]],
            before=tuple(found[0].get(pair, ())),
            after=tuple(found[1].get(pair, ())),
        )
        for pair in sorted({*found[0], *found[1]})
    ]
    confusions.sort(key=lambda one: -max(len(one.before), len(one.after)))
    return tuple(confusions[:num_pairs])


def _find_ties(scores: Float[Tensor, "clips concepts"]) -> dict[Pair, tuple[int, ...]]:
    """Clips near a tie by pair of concepts, nearest first."""
    if scores.shape[1] < 2:
        return {}
    best = scores.topk(2, dim=1)
    margins = (best.values[:, 0] - best.values[:, 1]).tolist()
    found: dict[Pair, list[int]] = {}
    for clip, (one, other) in enumerate(best.indices.tolist()):
        if margins[clip] <= TIE_MARGIN:
            found.setdefault((min(one, other), max(one, other)), []).append(clip)
    return {pair: tuple(sorted(c, key=lambda clip: margins[clip])) for pair, c in found.items()}


def _count_shared(scores: Float[Tensor, "clips concepts"], num_top: int) -> dict[Pair, int]:
    """Clips that are in the top lists of two concepts, by pair."""
    top = find_top_rows(scores, num_top)  # [top, K]
    member = torch.zeros_like(scores).scatter_(0, top, 1.0)  # [clips, K]
    counts = (member.T @ member).triu(diagonal=1)  # [K, K]
    return {(one, other): int(counts[one, other]) for one, other in counts.nonzero().tolist()}
