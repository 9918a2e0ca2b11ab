"""Which videos are scored, which teach: own manifests and official splits."""

from collections.abc import Callable

import pytest
from video_records import build_record

from lssl_ray.errors import ConfigError, DataError
from lssl_ray.evaluation.targets import Target, build_benchmark_target, build_own_target
from lssl_ray.video.manifest import VideoRecord

BuildRecords = Callable[..., list[VideoRecord]]


@pytest.fixture
def build_records() -> BuildRecords:
    """Builds made-up rows: `id=(label, split)`, or a list of names without either."""

    def build(*names: str, **rows: tuple[str | None, str | None]) -> list[VideoRecord]:
        named = {name: (None, None) for name in names} | rows
        return [
            build_record(name, label=label, split=split) for name, (label, split) in named.items()
        ]

    return build


def test_build_own_target_without_probes_scores_everything(build_records: BuildRecords) -> None:
    records = build_records(w=("a", "train"), x=("b", "val"), y=("a", None))
    target = build_own_target(records, labels=("b", "a", "c"), split=None, needs_training=False)
    assert target.video_ids == ("w", "x", "y") and target.truth == ("a", "b", "a")
    assert target.labels == ("b", "a", "c")
    (division,) = target.divisions
    assert (division.train, division.test) == ((), (0, 1, 2))


def test_build_own_target_with_probes_learns_from_train_and_scores_the_other(
    build_records: BuildRecords,
) -> None:
    records = build_records(
        v=("a", None), w=("a", "val"), x=("b", "train"), y=("a", "train"), z=("b", "val")
    )
    target = build_own_target(records, labels=None, split=None, needs_training=True)
    (division,) = target.divisions
    assert [target.video_ids[row] for row in division.train] == ["x", "y"]
    assert [target.video_ids[row] for row in division.test] == ["w", "z"]
    assert division.name == "val" and target.labels == ("a", "b")


def test_build_own_target_several_scored_splits_must_be_chosen_from(
    build_records: BuildRecords,
) -> None:
    records = build_records(w=("a", "train"), x=("b", "val"), y=("a", "test"))
    with pytest.raises(DataError, match="test, val"):
        build_own_target(records, labels=None, split=None, needs_training=True)
    target = build_own_target(records, labels=None, split="test", needs_training=True)
    assert target.video_ids == ("w", "y")
    with pytest.raises(DataError, match="learnt from"):
        build_own_target(records, labels=None, split="train", needs_training=True)


def test_build_own_target_unlabelled_are_refused_or_left_out_and_counted(
    build_records: BuildRecords,
) -> None:
    records = build_records(w=("a", None), x=(None, None))
    with pytest.raises(DataError, match="1 of 2"):
        build_own_target(records, labels=None, split=None, needs_training=False)
    target = build_own_target(
        records, labels=None, split=None, needs_training=False, skip_unlabelled=True
    )
    assert target.video_ids == ("w",) and target.num_unlabelled == 1
    with pytest.raises(DataError, match="1 of 1"):
        build_own_target(
            records[1:], labels=None, split=None, needs_training=False, skip_unlabelled=True
        )


def test_build_own_target_unknown_labels_are_named(build_records: BuildRecords) -> None:
    records = build_records(w=("a", None), x=("juggling", None))
    with pytest.raises(DataError, match=r"\['juggling'\]"):
        build_own_target(records, labels=("a", "b"), split=None, needs_training=False)


def test_build_own_target_published_names_mean_the_bank_phrases(
    build_records: BuildRecords,
) -> None:
    records = build_records(w=("ApplyEyeMakeup", None))
    labels = ("applying eye makeup", "archery")
    target = build_own_target(records, labels=labels, split=None, needs_training=False)
    assert target.truth == ("applying eye makeup",)


