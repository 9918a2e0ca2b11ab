"""What counts as a valid answer, item by item."""

import json
from typing import Any

import pytest
from chat_stub import build_entry

from lssl_ray.generation.estimate import build_typical_labels
from lssl_ray.generation.frames import Clip, sample_clips
from lssl_ray.generation.generator import merge_labels
from lssl_ray.generation.questions import (
    Reading,
    build_describe_question,
    build_theme_question,
    build_video_question,
    write_answer,
)

GOOD = build_entry("waving")


def read(*items: Any, labels: tuple[str, ...] = ("waving", "tying a knot")) -> Reading:
    question = build_describe_question(labels, num_static=4, num_dynamic=2)
    return question.read(json.dumps({"labels": items}), {})


def change(kind: str, index: int, phrase: str) -> dict[str, Any]:
    """The good entry with one phrase replaced."""
    phrases = list(GOOD[kind])
    phrases[index] = phrase
    return GOOD | {kind: phrases}


@pytest.mark.parametrize(
    "bad",
    [
        GOOD | {"static": GOOD["static"][:3]},
        GOOD | {"dynamic": [*GOOD["dynamic"], "one more moving phrase"]},
        change("static", 0, GOOD["static"][1]),
        change("static", 0, GOOD["dynamic"][1].upper() + "!"),
        change("static", 0, "a" * 50 + " " + "b" * 80),
        change("static", 0, "one two three four five six seven eight nine ten " * 2),
        change("static", 0, "hand"),
        change("static", 0, "waving"),
        change("static", 0, "waving hands"),
        change("static", 0, "   "),
        GOOD | {"comment": "as you wished"},
        GOOD | {"static": "a hand up high"},
        {"label": "waving", "static": GOOD["static"]},
    ],
    ids=[
        "too-few",
        "too-many",
        "twice",
        "twice-but-for-case",
        "too-long",
        "too-many-words",
        "one-word",
        "only-the-label",
        "hardly-more-than-the-label",
        "blank",
        "unknown-field",
        "no-list",
        "no-dynamic",
    ],
)
def test_descriptions_invalid_entry_is_dropped_and_its_neighbour_kept(bad: dict[str, Any]) -> None:
    reading = read(bad, build_entry("tying a knot"))
    assert list(reading.entries) == ["tying a knot"]
    assert reading.remaining == "waving"
    assert len(reading.problems) == 1
    assert "'waving'" in reading.problems[0]


def test_descriptions_label_in_other_case_gets_the_spelling_asked_for() -> None:
    reading = read(GOOD | {"label": " WAVING. "}, build_entry("tying a knot"))
    assert list(reading.entries) == ["waving", "tying a knot"]
    assert reading.problems == ()


def test_descriptions_labels_that_differ_in_a_hyphen_stay_apart() -> None:
    labels = ("push up", "push-up")
    reading = read(*(build_entry(label) for label in labels), labels=labels)
    assert tuple(reading.entries) == labels
    assert reading.problems == ()


def test_descriptions_label_answered_twice_is_taken_from_neither() -> None:
    reading = read(GOOD, GOOD, build_entry("tying a knot"))
    assert list(reading.entries) == ["tying a knot"]
    assert reading.remaining == "waving"


def test_descriptions_label_accepted_before_keeps_its_phrases() -> None:
    question = build_describe_question(("waving", "tying a knot"), num_static=4, num_dynamic=2)
    before = question.read(json.dumps({"labels": [GOOD]}), {}).entries
    later = {"labels": [change("static", 0, "hand"), build_entry("tying a knot")]}
    reading = question.read(json.dumps(later), before)
    assert reading.entries["waving"] == before["waving"]
    assert list(reading.entries) == ["waving", "tying a knot"]
    assert reading.problems == ()


@pytest.mark.parametrize("junk", [None, 3, "waving", ["waving"], {"label": 3}, {}])
def test_descriptions_junk_between_entries_costs_nothing_else(junk: Any) -> None:
    reading = read(GOOD, junk, build_entry("tying a knot"))
    assert list(reading.entries) == ["waving", "tying a knot"]
    assert len(reading.problems) == 1
    assert reading.remaining == ""


def test_descriptions_survive_their_own_writing() -> None:
    entries = read(GOOD, build_entry("tying a knot")).entries
    question = build_describe_question(tuple(entries), num_static=4, num_dynamic=2)
    assert question.read(json.dumps(write_answer(entries)), {}) == Reading(entries, (), "")


def test_theme_known_repeated_and_impossible_names_are_not_taken() -> None:
    question = build_theme_question("kitchen", count=3, known=["chopping onions"])
    names = ["Chopping onions!", "stirring soup", "stirring  soup", "x " * 9, "", 5, "peeling"]
    reading = question.read(json.dumps({"labels": names}), {})
    assert list(reading.entries) == ["stirring soup", "peeling"]
    assert len(reading.problems) == 6  # five names, and one label too few
    assert reading.remaining.startswith("1 more")
    full = question.read(json.dumps({"labels": ["Peeling", "mixing", "frying"]}), reading.entries)
    assert list(full.entries) == ["stirring soup", "peeling", "mixing"]
    assert full.remaining == ""


def test_video_empty_list_is_an_answer_and_nonsense_is_none() -> None:
    question = build_video_question([b"", b""])
    assert question.read('{"labels": []}', {}) == Reading({}, (), "")
    assert question.read("no idea", {}).remaining
    assert question.read('{"labels": [7]}', {}).remaining
    assert list(question.read('{"labels": ["a", "b", "c", "d"]}', {}).entries) == ["a", "b", "c"]


def test_merged_labels_are_ordered_by_how_often_they_came() -> None:
    labels = ["Moving left", "jumping", "waving", "moving left", "waving.", "moving-left"]
    assert merge_labels(labels) == ["Moving left", "waving", "jumping"]


@pytest.mark.parametrize(("total", "count"), [(10, 4), (3, 50), (7, 7), (100, 1), (101, 100)])
def test_sampled_clips_are_distinct_and_in_order(total: int, count: int) -> None:
    clips = [Clip(f"{number:03d}", f"{number}.mp4") for number in range(total)]
    sampled = sample_clips(clips, count)
    assert len(sampled) == min(total, count)
    assert sampled == sorted(set(sampled), key=lambda clip: clip.video_id)
    halves = [sum(int(clip.video_id) < total / 2 for clip in sampled), len(sampled)]
    assert count == 1 or abs(halves[0] - halves[1] / 2) <= 1


def test_typical_labels_are_distinct() -> None:
    assert len(set(build_typical_labels(30))) == 30
