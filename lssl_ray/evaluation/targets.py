"""What is evaluated: videos, their right names, the names to choose from, and the divisions.

A target lists every video that should be scored, decodable or not, so that nothing disappears from
the counts. Made from an own manifest (its columns `label` and `split`) or from a benchmark's
official splits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lssl_ray.concepts.bank import load_bank, resolve_label
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.evaluation.benchmarks import Benchmark, load_benchmark
from lssl_ray.evaluation.benchmarks.matching import find_ids, match_videos
from lssl_ray.video.manifest import VideoRecord

OWN = "own"
TRAIN_SPLIT = "train"
ALL_SPLITS = "all"
FULL, SINGLE = "full set", "all videos"


@dataclass(frozen=True)
class Division:
    """Which videos teach a probe and which are scored.

    Attributes:
        name: For people: `split 1`, `val`.
        train: Row numbers of the target; none for what needs no training.
        test: Row numbers of the target.
    """

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """An evaluation's videos.

    Attributes:
        benchmark: `own`, `ucf101`, `hmdb51` or `kinetics400`.
        video_ids: Every video that takes part, in manifest order.
        truth: The right name of each, one of `labels`.
        labels: Names that may be predicted.
        divisions: At least one.
        has_full: Whether all videos are reported as one set beside the divisions.
        coverage: What of the benchmark the manifest has and lacks; None for an own manifest.
        num_unlabelled: Videos left out because they have no label, as asked for.
    """

    benchmark: str
    video_ids: tuple[str, ...]
    truth: tuple[str, ...]
    labels: tuple[str, ...]
    divisions: tuple[Division, ...]
    has_full: bool = False
    coverage: dict[str, Any] | None = None
    num_unlabelled: int = 0


def build_own_target(
    records: Sequence[VideoRecord],
    *,
    labels: Sequence[str] | None,
    split: str | None,
    needs_training: bool,
    skip_unlabelled: bool = False,
) -> Target:
    """A target from a manifest's own labels and splits.

    Videos of split `train` teach probes; the other split (or the one that is named) is scored.
    Without probes and without a named split, all videos are scored.

    Args:
        records: All rows, bad ones included.
        labels: Names that may be predicted; None takes those of the videos.
        split: Split to score.
        needs_training: Whether a protocol needs training videos.
        skip_unlabelled: Leave videos without label out instead of refusing.

    Raises:
        DataError: No labels, labels that are not in the list, or splits that don't do.
    """
    labelled = [record for record in records if record.label is not None]
    num_unlabelled = len(records) - len(labelled)
    if not labelled or (num_unlabelled and not skip_unlabelled):
        raise DataError(
            f"{num_unlabelled} of {len(records)} videos of the evaluation manifest have no label. "
            "Index them again with --labels folders or --labels FILE.csv, or leave them out with "
            "--skip-unlabelled."
        )
    scored = _choose_split(labelled, split=split, needs_training=needs_training)
    taken = [
        record
        for record in labelled
        if scored is None
        or record.split == scored
        or (needs_training and record.split == TRAIN_SPLIT)
    ]
    known = tuple(labels or sorted({str(record.label) for record in labelled}))
    truth = _resolve([str(record.label) for record in taken], known)
    rows = range(len(taken))
    test = [row for row in rows if scored is None or taken[row].split == scored]
    train = [row for row in rows if needs_training and taken[row].split == TRAIN_SPLIT]
    return Target(
        benchmark=OWN,
        video_ids=tuple(record.video_id for record in taken),
        truth=truth,
        labels=known,
        divisions=(Division(scored or SINGLE, tuple(train), tuple(test)),),
        num_unlabelled=num_unlabelled,
    )


def build_benchmark_target(
    name: str,
    records: Sequence[VideoRecord],
    *,
    split: str | None,
    needs_training: bool,
    needs_splits: bool,
    num_own_training: int = 0,
    skip_unlabelled: bool = False,
) -> Target:
    """A target from a benchmark's official labels and splits; the manifest's own are not looked at.

    Only where the package has no training list (Kinetics-400) do own videos teach, by their labels.

    Args:
        name: `ucf101`, `hmdb51` or `kinetics400`.
        records: All rows, bad ones included; own training videos last.
        split: `1`, `2`, `3` or `all`; None is `all` for what needs no training, else `1`.
        needs_training: Whether a protocol needs training videos.
        needs_splits: Whether a protocol is reported over all splits and on the full set.
        num_own_training: How many of the last rows are own training videos.
        skip_unlabelled: Leave own training videos without label out instead of refusing.

    Raises:
        ConfigError: No such split, or own training videos for a benchmark that has a training list.
        DataError: None of the benchmark's videos is there, or none of a split; or own training
            videos without label, with an unknown one, or that are to be scored.
    """
    benchmark = load_benchmark(name)
    num_official = len(records) - num_own_training
    match = match_videos(benchmark, records[:num_official])
    split = split or (ALL_SPLITS if needs_splits else "1")
    numbers = [str(number) for number in range(1, len(match.splits) + 1)]
    if split not in (*numbers, ALL_SPLITS):
        raise ConfigError(f"--split {split}: {name} has {', '.join(numbers)} and {ALL_SPLITS}.")
    chosen = numbers if split == ALL_SPLITS else [split]
    own = _find_own_training(
        benchmark,
        records,
        first=num_official,
        skip_unlabelled=skip_unlabelled,
        needed=needs_training,
    )
    has_full = split == ALL_SPLITS and len(numbers) > 1 and needs_splits
    divisions = []
    for number in chosen:
        part = match.splits[int(number) - 1]
        train = (own or part.train_rows) if needs_training else ()
        empty = [kind for kind, rows in (("test", part.test_rows),) if not rows]
        empty += ["training"] if needs_training and not train else []
        if empty:
            raise DataError(
                f"{name} split {number}: the manifest has no {' and no '.join(empty)} video of it. "
                "Index more of the benchmark's videos, or choose another --split."
            )
        title = f"split {number}, own training" if own else f"split {number}"
        divisions.append((title, train, part.test_rows))
    rows = sorted(
        set(match.rows if has_full else ()).union(
            *(set(train) | set(test) for _, train, test in divisions)
        )
    )
    place = {row: index for index, row in enumerate(rows)}
    labels = load_bank(name).labels
    names = [*match.labels, *(record.label for record in records[num_official:])]
    return Target(
        benchmark=name,
        video_ids=tuple(records[row].video_id for row in rows),
        truth=_resolve([str(names[row]) for row in rows], labels),
        labels=labels,
        divisions=tuple(
            Division(title, tuple(place[row] for row in train), tuple(place[row] for row in test))
            for title, train, test in divisions
        ),
        has_full=has_full,
        coverage={**match.to_json(), "own_training_videos": len(own)},
        num_unlabelled=num_own_training - len(own),
    )


def _find_own_training(
    benchmark: Benchmark,
    records: Sequence[VideoRecord],
    *,
    first: int,
    skip_unlabelled: bool,
    needed: bool,
) -> tuple[int, ...]:
    """Rows of own videos that teach: from `first` on, those with a label; none is to be scored."""
    name = benchmark.name
    has_list = any(split.train_ids for split in benchmark.splits)
    if first == len(records):
        if needed and not has_list:
            raise DataError(
                f"The package has no training list of {name}. Give labelled training videos of "
                "your own with --train-manifest MANIFEST (lssl-ray data index VIDEOS --labels "
                "LIST.csv), named as the benchmark names its labels."
            )
        return ()
    if has_list:
        raise ConfigError(f"--train-manifest: {name} has official training lists; leave it out.")
    taken = tuple(row for row in range(first, len(records)) if records[row].label is not None)
    num_unlabelled = len(records) - first - len(taken)
    if not taken or (num_unlabelled and not skip_unlabelled):
        raise DataError(
            f"{num_unlabelled} of {len(records) - first} videos of --train-manifest have no label. "
            "Index them again with --labels, or leave them out with --skip-unlabelled."
        )
    scored = {video_id for split in benchmark.splits for video_id in split.test_ids}
    found = find_ids(benchmark, [records[row].video_id for row in taken])
    shared = [video_id for video_id in found if video_id in scored]
    if shared:
        raise DataError(
            f"{len(shared)} videos of --train-manifest are test videos of {name} (such as "
            f"{shared[0]}); a probe must not learn from what is scored. Leave them out."
        )
    return taken


def _choose_split(
    records: Sequence[VideoRecord], *, split: str | None, needs_training: bool
) -> str | None:
    known = sorted({record.split for record in records if record.split is not None})
    if split is not None and split not in known:
        raise DataError(
            f"--split {split}: no labelled video of the manifest is in it; its splits are "
            f"{', '.join(known) or 'none'}. Index with --split NAME, one manifest per split."
        )
    if not needs_training:
        return split
    others = [name for name in known if name != TRAIN_SPLIT]
    if TRAIN_SPLIT not in known or not others:
        raise DataError(
            f"Probes, k-NN and few-shot learn from split {TRAIN_SPLIT!r} and are scored on another "
            f"one; the manifest has the splits {', '.join(known) or 'none'}. Index each part with "
            "--split train and --split val, and give both manifests."
        )
    if split is None and len(others) > 1:
        raise DataError(f"Which split is to be scored: {', '.join(others)}? Say it with --split.")
    if split == TRAIN_SPLIT:
        raise DataError(f"--split {TRAIN_SPLIT} would score the videos that were learnt from.")
    return split or others[0]


def _resolve(names: Sequence[str], labels: Collection[str]) -> tuple[str, ...]:
    """Names as the label list says them.

    Raises:
        DataError: Names that it does not have.
    """
    known = set(labels)
    resolved = [resolve_label(name, known) for name in names]
    unknown = sorted(set(resolved) - known)
    if unknown:
        raise DataError(
            f"These labels of the videos are not in the label list: {unknown[:5]} ({len(unknown)} "
            f"in all). The list knows: {sorted(known)[:5]} ... Name them alike, or, "
            "with --benchmark own, give the videos' own list with --labels."
        )
    return tuple(resolved)