def test_build_benchmark_target_all_splits_and_the_full_set(build_records: BuildRecords) -> None:
    # In UCF101 groups 1 to 7 are test in split 1, 8 to 14 in split 2, 15 to 21 in split 3.
    records = build_records(
        "x/v_Archery_g01_c01.avi", "v_Archery_g08_c01.mp4", "v_Archery_g15_c01.avi",
        "v_Archery_g25_c01.avi", "holiday.mp4",
    )  # fmt: skip
    target = build_benchmark_target(
        "ucf101", records, split=None, needs_training=False, needs_splits=True
    )
    assert target.has_full and len(target.truth) == 4 and set(target.truth) == {"archery"}
    tests = [[target.video_ids[row] for row in one.test] for one in target.divisions]
    assert tests == [[records[0].video_id], [records[1].video_id], [records[2].video_id]]
    assert all(one.train == () for one in target.divisions)
    assert target.coverage is not None and target.coverage["extra"] == ["holiday.mp4"]
    assert len(target.labels) == 101


def test_build_benchmark_target_probes_take_split_1_with_its_training_videos(
    build_records: BuildRecords,
) -> None:
    records = build_records("v_Archery_g01_c01.avi", "v_Archery_g08_c01.avi")
    target = build_benchmark_target(
        "ucf101", records, split=None, needs_training=True, needs_splits=False
    )
    (division,) = target.divisions
    assert (division.name, division.train, division.test) == ("split 1", (1,), (0,))
    assert not target.has_full


def test_build_benchmark_target_empty_or_unknown_split_is_refused(
    build_records: BuildRecords,
) -> None:
    records = build_records("v_Archery_g01_c01.avi")
    arguments = {"needs_training": False, "needs_splits": True}
    with pytest.raises(DataError, match="split 2"):
        build_benchmark_target("ucf101", records, split="2", **arguments)
    with pytest.raises(ConfigError, match="1, 2, 3"):
        build_benchmark_target("ucf101", records, split="4", **arguments)
    with pytest.raises(DataError, match="no training"):
        build_benchmark_target(
            "ucf101", records, split="1", needs_training=True, needs_splits=False
        )


def build_kinetics(*own: VideoRecord, needs_training: bool = True, **options: bool) -> Target:
    """Two of Kinetics-400's validation videos and own training videos."""
    scored = [build_record(f"val/{name}.mp4") for name in ("0wR5jVB-WPk", "3caPS4FHFF8")]
    return build_benchmark_target(
        "kinetics400",
        [*scored, *own],
        split=None,
        needs_training=needs_training,
        needs_splits=False,
        num_own_training=len(own),
        **options,
    )


def test_build_benchmark_target_own_videos_teach_where_no_list_is_packaged() -> None:
    own = [
        build_record("a.mp4", label="yoga"),
        build_record("b.mp4"),
        build_record("c.mp4", label="abseiling"),
    ]
    with pytest.raises(DataError, match="1 of 3"):
        build_kinetics(*own)
    target = build_kinetics(*own, skip_unlabelled=True)
    (division,) = target.divisions
    assert [target.video_ids[row] for row in division.train] == ["a.mp4", "c.mp4"]
    assert [target.truth[row] for row in division.train] == ["yoga", "abseiling"]
    assert [target.truth[row] for row in division.test] == ["abseiling"] * 2
    assert "own" in division.name and len(target.labels) == 400
    assert target.coverage is not None and target.coverage["own_training_videos"] == 2
    assert (target.coverage["extra_videos"], target.num_unlabelled) == (0, 1)


def test_build_benchmark_target_own_training_videos_that_wont_do_are_refused() -> None:
    with pytest.raises(DataError, match="--train-manifest"):
        build_kinetics()
    with pytest.raises(DataError, match="juggling with knives"):
        build_kinetics(build_record("a.mp4", label="juggling with knives"))
    # A test video under its name with seconds, whatever its label says.
    with pytest.raises(DataError, match="test videos"):
        build_kinetics(
            build_record("t/tV8bCZgoYBc_000001_000011.mp4", label="yoga"),
            build_record("3caPS4FHFF8_000036_000046.mkv", label="yoga"),
        )
    with pytest.raises(ConfigError, match="official"):
        build_benchmark_target(
            "ucf101",
            [build_record("v_Archery_g01_c01.avi"), build_record("a.mp4", label="Archery")],
            split="1",
            needs_training=True,
            needs_splits=False,
            num_own_training=1,
        )


def test_build_benchmark_target_without_probes_needs_no_training_list() -> None:
    target = build_kinetics(needs_training=False)
    assert [division.name for division in target.divisions] == ["split 1"]
