"""Held-back videos: a choice by ids alone, of exactly so many."""

import random

import pytest
from video_records import build_record

from lssl_ray.errors import DataError
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest, build_manifest

IDS = [f"clip {number}.mp4" for number in range(40)]


def build(ids: list[str], *, root: str = "/videos") -> Manifest:
    return build_manifest([build_record(video_id) for video_id in ids], root=root)


def list_ids(manifest: Manifest) -> list[str]:
    return [record.video_id for record in manifest.records()]


def test_split_takes_exactly_so_many_and_keeps_the_order() -> None:
    trained, held_back = split_held_back(build(IDS), num_held_back=7)
    assert (len(trained), len(held_back)) == (33, 7)
    assert sorted(list_ids(trained) + list_ids(held_back)) == sorted(IDS)
    for part in (trained, held_back):
        assert list_ids(part) == sorted(list_ids(part), key=IDS.index)
    # Neither end of the list: a folder's last class must not be the one that is held back.
    assert set(list_ids(held_back)) not in ({*IDS[:7]}, {*IDS[-7:]})


def test_split_does_not_depend_on_order_or_folder() -> None:
    shuffled = random.Random(3).sample(IDS, len(IDS))
    first = split_held_back(build(IDS), num_held_back=7)[1]
    second = split_held_back(build(shuffled, root="/elsewhere"), num_held_back=7)[1]
    assert set(list_ids(first)) == set(list_ids(second))


def test_split_of_fewer_is_a_part_of_the_split_of_more() -> None:
    few, more = (split_held_back(build(IDS), num_held_back=count)[1] for count in (5, 12))
    assert set(list_ids(few)) < set(list_ids(more))


def test_split_of_none_leaves_the_manifest_as_it_is() -> None:
    trained, held_back = split_held_back(build(IDS), num_held_back=0)
    assert list_ids(trained) == IDS and len(held_back) == 0


@pytest.mark.parametrize("count", [40, 41])
def test_split_that_leaves_nothing_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=rf"hold_back={count}.* 40 usable"):
        split_held_back(build(IDS), num_held_back=count)
