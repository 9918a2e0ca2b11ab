"""Near-duplicates, overlap, neighbours and the map's order, against cases worked by hand."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lssl_ray.concepts.similarity import (
    Overlap,
    compute_mean_nearest,
    compute_overlap,
    compute_text_key,
    find_near_duplicates,
    find_neighbours,
    order_by_similarity,
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Brushing the hair", "hair brush"),
        ("push-ups", "push up"),
        ("riding a horse", "Ride horses"),
        ("running", "run"),
        ("kissing", "kiss"),
        ("carrying babies", "carry a baby"),
        ("washing dishes", "washing a dish"),
        ("massaging someone's feet", "massaging someone feet"),
    ],
)
def test_text_key_of_the_same_words_is_one(first: str, second: str) -> None:
    assert compute_text_key(first) == compute_text_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("throwing a ball", "catching a ball"),
        ("swinging", "swimming"),
        ("singing", "swinging"),
        ("playing the drums", "playing the harp"),
        ("push-ups", "doing pushups"),
        ("jogging", "running"),  # synonyms are not looked for
    ],
)
def test_text_key_of_other_words_differs(first: str, second: str) -> None:
    assert compute_text_key(first) != compute_text_key(second)


def at_angles(*degrees: float) -> torch.Tensor:
    """Unit vectors in the plane."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_find_near_duplicates_by_text_alone() -> None:
    labels = ["brushing hair", "riding a bike", "brush the hair", "bowling", "hair brushing"]
    found = find_near_duplicates(labels)
    assert [(pair.first, pair.second) for pair in found] == [
        ("brushing hair", "brush the hair"),
        ("brushing hair", "hair brushing"),
        ("brush the hair", "hair brushing"),
    ]
    assert all(pair.same_words and pair.cosine is None for pair in found)


def test_find_near_duplicates_by_cosine_from_the_threshold_on() -> None:
    labels = ["jogging", "running", "bowling", "run"]
    rows = at_angles(0, 10, 90, 100)  # cos 10 = 0.985 twice, cos 80 and less otherwise
    found = find_near_duplicates(labels, rows=rows, threshold=0.98)
    assert [(pair.first, pair.second, pair.same_words) for pair in found] == [
        ("running", "run", True),
        ("jogging", "running", False),
        ("bowling", "run", False),
    ]
    assert [pair.cosine for pair in found] == pytest.approx([0.0, 0.984808, 0.984808], abs=1e-5)
    assert len(find_near_duplicates(labels, rows=rows, threshold=0.99)) == 1


def test_compute_overlap_counts_exact_and_near_once() -> None:
    labels = ["Archery", "brushing hair", "riding a horse", "yodelling"]
    others = ["archery", "hair brushing", "ride the horse", "brush hair", "bowling"]
    assert compute_overlap(labels, others) == Overlap(exact=1, near=2)
    assert compute_overlap(labels, labels) == Overlap(exact=4, near=0)


def test_find_neighbours_equal_a_plain_loop() -> None:
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(12, 5), dim=1)
    cosines, indices = find_neighbours(rows, count=3)
    for i, row in enumerate(rows):
        others = sorted(
            ((float(row.dot(rows[j])), j) for j in range(12) if j != i), key=lambda pair: -pair[0]
        )[:3]
        assert indices[i].tolist() == [j for _, j in others]
        assert cosines[i].tolist() == pytest.approx([cosine for cosine, _ in others], abs=1e-6)


def test_find_neighbours_of_few_rows_are_all_others() -> None:
    cosines, indices = find_neighbours(at_angles(0, 90), count=3)
    assert indices.tolist() == [[1], [0]]
    torch.testing.assert_close(cosines, torch.zeros(2, 1), rtol=0, atol=1e-6)


def test_compute_mean_nearest_averages_each_rows_best() -> None:
    # Nearest: 0-60 for the first two (0.5), 60-120 for the third (0.5), 180-120 for the last.
    assert compute_mean_nearest(at_angles(0, 60, 120, 180)) == pytest.approx(0.5, abs=1e-6)


def test_order_by_similarity_lays_an_arc_out_along_itself() -> None:
    angles = [10.0, 170.0, 12.0, 20.0, 90.0, 172.0, 95.0]
    order = order_by_similarity(at_angles(*angles))
    laid = [angles[index] for index in order]
    assert sorted(order) == list(range(7))
    assert laid in (sorted(angles), sorted(angles, reverse=True))


def test_order_by_similarity_keeps_clusters_together() -> None:
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(4, 16), dim=1)
    owner = torch.arange(40) % 4
    rows = F.normalize(centres[owner] + 0.05 * torch.randn(40, 16), dim=1)
    laid = [int(owner[index]) for index in order_by_similarity(rows)]
    assert sum(one != other for one, other in pairwise(laid)) == 3
