"""Before and after on one split: the same videos, labels that are all known."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from video_records import build_record

from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.errors import DataError
from lssl_ray.evaluation.features import FeatureTable, ViewFeatures
from lssl_ray.evaluation.report import compare_zero_shot, require_labels
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest, build_manifest

LABELS = ("a", "b")


BuildLabelled = Callable[[dict[str, str | None]], Manifest]


@pytest.fixture
def build_labelled() -> BuildLabelled:
    """Builds a manifest of made-up videos with the given labels."""

    def build(labels: dict[str, str | None]) -> Manifest:
        return build_manifest(
            [build_record(name, label=label) for name, label in labels.items()], root="/videos"
        )

    return build


@pytest.fixture
def space() -> ConceptSpace:
    return ConceptSpace(
        labels=LABELS,
        categories=torch.eye(2),
        description_texts=((), ()),
        descriptions=None,
        link=None,
        layout="pooled",
        templates=("{}",),
        description_templates=("{}",),
        clip_name="tiny",
        clip_digest="0",
    )


def build_table(ids: tuple[str, ...], clip: list[int], adapted: list[int]) -> FeatureTable:
    failure = ClipFailure(
        video_id="gone", path="/videos/gone", reason="missing", detail="", seconds=0.0, epoch=0
    )
    rows = {"clip": clip, "adapted": adapted}
    return FeatureTable(
        video_ids=ids,
        features={
            name: build_views(F.one_hot(torch.tensor(best), 2).float())
            for name, best in rows.items()
        },
        failures=(failure,),
    )


def build_views(joint: Tensor) -> dict[str, ViewFeatures]:
    """One view of each video."""
    return {"slow": ViewFeatures(joint=joint[:, None], pooled=torch.zeros(len(joint), 1, 3))}


def test_compare_zero_shot_figures_by_hand(
    space: ConceptSpace, build_labelled: BuildLabelled
) -> None:
    manifest = build_labelled({"w": "a", "x": "b", "gone": "a", "y": "b", "z": "b"})
    table = build_table(("w", "x", "y", "z"), clip=[0, 0, 0, 1], adapted=[1, 1, 1, 1])
    result = compare_zero_shot(table, manifest, space)
    assert (result.clip.top1, result.adapted.top1) == (0.5, 0.75)
    assert result.gain == pytest.approx(25.0)
    assert result.to_json() == {
        "videos": 4,
        "excluded_undecodable": 1,
        "clip_top1": 50.0,
        "adapted_top1": 75.0,
        "gain_points": 25.0,
        "per_class": {
            "a": {"videos": 1, "clip_right": 1, "adapted_right": 0},
            "b": {"videos": 3, "clip_right": 1, "adapted_right": 3},
        },
    }


def test_compare_zero_shot_label_outside_the_space_is_refused(
    space: ConceptSpace, build_labelled: BuildLabelled
) -> None:
    manifest = build_labelled({"w": "a", "x": "c"})
    with pytest.raises(DataError, match=r"\['c'\]"):
        compare_zero_shot(build_table(("w", "x"), [0, 0], [0, 0]), manifest, space)


def test_compare_zero_shot_video_without_label_is_refused(
    space: ConceptSpace, build_labelled: BuildLabelled
) -> None:
    manifest = build_labelled({"w": "a", "x": None})
    with pytest.raises(DataError, match="1 of 2 videos"):
        compare_zero_shot(build_table(("w", "x"), [0, 0], [0, 0]), manifest, space)


def test_compare_zero_shot_no_video_decoded_is_refused(
    space: ConceptSpace, build_labelled: BuildLabelled
) -> None:
    manifest = build_labelled({"gone": "a"})
    failures = build_table(("w",), [0], [0]).failures
    with pytest.raises(DataError):
        compare_zero_shot(
            FeatureTable(video_ids=(), features={}, failures=failures), manifest, space
        )


def test_require_labels_complete_list_passes_in_order() -> None:
    assert require_labels(["b", "a"]) == ["b", "a"]


def test_compare_zero_shot_published_names_mean_their_phrases(
    build_labelled: BuildLabelled, space: ConceptSpace
) -> None:
    named = replace(space, labels=("applying eye makeup", "brushing hair"))
    manifest = build_labelled({"one": "ApplyEyeMakeup", "two": "brush_hair", "three": "brush_hair"})
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    table = FeatureTable(
        video_ids=("one", "two", "three"),
        features={"clip": build_views(features), "adapted": build_views(features)},
        failures=(),
    )
    result = compare_zero_shot(table, manifest, named)
    assert result.clip.per_class == {"applying eye makeup": (1, 1), "brushing hair": (1, 2)}


def test_compare_zero_shot_own_label_goes_before_a_published_name(
    build_labelled: BuildLabelled, space: ConceptSpace
) -> None:
    named = replace(space, labels=("clap", "clapping"))  # HMDB51 publishes `clap` for clapping
    manifest = build_labelled({"one": "clap"})
    features = torch.tensor([[1.0, 0.0]])
    table = FeatureTable(
        video_ids=("one",),
        features={"clip": build_views(features), "adapted": build_views(features)},
        failures=(),
    )
    assert compare_zero_shot(table, manifest, named).clip.top1 == 1.0
