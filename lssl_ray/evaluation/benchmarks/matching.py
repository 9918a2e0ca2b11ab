"""A benchmark's videos among those of a manifest, by file name whatever the folder or extension.

The benchmark's labels are what counts; labels in the manifest are not looked at. Videos of a
manifest that a benchmark does not have are left out, and videos that the manifest lacks are counted
and named: a figure over a part of a benchmark must say so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lssl_ray.errors import DataError
from lssl_ray.evaluation.benchmarks import Benchmark
from lssl_ray.video.manifest import VideoRecord

NUM_NAMED = 20
# Kinetics' downloaders append the seconds: jf7RDuUTrsQ_000012_000022.mp4.
_KINETICS_TIMES = re.compile(r"_\d{6}_\d{6}$")


@dataclass(frozen=True)
class SplitMatch:
    """One split, as far as the manifest has its videos.

    Attributes:
        train_rows: Row numbers of the training videos, ascending.
        test_rows: Row numbers of the test videos, ascending.
        num_missing_train: Training videos that the manifest lacks.
        num_missing_test: Test videos that the manifest lacks.
    """

    train_rows: tuple[int, ...]
    test_rows: tuple[int, ...]
    num_missing_train: int
    num_missing_test: int


@dataclass(frozen=True)
class BenchmarkMatch:
    """A benchmark's videos in a manifest.

    Attributes:
        name: The benchmark.
        labels: Per row of the manifest, the published label; None for an extra video.
        rows: Row numbers of all the benchmark's videos: the full set.
        splits: The official splits.
        missing: Ids of the benchmark's videos that the manifest lacks, sorted.
        extra: video_id of the manifest's videos that the benchmark does not have, in its order.
    """

    name: str
    labels: tuple[str | None, ...]
    rows: tuple[int, ...]
    splits: tuple[SplitMatch, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files: counts, and the first twenty names of either kind."""
        return {
            "benchmark": self.name,
            "videos": len(self.rows),
            "missing_videos": len(self.missing),
            "missing": list(self.missing[:NUM_NAMED]),
            "extra_videos": len(self.extra),
            "extra": list(self.extra[:NUM_NAMED]),
            "splits": [
                {
                    "train": len(split.train_rows),
                    "test": len(split.test_rows),
                    "missing_train": split.num_missing_train,
                    "missing_test": split.num_missing_test,
                }
                for split in self.splits
            ],
        }


def find_ids(benchmark: Benchmark, video_ids: Sequence[str]) -> tuple[str | None, ...]:
    """The benchmark's id of each video file; None where it is not one of the benchmark's.

    UCF101's and HMDB51's names are compared without regard to case (releases differ in it:
    HandStandPushups), Kinetics' without the seconds that downloaders append.

    Args:
        benchmark: From the package or from official files.
        video_ids: Paths or `VideoRecord.video_id`, with extensions.
    """

    def fold(stem: str) -> str:
        if benchmark.name == "kinetics400":
            return _KINETICS_TIMES.sub("", stem)
        return stem.casefold()

    published = {fold(video_id): video_id for video_id in benchmark.label_by_id}
    return tuple(published.get(fold(PurePosixPath(video_id).stem)) for video_id in video_ids)


def match_videos(benchmark: Benchmark, records: Sequence[VideoRecord]) -> BenchmarkMatch:
    """Find a benchmark's videos among records and give each split as row numbers.

    Args:
        benchmark: From the package or from official files.
        records: Rows of a manifest, in the order that row numbers mean.

    Raises:
        DataError: No video matches, or two records are the same video of the benchmark.
    """
    row_by_id: dict[str, int] = {}
    labels: list[str | None] = []
    extra = []
    ids = find_ids(benchmark, [record.video_id for record in records])
    for row, (record, video_id) in enumerate(zip(records, ids, strict=True)):
        if video_id is None:
            extra.append(record.video_id)
            labels.append(None)
            continue
        other = row_by_id.setdefault(video_id, row)
        if other != row:
            raise DataError(
                f"{records[other].path} and {record.path} are both {benchmark.name}'s {video_id}; "
                "index a folder that holds each video once."
            )
        labels.append(benchmark.label_by_id[video_id])
    if not row_by_id:
        example = next(iter(benchmark.label_by_id))
        raise DataError(
            f"None of {len(records)} videos in the manifest is one of the "
            f"{len(benchmark.label_by_id)} of {benchmark.name} (such as {example}). Index the "
            "folder with the dataset's videos under their published file names, or evaluate the "
            "manifest as an own benchmark."
        )

    def find_rows(ids: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted(row_by_id[video_id] for video_id in ids if video_id in row_by_id))

    splits = []
    for split in benchmark.splits:
        train, test = find_rows(split.train_ids), find_rows(split.test_ids)
        splits.append(
            SplitMatch(
                train_rows=train,
                test_rows=test,
                num_missing_train=len(split.train_ids) - len(train),
                num_missing_test=len(split.test_ids) - len(test),
            )
        )
    return BenchmarkMatch(
        name=benchmark.name,
        labels=tuple(labels),
        rows=tuple(sorted(row_by_id.values())),
        splits=tuple(splits),
        missing=tuple(video_id for video_id in benchmark.label_by_id if video_id not in row_by_id),
        extra=tuple(extra),
    )
