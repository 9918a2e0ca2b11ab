"""What training knew about a target, by name."""

import pytest

from lssl_ray.concepts.bank import load_bank, load_published_names
from lssl_ray.errors import DataError
from lssl_ray.evaluation.transductive import find_transductive_reading

LABELS = ("running", "jumping")


@pytest.mark.parametrize(
    ("training_labels", "training_ids", "reading"),
    [
        ((), (), "none"),
        (("running", "jumping", "eating"), (), "vocabulary"),
        (("eating",), ("one", "three"), "videos"),
        (("jumping", "running"), ("two",), "both"),
        (("running",), ("three",), "none"),
    ],
)
def test_find_transductive_reading_by_what_was_shared(
    training_labels: tuple[str, ...], training_ids: tuple[str, ...], reading: str
) -> None:
    found = find_transductive_reading(
        training_labels,
        target_labels=LABELS,
        training_ids=training_ids,
        target_ids=("one", "two"),
    )
    assert found.reading == reading
    assert found.num_shared_labels == len(set(training_labels) & set(LABELS))
    assert found.num_shared_videos == len({"one", "two"} & set(training_ids))
    assert (found.num_labels, found.num_videos) == (2, 2)
    assert found.to_json()["transductive"] == reading


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_find_transductive_reading_published_names_against_the_bank(dataset: str) -> None:
    published = tuple(load_published_names(dataset))
    readings = {
        name: find_transductive_reading(
            load_bank(name).labels, target_labels=published, training_ids=(), target_ids=()
        )
        for name in ("lss-a", "lss-b")
    }
    assert readings["lss-a"].reading == "vocabulary"
    assert readings["lss-a"].num_shared_labels == len(published)
    # Kinetics-400 shares names with either, and is the honest setting all the same.
    assert readings["lss-b"].reading == "none"
    assert 0 < readings["lss-b"].num_shared_labels < len(published) / 2


def test_find_transductive_reading_a_few_names_left_out_stays_vocabulary() -> None:
    labels = [f"action {i}" for i in range(20)]
    for kept, reading in ((19, "vocabulary"), (18, "vocabulary"), (17, "none")):
        found = find_transductive_reading(
            labels[:kept], target_labels=labels, training_ids=(), target_ids=()
        )
        assert (found.reading, found.num_shared_labels) == (reading, kept)


def test_find_transductive_reading_no_label_is_refused() -> None:
    with pytest.raises(DataError):
        find_transductive_reading((), target_labels=(), training_ids=(), target_ids=())
