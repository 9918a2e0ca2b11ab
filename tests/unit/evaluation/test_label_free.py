"""All label-free scores at once: what goes in, what is refused, what must not matter."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.label_free import (
    DEFAULT_SCORE,
    SCORE_NAMES,
    LabelFreeViews,
    compute_label_free_scores,
)

TEMPERATURE = 0.1
IN_UNIT_RANGE = ("mutual_information", "certainty", "balance", "nuclear_norm", "view_information")
AGREEMENTS = tuple(name for name in SCORE_NAMES if name.endswith("_agreement"))


def draw_units(*shape: int, seed: int = 0) -> Tensor:
    rows = np.random.default_rng(seed).normal(size=shape)
    return F.normalize(torch.from_numpy(rows).float(), dim=-1)


def draw_views(*, videos: int = 12, views: int = 2, dims: int = 6, seed: int = 0) -> LabelFreeViews:
    """Features of videos whose views resemble each other."""
    base = draw_units(videos, 1, dims, seed=seed)
    return LabelFreeViews(
        teacher=F.normalize(base + 0.3 * draw_units(videos, views, dims, seed=seed + 1), dim=-1),
        student=F.normalize(base + 0.5 * draw_units(videos, views, dims, seed=seed + 2), dim=-1),
        clip=F.normalize(base[:, 0] + 0.5 * draw_units(videos, dims, seed=seed + 3), dim=-1),
    )


def score(views: LabelFreeViews, **changes: Any) -> dict[str, float]:
    dims = views.clip.shape[1]
    given: dict[str, Any] = {
        "category": draw_units(4, dims, seed=10),
        "description": draw_units(4, dims, seed=11),
        "temperature": TEMPERATURE,
    }
    return compute_label_free_scores(views, **(given | changes))


def test_scores_every_input_given_are_all_of_the_names_in_order() -> None:
    found = score(draw_views())
    assert tuple(found) == SCORE_NAMES
    assert DEFAULT_SCORE in found
    assert len(set(found.values())) > len(SCORE_NAMES) / 2


def test_scores_no_description_leaves_one_out_and_changes_no_other() -> None:
    full = score(draw_views())
    found = score(draw_views(), description=None)
    assert set(full) - set(found) == {"description_agreement"}
    assert found == {name: full[name] for name in found}


def test_description_agreement_full_layout_goes_by_the_link() -> None:
    views, rows = draw_views(), draw_units(4, 6, seed=11)
    # Each description twice: the same shares of labels as with each one once.
    twice, link = rows.repeat_interleave(2, dim=0), torch.eye(4).repeat_interleave(2, dim=1)
    once = score(views, description=rows)["description_agreement"]
    found = score(views, description=twice, link=link)["description_agreement"]
    assert found == pytest.approx(once)
    wrong = score(views, description=twice, link=link[[1, 2, 3, 0]])["description_agreement"]
    assert wrong != pytest.approx(once)
    assert "description_agreement" not in score(views, description=twice)


def test_scores_noise_in_the_features_lowers_every_agreement() -> None:
    category = torch.eye(4)
    truth = category[torch.arange(24) % 4]

    def look(noise: float) -> dict[str, float]:
        teacher = F.normalize(truth[:, None] + noise * draw_units(24, 2, 4), dim=-1)
        student = F.normalize(truth[:, None] + noise * draw_units(24, 2, 4, seed=5), dim=-1)
        views = LabelFreeViews(teacher, student, truth)
        return score(views, category=category, description=category.roll(1, dims=0))

    good, bad = look(0.01), look(2.0)
    assert good["clip_agreement"] == good["view_agreement"] == good["student_agreement"] == 1.0
    assert good["description_agreement"] < 0  # the descriptions are those of other labels
    for name in {*AGREEMENTS, "dispersion", "mutual_information"} - {"description_agreement"}:
        assert good[name] > bad[name], name


def test_student_agreement_compares_different_views_only() -> None:
    category = torch.eye(2)
    first = category[torch.tensor([0, 1, 0, 1])]
    views = torch.stack([first, first.flip(-1)], dim=1)  # each view says the other label
    found = score(LabelFreeViews(views, views, first), category=category, description=None)
    assert found["student_agreement"] == found["view_agreement"] == -1.0


def test_neighbour_agreement_labels_that_follow_the_groups_is_one() -> None:
    category = torch.eye(3)
    grouped = category.repeat_interleave(6, dim=0)
    views = grouped[:, None].expand(18, 2, 3).contiguous()
    found = score(LabelFreeViews(views, views, grouped), category=category, description=None)
    assert found["neighbour_agreement"] == 1.0
    assert found["cluster_information"] == pytest.approx(1.0)


@pytest.mark.parametrize("videos", [2, 7])
def test_scores_collapsed_model_are_finite_and_earn_no_agreement(videos: int) -> None:
    row = draw_units(6)
    views = row.expand(videos, 2, 6).contiguous()
    found = score(LabelFreeViews(views, views, row.expand(videos, 6).contiguous()))
    assert all(math.isfinite(value) for value in found.values())
    for name in (*AGREEMENTS, "mutual_information", "view_information", "cluster_information"):
        assert found[name] == pytest.approx(0.0, abs=1e-9), name
    assert found["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert found["lidar"] == 0.0


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    videos=st.integers(2, 20),
    views=st.integers(2, 4),
    labels=st.integers(2, 9),
    temperature=st.sampled_from([1e-4, 0.01, 0.1, 10.0]),
)
def test_scores_any_features_are_within_their_bounds(
    seed: int, videos: int, views: int, labels: int, temperature: float
) -> None:
    found = score(
        draw_views(videos=videos, views=views, seed=seed),
        category=draw_units(labels, 6, seed=seed + 7),
        description=draw_units(labels, 6, seed=seed + 8),
        temperature=temperature,
    )
    assert all(0 <= found[name] <= 1 for name in (*IN_UNIT_RANGE, "dispersion"))
    assert all(-1 - 1e-9 <= found[name] <= 1 + 1e-9 for name in AGREEMENTS)
    assert -1e-9 <= found["neighbourhood_density"] <= math.log(max(videos - 1, 1)) + 1e-9
    assert 1 - 1e-6 <= found["effective_rank"] <= min(videos, 6) + 1e-6
    assert 1 - 1e-6 <= found["lidar"] <= min(videos - 1, 6) + 1e-6
    assert found["mutual_information"] <= found["balance"] + 1e-9


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_scores_order_of_videos_views_labels_and_axes_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views = draw_views(views=3, seed=seed)
    category, description = draw_units(4, 6, seed=seed + 7), draw_units(4, 6, seed=seed + 8)
    rows, order, names = (torch.from_numpy(rng.permutation(size)) for size in (12, 3, 4))
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0]).float()
    moved = LabelFreeViews(
        teacher=views.teacher[rows][:, order] @ turn,
        student=views.student[rows][:, order] @ turn,
        clip=views.clip[rows] @ turn,
    )
    before = score(views, category=category, description=description)
    after = score(moved, category=category[names] @ turn, description=description[names] @ turn)
    assert after == pytest.approx(before, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: replace(v, teacher=v.teacher[:1], student=v.student[:1], clip=v.clip[:1]), "1"),
        (lambda v: replace(v, teacher=v.teacher[:, :1], student=v.student[:, :1]), "1"),
        (lambda v: replace(v, student=v.student[:5]), "student"),
        (lambda v: replace(v, clip=v.clip[:5]), "CLIP"),
        (lambda v: replace(v, teacher=2 * v.teacher), "teacher"),
        (lambda v: replace(v, clip=v.clip * torch.nan), "clip"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_views_that_do_not_do_are_refused(change: Any, word: str) -> None:
    views = draw_views()
    with pytest.raises(DataError, match=word):
        change(views)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"category": draw_units(1, 6)}, "two labels"),
        ({"category": draw_units(4, 5)}, "category"),
        ({"description": draw_units(4, 5)}, "description"),
        ({"category": 3 * draw_units(4, 6)}, "category"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"link": torch.ones(4, 9)}, "link"),
        ({"description": None, "link": torch.ones(4, 4)}, "link"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_scores_of_spaces_that_do_not_do_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match=word):
        score(draw_views(), **changes)
