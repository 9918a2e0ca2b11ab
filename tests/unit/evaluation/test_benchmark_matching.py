"""A benchmark's videos in a manifest, whatever their folders and extensions."""

import csv
import json
from pathlib import Path

import pytest
from video_records import build_record

from lssl_ray.errors import DataError
from lssl_ray.evaluation.benchmarks import Benchmark, build_benchmark, load_benchmark
from lssl_ray.evaluation.benchmarks.matching import find_ids, match_videos
from lssl_ray.evaluation.transductive import find_transductive_reading

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "clips" / "index.csv"


@pytest.fixture
def benchmark() -> Benchmark:
    return build_benchmark(
        "ucf101",
        {
            "v_Archery_g01_c01": ("Archery", "211"),
            "v_Archery_g08_c01": ("Archery", "121"),
            "v_YoYo_g01_c01": ("YoYo", "211"),
            "v_YoYo_g08_c01": ("YoYo", "122"),
            "v_YoYo_g15_c01": ("YoYo", "000"),
        },
    )


def test_match_videos_rows_of_each_split_by_hand(benchmark: Benchmark) -> None:
    records = [
        build_record("v_YoYo_g08_c01.mp4"),
        build_record("holiday.mp4"),
        build_record("YoYo/v_YoYo_g15_c01.avi"),
        build_record("any/where/v_Archery_g01_c01.avi"),
        build_record("Archery/v_archery_G08_c01.MKV"),
    ]
    match = match_videos(benchmark, records)
    assert match.labels == ("YoYo", None, "YoYo", "Archery", "Archery")
    assert match.rows == (0, 2, 3, 4)
    assert match.missing == ("v_YoYo_g01_c01",)
    assert match.extra == ("holiday.mp4",)
    first, second, third = match.splits
    assert (first.train_rows, first.test_rows) == ((0, 4), (3,))
    assert (second.train_rows, second.test_rows) == ((3,), (0, 4))
    assert (third.train_rows, third.test_rows) == ((3, 4), (0,))
    assert (first.num_missing_train, first.num_missing_test) == (0, 1)
    assert (second.num_missing_train, second.num_missing_test) == (1, 0)


def test_match_videos_to_json_counts_and_names(benchmark: Benchmark) -> None:
    records = [build_record(f"holiday_{n:02}.mp4") for n in range(30)]
    match = match_videos(benchmark, [*records, build_record("v_YoYo_g01_c01.avi")])
    values = json.loads(json.dumps(match.to_json()))
    assert (values["videos"], values["missing_videos"], values["extra_videos"]) == (1, 4, 30)
    assert values["extra"] == [f"holiday_{n:02}.mp4" for n in range(20)]
    assert values["splits"][0] == {"train": 0, "test": 1, "missing_train": 2, "missing_test": 1}


def test_match_videos_nothing_in_common_is_refused(benchmark: Benchmark) -> None:
    with pytest.raises(DataError, match="None of 1 videos"):
        match_videos(benchmark, [build_record("holiday.mp4")])


def test_match_videos_one_video_twice_is_refused(benchmark: Benchmark) -> None:
    records = [build_record("a/v_YoYo_g01_c01.avi"), build_record("b/v_YoYo_g01_c01.mp4")]
    with pytest.raises(DataError, match=r"/videos/a/v_YoYo.*/videos/b/v_YoYo"):
        match_videos(benchmark, records)


def test_find_ids_kinetics_ignores_seconds_but_not_case() -> None:
    kinetics = load_benchmark("kinetics400")
    names = ["abseiling/0wR5jVB-WPk_000417_000427.mp4", "0wR5jVB-WPk.mkv", "0WR5JVB-WPK.mp4"]
    assert find_ids(kinetics, names) == ("0wR5jVB-WPk", "0wR5jVB-WPk", None)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "kinetics400"])
def test_find_ids_every_published_video_is_found(name: str) -> None:
    benchmark = load_benchmark(name)
    ids = tuple(benchmark.label_by_id)
    assert find_ids(benchmark, [f"{benchmark.label_by_id[i]}/{i}.avi" for i in ids]) == ids


def test_find_ids_tell_which_videos_training_saw(benchmark: Benchmark) -> None:
    training = ["YoYo/v_YoYo_g08_c01.avi", "kinetics/0wR5jVB-WPk.mp4"]
    seen = [video_id for video_id in find_ids(benchmark, training) if video_id]
    found = find_transductive_reading(
        (), target_labels=benchmark.labels, training_ids=seen, target_ids=benchmark.label_by_id
    )
    assert (found.reading, found.num_shared_videos, found.num_videos) == ("videos", 1, 5)


@pytest.mark.skipif(
    not CLIPS.is_file(), reason="the real videos of ../shared/clips are not on this machine"
)
@pytest.mark.parametrize(("name", "label_set"), [("ucf101", "UCF101"), ("hmdb51", "HMDB51")])
def test_match_videos_real_files_agree_with_their_index(name: str, label_set: str) -> None:
    with CLIPS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    match = match_videos(load_benchmark(name), [build_record(row["file"]) for row in rows])
    for number, row in enumerate(rows):
        if row["label_set"] != label_set or not row["official_split1"]:
            continue
        if row["file"].startswith("UCF-101_"):  # not its published name
            assert row["file"] in match.extra
            continue
        assert match.labels[number] == row["label"]
        for split, role in zip(match.splits, (1, 2, 3), strict=True):
            side = row[f"official_split{role}"]
            assert (number in split.train_rows) == (side == "train")
            assert (number in split.test_rows) == (side == "test")
    assert len(match.rows) + len(match.extra) == len(rows)
