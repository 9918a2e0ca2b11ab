"""Near ties, shared top clips and true confusions, against counting by hand."""

import math

import torch

from lssl_ray.atlas.confusions import TIE_MARGIN, count_confusions, find_close_pairs

ROWS = torch.eye(3)


def test_close_pairs_near_ties_are_counted_nearest_first() -> None:
    near, nearer, far = TIE_MARGIN * 0.9, TIE_MARGIN * 0.1, TIE_MARGIN * 1.1
    before = torch.tensor(
        [[0.5, 0.5 - near, 0.0], [0.5 - nearer, 0.5, 0.0], [0.5, 0.0, 0.5 - far], [0.9, 0.1, 0.2]]
    )
    after = torch.tensor([[0.9, 0.1, 0.0]] * 4)
    pairs = find_close_pairs(before, after, ROWS, num_top=1, num_pairs=9)
    first = pairs[0]
    assert (first.first, first.second) == (0, 1)
    assert first.ties_before == (1, 0) and first.ties_after == ()
    assert all(not pair.ties_before for pair in pairs[1:])


def test_close_pairs_margin_is_half_the_share_at_clip_temperature() -> None:
    scores = torch.tensor([0.3, 0.3 - TIE_MARGIN])
    first, second = torch.softmax(scores.double() / 0.01, dim=0).tolist()
    assert math.isclose(second / first, 0.5, rel_tol=1e-5)


def test_close_pairs_shared_clips_are_those_in_both_lists() -> None:
    before = torch.tensor([[0.9, 0.8, 0.0], [0.8, 0.7, 0.0], [0.1, 0.2, 0.9], [0.0, 0.0, 0.8]])
    (pair,) = find_close_pairs(before, before, ROWS, num_top=2, num_pairs=9)
    assert (pair.first, pair.second, pair.shared_before, pair.shared_after) == (0, 1, 2, 2)


def test_close_pairs_are_cut_to_those_with_most_ties() -> None:
    before = torch.tensor([[0.5, 0.5, 0.0]] + [[0.0, 0.5, 0.5]] * 3)
    (pair,) = find_close_pairs(before, before, ROWS, num_top=1, num_pairs=1)
    assert (pair.first, pair.second) == (1, 2) and len(pair.ties_after) == 3


def test_close_pairs_of_a_single_concept_are_none() -> None:
    scores = torch.ones(3, 1)
    assert find_close_pairs(scores, scores, torch.ones(1, 1), num_top=2, num_pairs=5) == ()


def test_confusions_count_labelled_clips_only() -> None:
    before = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.1, 0.9, 0.0]])
    after = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9]])
    confusions = count_confusions(before, after, [0, 0, 0, None], num_pairs=9)
    (one,) = confusions
    assert (one.truth, one.predicted, one.num_truth) == (0, 1, 3)
    assert one.before == (1, 2) and one.after == (2,)


def test_confusions_most_confused_come_first_and_are_cut() -> None:
    scores = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    (one,) = count_confusions(scores, scores, [0, 0, 0], num_pairs=1)
    assert one.predicted == 2 and len(one.after) == 2
