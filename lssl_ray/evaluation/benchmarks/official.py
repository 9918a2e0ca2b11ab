"""Splits from the files that the datasets publish, in their own formats.

UCF101 (`classInd.txt`, `trainlist01.txt`, `testlist01.txt`, ...), HMDB51
(`brush_hair_test_split1.txt`, ..., 70/30 per class) and Kinetics-400 (a CSV with `label` and
`youtube_id`). The package's own lists were made from these.
"""

import csv
from pathlib import Path

from lssl_ray.errors import DataError
from lssl_ray.evaluation.benchmarks import TEST, TRAIN, UNUSED, Benchmark, build_benchmark

NUM_SPLITS = 3
_HMDB_SUFFIX = "_test_split1.txt"


def load_splits_from(path: Path) -> Benchmark:
    """Read a dataset's official split files.

    Args:
        path: The folder that holds UCF101's or HMDB51's lists (or has the one folder that does), or
            an official CSV of Kinetics-400. Of the CSV's rows, those with split `train` are
            training videos, all others test videos.

    Raises:
        DataError: Nothing of a known format, or a file that is incomplete or contradicts itself.
    """
    if path.is_dir():
        for folder in (path, *sorted(part for part in path.iterdir() if part.is_dir())):
            if (folder / "testlist01.txt").is_file():
                return _load_ucf101(folder)
            if any(folder.glob(f"*{_HMDB_SUFFIX}")):
                return _load_hmdb51(folder)
    elif path.suffix == ".csv" and path.is_file():
        return _load_kinetics400(path)
    raise DataError(
        f"{path}: holds no official splits. Give a folder with UCF101's testlist01.txt or with "
        f"HMDB51's brush_hair{_HMDB_SUFFIX}, or a CSV of Kinetics-400 with the columns label and "
        "youtube_id."
    )


def _load_ucf101(folder: Path) -> Benchmark:
    """Lines are `Label/v_Label_g01_c01.avi`, in training lists followed by the class number."""
    labels: dict[str, str] = {}
    codes: dict[str, list[str]] = {}
    for number in range(NUM_SPLITS):
        for role, kind in ((TRAIN, "trainlist"), (TEST, "testlist")):
            path = folder / f"{kind}{number + 1:02}.txt"
            for line in _read_lines(path):
                label, _, file_name = line.split()[0].partition("/")
                if not file_name:
                    raise DataError(f"{path}: {line!r} must be `Label/file.avi`; give the original")
                video_id = Path(file_name).stem
                _note_label(labels, video_id, label, path)
                own = codes.setdefault(video_id, [UNUSED] * NUM_SPLITS)
                if own[number] != UNUSED:
                    raise DataError(
                        f"{path}: {file_name} is in split {number + 1} twice; give the original."
                    )
                own[number] = role
    return build_benchmark("ucf101", {key: (labels[key], "".join(codes[key])) for key in codes})


def _load_hmdb51(folder: Path) -> Benchmark:
    """A file per class and split; lines are `file.avi 0|1|2`."""
    names = sorted(path.name for path in folder.glob(f"*{_HMDB_SUFFIX}"))
    labels: dict[str, str] = {}
    codes: dict[str, list[str]] = {}
    for label in (name.removesuffix(_HMDB_SUFFIX) for name in names):
        for number in range(NUM_SPLITS):
            path = folder / f"{label}_test_split{number + 1}.txt"
            for line in _read_lines(path):
                file_name, _, role = line.strip().rpartition(" ")
                if role not in (UNUSED, TRAIN, TEST) or not file_name:
                    raise DataError(f"{path}: {line!r} must be `file.avi` and 0, 1 or 2.")
                video_id = Path(file_name).stem
                _note_label(labels, video_id, label, path)
                codes.setdefault(video_id, [UNUSED] * NUM_SPLITS)[number] = role
    return build_benchmark("hmdb51", {key: (labels[key], "".join(codes[key])) for key in codes})


def _load_kinetics400(path: Path) -> Benchmark:
    labels: dict[str, str] = {}
    roles: dict[str, tuple[str, str]] = {}
    rows = list(csv.DictReader(_read_lines(path)))
    for row in rows:
        label, video_id = row.get("label"), row.get("youtube_id")
        if not label or not video_id:
            raise DataError(
                f"{path}: every row needs a label and a youtube_id, this has {row}. Kinetics' test "
                "CSV has no labels: give the validation CSV."
            )
        _note_label(labels, video_id, label, path)
        roles[video_id] = (label, TRAIN if row.get("split") == "train" else TEST)
    return build_benchmark("kinetics400", roles)


def _note_label(labels: dict[str, str], video_id: str, label: str, path: Path) -> None:
    known = labels.setdefault(video_id, label)
    if known != label:
        raise DataError(f"{path}: {video_id} is {label!r} here and {known!r} before; keep one.")


def _read_lines(path: Path) -> list[str]:
    """Lines that are not empty, whatever their ends."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: can't be read ({error}); all official files of a dataset must be there."
        ) from error
    return [line for line in text.splitlines() if line.strip()]
