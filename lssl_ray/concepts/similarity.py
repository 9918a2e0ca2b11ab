"""How concepts lie to each other: nearest neighbours, order for a map, near-duplicate labels.

Labels are compared as texts, without any model; rows by cosine. Nothing here embeds.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

DUPLICATE_COSINE = 0.95
_ARTICLES = {"a", "an", "the"}
_MIN_STEM = 3
_VOWEL = re.compile("[aeiouy]")


@dataclass(frozen=True)
class NearDuplicate:
    """Two labels that may mean the same.

    Attributes:
        first: A label.
        second: Another one.
        cosine: Of their rows; None where nothing was embedded.
        same_words: Whether they differ only in articles, endings, word order or hyphens.
    """

    first: str
    second: str
    cosine: float | None
    same_words: bool


@dataclass(frozen=True)
class Overlap:
    """How many of one list's labels another list has too.

    Attributes:
        exact: The same text, but for case.
        near: Only the same words (see `compute_text_key`).
    """

    exact: int
    near: int


def compute_text_key(label: str) -> str:
    """What stays of a label without case, articles, hyphens, endings and word order.

    Per word, in this order: `-ing` goes (where three letters with a vowel stay), a plural `-s`,
    a final `e`, a doubled last letter; `y` becomes `i`. So "Brushing the hair" and "hair brush"
    are one; "jogging" and "running" are two: no synonyms and no grammar.
    """
    words = re.findall(r"[^\W_]+", label.casefold().replace("'s", ""))
    return "".join(sorted(_stem(word) for word in words if word not in _ARTICLES))


def find_near_duplicates(
    labels: Sequence[str],
    *,
    rows: Float[Tensor, "n embedding"] | None = None,
    threshold: float = DUPLICATE_COSINE,
) -> list[NearDuplicate]:
    """Pairs of labels with the same words, and with rows those of a cosine from the threshold on.

    Args:
        labels: Distinct labels.
        rows: Unit-length rows, one per label; None compares texts only.
        threshold: Smallest cosine to report.

    Returns:
        Same words first, then the most similar rows first.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[compute_text_key(label)].append(index)
    worded = {pair for group in groups.values() for pair in combinations(group, 2)}
    close: set[tuple[int, int]] = set()
    cosines: list[list[float]] | None = None
    if rows is not None:
        matrix = rows @ rows.T
        cosines = matrix.tolist()
        above = (matrix >= threshold).triu(diagonal=1)
        close = {(int(first), int(second)) for first, second in above.nonzero().tolist()}
    found = [
        NearDuplicate(
            first=labels[first],
            second=labels[second],
            cosine=None if cosines is None else cosines[first][second],
            same_words=(first, second) in worded,
        )
        for first, second in sorted(worded | close)
    ]
    return sorted(found, key=lambda pair: (not pair.same_words, -(pair.cosine or 0.0)))


def compute_overlap(labels: Sequence[str], others: Sequence[str]) -> Overlap:
    """Which of `labels` are in `others`: as they stand, or at least with the same words."""
    folded = {other.casefold() for other in others}
    keys = {compute_text_key(other) for other in others}
    exact = [label for label in labels if label.casefold() in folded]
    near = [label for label in labels if compute_text_key(label) in keys]
    return Overlap(exact=len(exact), near=len(set(near) - set(exact)))


def find_neighbours(
    rows: Float[Tensor, "n embedding"], *, count: int
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """Cosines and indices of each row's nearest others, best first.

    Args:
        rows: At least two unit-length rows.
        count: How many; as many as there are at most.
    """
    cosines = (rows @ rows.T).fill_diagonal_(-torch.inf)
    best = cosines.topk(min(count, len(rows) - 1), dim=1)
    return best.values, best.indices


def compute_mean_nearest(rows: Float[Tensor, "n embedding"]) -> float:
    """Mean cosine of each row with its nearest other one: how crowded a space is."""
    return float(find_neighbours(rows, count=1)[0].mean())


def order_by_similarity(rows: Float[Tensor, "n embedding"]) -> list[int]:
    """An order in which similar rows stand together: average-linkage clusters, laid end to end.

    The two most similar clusters merge until one is left; of the four ways to lay two clusters
    side by side the one with the most similar touching ends is taken. Deterministic, O(n^3) in
    plain vector steps: a second for 1000 rows.
    """
    cosines = (rows @ rows.T).double()
    linkage = cosines.clone().fill_diagonal_(-torch.inf)
    members: list[list[int]] = [[index] for index in range(len(rows))]
    for _ in range(len(rows) - 1):
        left, right = divmod(int(linkage.argmax()), len(rows))
        a, b = members[left], members[right]
        sizes = len(a), len(b)
        members[left] = max(
            (one + other for one in (a, a[::-1]) for other in (b, b[::-1])),
            key=lambda line: float(cosines[line[sizes[0] - 1], line[sizes[0]]]),
        )
        members[right] = []
        merged = (sizes[0] * linkage[left] + sizes[1] * linkage[right]) / sum(sizes)
        merged[left] = merged[right] = -torch.inf
        linkage[left], linkage[:, left] = merged, merged
        linkage[right], linkage[:, right] = -torch.inf, -torch.inf
    return max(members, key=len)


def _stem(word: str) -> str:
    if word.endswith("ing") and len(word) >= 3 + _MIN_STEM and _VOWEL.search(word[:-3]):
        word = word[:-3]
    if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) >= _MIN_STEM:
        word = word[:-1]
    if word.endswith("e") and len(word) > _MIN_STEM:
        word = word[:-1]
    if len(word) > _MIN_STEM and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word
