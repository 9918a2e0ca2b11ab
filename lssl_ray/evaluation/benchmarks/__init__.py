"""Official label lists and train/test splits of UCF101, HMDB51 and Kinetics-400.

They are packaged as published (see README.md beside this file), so an evaluation needs the videos
only. `official` reads the published files themselves; `matching` finds a benchmark's videos in a
manifest.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lssl_ray.concepts.bank import DATASETS, load_published_names
from lssl_ray.errors import DataError
from lssl_ray.whole_files import replacing

# What a video is in a split, as HMDB51's own files say it.
UNUSED, TRAIN, TEST = "0", "1", "2"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Split:
    """One division into training and test videos.

    Attributes:
        train_ids: Ids of the training videos, sorted; none where a benchmark packages none.
        test_ids: Ids of the test videos, sorted.
    """

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A dataset's labels and splits. A video's id is its published file name without extension.

    Attributes:
        name: `ucf101`, `hmdb51` or `kinetics400`.
        labels: Published class names, in published order.
        label_by_id: Every video's label, those included that no split uses; read only.
        splits: The official splits.
    """

    name: str
    labels: tuple[str, ...]
    label_by_id: Mapping[str, str]
    splits: tuple[Split, ...]


@cache
def load_benchmark(name: str) -> Benchmark:
    """A benchmark of the package.

    UCF101 and HMDB51 have their three train/test splits, Kinetics-400 its validation list as one
    test split without training videos.

    Raises:
        DataError: No such benchmark.
    """
    if name not in DATASETS:
        raise DataError(
            f"There is no benchmark {name!r} in the package; it has {', '.join(DATASETS)}. Read "
            "other official files with load_splits_from, or evaluate an own manifest."
        )
    lines = gzip.decompress((_FOLDER / f"{name}.tsv.gz").read_bytes()).decode().splitlines()
    roles = {}
    for line in lines:
        label, video_id, codes = line.split("\t")
        roles[video_id] = (label, codes)
    return build_benchmark(name, roles)


def build_benchmark(name: str, roles: Mapping[str, tuple[str, str]]) -> Benchmark:
    """A benchmark from what each video is.

    Args:
        name: One of the bank's datasets, whose published labels it takes.
        roles: Video id to its label and, per split, `0` unused, `1` training or `2` test.

    Raises:
        DataError: A label that the dataset does not publish, or no video.
    """
    labels = tuple(load_published_names(name))
    unknown = sorted({label for label, _ in roles.values()} - set(labels))
    if unknown or not roles:
        raise DataError(
            f"{len(roles)} videos of {name}, with labels that it does not have: {unknown[:5]} "
            f"({len(unknown)} in all). Its labels are {', '.join(labels[:3])} ... Give the "
            "official files of this dataset."
        )
    num_splits = len(next(iter(roles.values()))[1])
    ids = sorted(roles)

    def select(split: int, role: str) -> tuple[str, ...]:
        return tuple(video_id for video_id in ids if roles[video_id][1][split] == role)

    return Benchmark(
        name=name,
        labels=labels,
        label_by_id={video_id: roles[video_id][0] for video_id in ids},
        splits=tuple(Split(select(n, TRAIN), select(n, TEST)) for n in range(num_splits)),
    )


def save_benchmark(benchmark: Benchmark, folder: Path) -> Path:
    """Write a benchmark as the package holds it: `NAME.tsv.gz`, a line per video."""
    codes = {video_id: [UNUSED] * len(benchmark.splits) for video_id in benchmark.label_by_id}
    for number, split in enumerate(benchmark.splits):
        for role, ids in ((TRAIN, split.train_ids), (TEST, split.test_ids)):
            for video_id in ids:
                codes[video_id][number] = role
    order = {label: place for place, label in enumerate(benchmark.labels)}
    rows = sorted(benchmark.label_by_id.items(), key=lambda row: (order[row[1]], row[0]))
    text = "".join(f"{label}\t{video_id}\t{''.join(codes[video_id])}\n" for video_id, label in rows)
    path = folder / f"{benchmark.name}.tsv.gz"
    with replacing(path) as unfinished:
        # No time stamp: the same benchmark is the same file.
        unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path
