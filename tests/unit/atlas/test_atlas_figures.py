"""Facts: hits by label, numbers of clips, which videos are looked at."""

import json

import torch
from atlas_samples import build_axes, build_clips, build_random_clips
from video_records import build_record

from lssl_ray.atlas.figures import choose_videos, compute_figures, find_truth
from lssl_ray.atlas.ranking import ConceptAxes

AXES = ConceptAxes("category", ("a", "b"), ("", ""), ("a", "b"), torch.eye(2))
BEFORE = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.2, 0.9]])
AFTER = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.2, 0.9]])


def test_figures_hits_follow_the_labels() -> None:
    clips = build_clips(BEFORE, AFTER, ["a", "b", None])
    facts, shown = compute_figures(clips, [AXES], num_top=2, num_concepts=9)
    (space,) = facts["spaces"]
    concepts = {one["name"]: one for one in space["concepts"]}
    numbers = {one["id"]: number for number, one in enumerate(facts["clips"])}
    assert [record.video_id for record in shown] == [one["id"] for one in facts["clips"]]
    listed = [(one["clip"], one["hit"]) for one in concepts["a"]["before"]]
    assert listed == [(numbers["0.mp4"], True), (numbers["1.mp4"], False)]
    listed = [(one["clip"], one["hit"]) for one in concepts["b"]["after"]]
    assert listed == [(numbers["1.mp4"], True), (numbers["2.mp4"], None)]
    assert concepts["b"]["hits_after"] == 1 and concepts["b"]["known_after"] == 1
    assert facts["accuracy"] == {"videos": 2, "right_before": 1, "right_after": 2}
    (confusion,) = facts["confusions"]
    assert (confusion["truth"], confusion["predicted"]) == ("b", "a")
    assert (confusion["before"], confusion["after"]) == (1, 0)
    assert confusion["clips_before"] == [numbers["1.mp4"]]


def test_figures_without_labels_say_what_changed_and_nothing_of_right() -> None:
    clips = build_clips(BEFORE, AFTER, [None, None, None])
    facts, _ = compute_figures(clips, [AXES], num_top=2, num_concepts=9)
    assert facts["accuracy"] is None and facts["confusions"] == []
    entries = [one for concept in facts["spaces"][0]["concepts"] for one in concept["after"]]
    assert entries and all(one["hit"] is None for one in entries)
    assert json.loads(json.dumps(facts)) == facts


def test_figures_describe_only_clips_that_appear_and_each_once() -> None:
    names = [f"concept {row}" for row in range(5)]
    clips = build_random_clips(200, [None] * 200)
    facts, shown = compute_figures(
        clips, [build_axes(names)], num_top=4, num_concepts=5, num_map_clips=60
    )
    numbers = list(range(len(facts["clips"])))
    assert len({one["id"] for one in facts["clips"]}) == len(numbers) == len(shown) < 200
    assert len(facts["map"]["clips"]) == 60
    listed = {
        entry["clip"]
        for concept in facts["spaces"][0]["concepts"]
        for side in ("before", "after")
        for entry in concept[side]
    }
    assert listed <= set(numbers)
    best = (clips.after @ build_axes(names).rows.T).argmax(1)
    rows = {record.video_id: row for row, record in enumerate(clips.records)}
    assert all(one["best_after"] == best[rows[one["id"]]] for one in facts["clips"])


def test_truth_is_found_by_published_name_too() -> None:
    labels = ("ApplyEyeMakeup", "archery", "juggling geese", None)
    records = [build_record(str(row), label=label) for row, label in enumerate(labels)]
    assert find_truth(records, ["archery", "applying eye makeup"]) == [1, 0, None, None]


def test_videos_are_chosen_by_their_ids_alone() -> None:
    ids = [f"{number}.mp4" for number in range(100)]
    chosen = choose_videos(ids, 10)
    assert len(chosen) == 10 and list(chosen) == [one for one in ids if one in chosen]
    assert set(choose_videos(ids[::-1], 10)) == set(chosen)
    assert set(choose_videos(ids, 5)) < set(chosen)
    assert choose_videos(ids, 100) == tuple(ids)
    assert list(chosen) != ids[:10]
