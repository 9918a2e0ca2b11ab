"""Few-shot subsets as a pure function, nested; accuracy over seeds."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from blobs import LABELS, draw_blobs

from lssl_ray.errors import DataError
from lssl_ray.evaluation.convex_probe import ConvexSettings
from lssl_ray.evaluation.few_shot import draw_few_shot, run_few_shot
from lssl_ray.evaluation.linear_probe import run_linear_probe

TRUTH = [label for label in LABELS for _ in range(20)]


@pytest.mark.parametrize("num_shots", [1, 2, 4, 8, 16])
def test_draw_few_shot_takes_that_many_of_each_label(num_shots: int) -> None:
    subset = draw_few_shot(TRUTH, num_shots=num_shots, seed=0)
    assert Counter(TRUTH[row] for row in subset.rows) == dict.fromkeys(LABELS, num_shots)
    assert list(subset.rows) == sorted(set(subset.rows))
    assert subset.short_labels == {}


def test_draw_few_shot_subsets_are_nested() -> None:
    subsets = [set(draw_few_shot(TRUTH, num_shots=k, seed=5).rows) for k in (2, 4, 8, 16)]
    for smaller, larger in pairwise(subsets):
        assert smaller < larger


def test_draw_few_shot_is_pure_and_depends_on_the_seed() -> None:
    torch.manual_seed(0)
    first = draw_few_shot(TRUTH, num_shots=2, seed=0)
    torch.manual_seed(1)
    assert draw_few_shot(TRUTH, num_shots=2, seed=0) == first
    assert len({draw_few_shot(TRUTH, num_shots=2, seed=seed).rows for seed in range(5)}) == 5


def test_draw_few_shot_known_rows_stay_what_they_were() -> None:
    # Published figures name a seed: these rows may not change with a release.
    assert draw_few_shot(["a", "b"] * 10, num_shots=2, seed=0).rows == (5, 10, 13, 16)


def test_draw_few_shot_other_labels_change_nothing() -> None:
    alone = draw_few_shot(["cook"] * 20, num_shots=4, seed=0)
    together = draw_few_shot(TRUTH, num_shots=4, seed=0)
    assert alone.rows == tuple(row for row in together.rows if TRUTH[row] == "cook")


def test_draw_few_shot_labels_do_not_share_an_order() -> None:
    rows = draw_few_shot(TRUTH, num_shots=4, seed=0).rows
    places = {label: tuple(row % 20 for row in rows if TRUTH[row] == label) for label in LABELS}
    assert len(set(places.values())) > 1


def test_draw_few_shot_short_label_gives_all_it_has() -> None:
    subset = draw_few_shot(["a", "b", "a", "a", "b", "a"], num_shots=3, seed=0)
    assert subset.short_labels == {"b": 2}
    assert {1, 4} < set(subset.rows) and len(subset.rows) == 5


def test_draw_few_shot_no_shot_is_refused() -> None:
    with pytest.raises(DataError, match="num_shots=0"):
        draw_few_shot(TRUTH, num_shots=0, seed=0)


def test_run_few_shot_is_the_convex_probe_on_each_subset() -> None:
    blobs = draw_blobs()
    result = run_few_shot(
        blobs.train,
        train_truth=blobs.train_truth,
        test_features=blobs.test,
        test_truth=blobs.test_truth,
        labels=LABELS,
        num_shots=(2, 16),
        seeds=(0, 7),
        transductive="none",
    )
    assert [point.num_shots for point in result.points] == [2, 16]
    for point in result.points:
        for seed, found in zip((0, 7), point.results, strict=True):
            rows = draw_few_shot(blobs.train_truth, num_shots=point.num_shots, seed=seed).rows
            assert found == run_linear_probe(
                blobs.train[list(rows)],
                train_truth=[blobs.train_truth[row] for row in rows],
                test_features=blobs.test,
                test_truth=blobs.test_truth,
                labels=LABELS,
                settings=ConvexSettings(),
                transductive="none",
            )
        first, second = (found.top1 for found in point.results)
        assert point.top1.mean == pytest.approx((first + second) / 2)
        assert point.top1.std == pytest.approx(abs(first - second) / 2**0.5)
    assert result.points[1].top1.mean > result.points[0].top1.mean
    values = result.to_json()
    assert values["transductive"] == "none" and values["seeds"] == [0, 7]
    assert [shot["videos_per_label"] for shot in values["shots"]] == [2, 16]


def test_run_few_shot_one_shot_needs_a_given_penalty() -> None:
    blobs = draw_blobs()
    options = {
        "train_truth": blobs.train_truth,
        "test_features": blobs.test,
        "test_truth": blobs.test_truth,
        "labels": LABELS,
        "num_shots": (1,),
        "seeds": (0,),
    }
    with pytest.raises(DataError):
        run_few_shot(blobs.train, **options)
    given = ConvexSettings(inverse_penalties=(0.1,), scaling="unit")
    result = run_few_shot(blobs.train, **options, settings=given)
    assert result.points[0].top1.mean > 0.25


def test_run_few_shot_no_seed_is_refused() -> None:
    blobs = draw_blobs()
    with pytest.raises(DataError, match=r"seeds=\[\]"):
        run_few_shot(
            blobs.train,
            train_truth=blobs.train_truth,
            test_features=blobs.test,
            test_truth=blobs.test_truth,
            labels=LABELS,
            seeds=(),
        )
