"""Lists of top clips, what changed in them, and which concepts are shown."""

import pytest
import torch
from atlas_samples import build_axes

from lssl_ray.atlas.ranking import build_axes as build_space_axes
from lssl_ray.atlas.ranking import rank_concepts
from lssl_ray.concepts.space import build_concept_space
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.model.clip import ClipModel

BEFORE = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.6]])
AFTER = torch.tensor([[0.9, 0.1], [0.1, 0.8], [0.7, 0.2], [0.2, 0.6]])


def test_rank_concepts_hand_computed_case() -> None:
    ranked = {one.row: one for one in rank_concepts(BEFORE, AFTER, num_top=2, num_concepts=9)}
    first = ranked[0]
    assert [one.clip for one in first.before] == [0, 1]
    assert [one.clip for one in first.after] == [0, 2]
    assert first.num_kept == 1
    assert [one.other_place for one in first.before] == [1, 4]
    assert [one.other_place for one in first.after] == [1, 3]
    assert [one.place for one in first.after] == [1, 2]
    assert first.after[1].cosine == pytest.approx(0.7)
    # Clips 0, 1, 2 moved 0, 2 and 1 places.
    assert first.median_move == 1.0
    assert (first.best_before, first.best_after) == (2, 2)
    second = ranked[1]
    assert [one.clip for one in second.before] == [2, 3]
    assert [one.clip for one in second.after] == [1, 3]
    assert [one.concept_place for one in second.before] == [1, 1]


def test_rank_concepts_agrees_with_plain_sorting() -> None:
    generator = torch.Generator().manual_seed(3)
    before, after = torch.randn(2, 40, 6, generator=generator)
    for one in rank_concepts(before, after, num_top=5, num_concepts=6):
        orders = {
            name: sorted(range(40), key=lambda clip: -scores[clip, one.row].item())
            for name, scores in (("before", before), ("after", after))
        }
        for side, other in (("before", "after"), ("after", "before")):
            for place, entry in enumerate(getattr(one, side), start=1):
                assert entry.clip == orders[side][place - 1] and entry.place == place
                assert entry.other_place == 1 + orders[other].index(entry.clip)
                row = (before if side == "before" else after)[entry.clip].tolist()
                assert entry.concept_place == 1 + sum(score > row[one.row] for score in row)
        assert one.num_kept == len(set(orders["before"][:5]) & set(orders["after"][:5]))


def test_rank_concepts_most_changed_lists_come_first() -> None:
    kept = [one.num_kept for one in rank_concepts(BEFORE, AFTER, num_top=1, num_concepts=9)]
    assert kept == sorted(kept) == [0, 1]


def test_rank_concepts_shows_those_that_are_best_for_most_clips() -> None:
    before = torch.zeros(10, 5)
    before[:6, 3] = 1.0
    before[6:9, 1] = 1.0
    before[9, 4] = 1.0
    shown = rank_concepts(before, before, num_top=2, num_concepts=2)
    assert {one.row for one in shown} == {1, 3}
    assert {one.row: one.best_after for one in shown} == {1: 3, 3: 6}


def test_rank_concepts_equal_scores_keep_the_order_of_clips() -> None:
    flat = torch.full((4, 1), 0.5)
    (one,) = rank_concepts(flat, flat, num_top=3, num_concepts=1)
    assert [entry.clip for entry in one.before] == [0, 1, 2] and one.num_kept == 3


def test_rank_concepts_fewer_clips_than_the_list_is_long() -> None:
    scores = torch.tensor([[0.1, 0.4]])
    ranked = rank_concepts(scores, scores, num_top=6, num_concepts=5)
    assert [len(one.before) for one in ranked] == [1, 1]


def test_axes_of_descriptions_follow_the_layout(tiny_clip: ClipModel) -> None:
    vocabulary = Vocabulary(
        labels=("diving", "archery"),
        descriptions=(("water", "a fall", "arms up"), ("a bow",)),
    )

    def build(layout: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        space = build_concept_space(
            vocabulary,
            tiny_clip,
            layout=layout,  # type: ignore[arg-type]
            templates=("{}",),
            description_templates=("{}",),
        )
        axes = build_space_axes(space)
        assert [one.kind for one in axes] == ["category", "description"]
        assert all(len(one) == len(one.rows) for one in axes)
        return [(one.names, one.labels) for one in axes]

    assert build("pooled")[1] == (("diving", "archery"), ("diving", "archery"))
    names, labels = build("full")[1]
    assert names == ("water", "a fall", "arms up", "a bow")
    assert labels == ("diving", "diving", "diving", "archery")


def test_axes_sample_is_unit_length() -> None:
    assert torch.allclose(build_axes(["a", "b"]).rows.norm(dim=1), torch.ones(2))
