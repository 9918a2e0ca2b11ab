"""Scores are cosines or refused."""

import pytest
import torch
import torch.nn.functional as F

from lssl_ray.losses import compute_concept_scores


def draw_units(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_scores_are_cosines() -> None:
    features, concepts = draw_units(2, 3, 5), draw_units(4, 5)
    scores = compute_concept_scores(features, concepts)
    expected = F.cosine_similarity(features[:, :, None], concepts[None, None], dim=-1)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("side", ["features", "concepts"])
@pytest.mark.parametrize(("factor", "refused"), [(1.0005, False), (1.002, True), (0.99, True)])
def test_scores_of_rows_that_are_not_unit_length_are_refused(
    side: str, factor: float, refused: bool
) -> None:
    rows = {"features": draw_units(2, 3, 5), "concepts": draw_units(4, 5)}
    rows[side] = rows[side] * factor
    if not refused:
        assert compute_concept_scores(**rows).shape == (2, 3, 4)
        return
    with pytest.raises(ValueError, match=side):
        compute_concept_scores(**rows)


def test_scores_of_another_size_are_refused(without_shape_checks: None) -> None:
    with pytest.raises(ValueError, match="5 dimensions"):
        compute_concept_scores(draw_units(2, 3, 5), draw_units(4, 6))
