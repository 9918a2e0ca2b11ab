"""Features kept on disk by what they were made of: the same request decodes and encodes nothing.

An entry is `KEY.safetensors` (the numbers) and `KEY.json` (what they are of, the videos that did
not decode, and the digest of the first; written last). KEY is a digest of encoder, view, videos and
the version of the view arithmetic. A damaged or half-written entry counts as absent and is counted;
an entry that says it is another model's is refused, because nobody but a person puts it there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from lssl_ray.errors import DataError
from lssl_ray.evaluation.features import ViewFeatures
from lssl_ray.evaluation.views import VIEW_ARITHMETIC_VERSION, EvaluationView
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest

FORMAT_VERSION = 1
# What decoding and cutting a video depend on; the path is not among them, folders may move.
_VIDEO_COLUMNS = (
    "video_id", "size_bytes", "mtime_ns", "num_frames", "width", "height", "rotation", "reader",
)  # fmt: skip


@dataclass(frozen=True)
class FeatureKey:
    """All that decides the features of a set of videos.

    Attributes:
        encoder_digest: Of weights and architecture.
        view: How each video is looked at.
        short_side: Larger pictures are reduced to it on decoding, px.
        videos_digest: From `compute_videos_digest`.
    """

    encoder_digest: str
    view: EvaluationView
    short_side: int
    videos_digest: str

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "format": FORMAT_VERSION,
            "view_arithmetic": VIEW_ARITHMETIC_VERSION,
            **asdict(self),
        }

    def name(self) -> str:
        """What the entry's files are called."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FeatureSet:
    """Features of a set of videos under one encoder and view.

    Attributes:
        video_ids: The videos that decoded, in manifest order.
        features: In their order; None when none decoded.
        failures: The videos that did not decode.
    """

    video_ids: tuple[str, ...]
    features: ViewFeatures | None
    failures: tuple[ClipFailure, ...]


class FeatureCache:
    """Entries in one folder.

    Attributes:
        num_hits: Entries that were found.
        num_damaged: Entries that were found damaged or half-written, and are made again.

    Args:
        folder: Made when the first entry is saved; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.num_hits = 0
        self.num_damaged = 0
        self._folder = folder

    def load(self, key: FeatureKey) -> FeatureSet | None:
        """An entry, or None when it is not there or not whole.

        Raises:
            DataError: The file under this key says it is of another model, view or set of videos.
        """
        if self._folder is None:
            return None
        tensors, index = _find_files(self._folder, key)
        if not tensors.exists() and not index.exists():
            return None
        try:
            said = json.loads(index.read_text(encoding="utf-8"))
            content = tensors.read_bytes()
            if hashlib.sha256(content).hexdigest() != said["sha256"]:
                raise ValueError("the numbers are not those that were written")
            found = _read_set(said, load(content))
            made_of = dict(said["key"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            self.num_damaged += 1
            return None
        _require_same(made_of, key, index)
        self.num_hits += 1
        return found

    def save(self, key: FeatureKey, features: FeatureSet) -> None:
        """Keep an entry, whole or not at all.

        Raises:
            DataError: The folder can't be written.
        """
        if self._folder is None:
            return
        tensors, index = _find_files(self._folder, key)
        values = {} if features.features is None else vars(features.features)
        content = save({name: value.contiguous() for name, value in values.items()})
        text = json.dumps(
            {
                "key": key.to_json(),
                "sha256": hashlib.sha256(content).hexdigest(),
                "video_ids": features.video_ids,
                "failures": [asdict(failure) for failure in features.failures],
            }
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            index.unlink(missing_ok=True)  # no moment when it speaks of other numbers
            _write_whole(tensors, lambda path: path.write_bytes(content))
            _write_whole(index, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"{self._folder}: features can't be kept ({error.strerror or error}); choose "
                "another place with --cache DIR, or keep none with --no-cache."
            ) from error


def compute_videos_digest(manifest: Manifest) -> str:
    """SHA-256 of what decoding a manifest's videos depends on, in row order."""
    rows = manifest.table.select(_VIDEO_COLUMNS).to_pydict()
    state = hashlib.sha256()
    for row in zip(*rows.values(), strict=True):
        state.update(json.dumps(row).encode())
    return state.hexdigest()


def join_sets(sets: Mapping[str, FeatureSet]) -> tuple[FeatureSet, dict[str, ViewFeatures]]:
    """Sets of the same videos cut down to those that decoded for all of them.

    Args:
        sets: By any name; their videos in one order.

    Returns:
        The common videos with all failures (its own features are None), and features by name;
        no features when no video is common.
    """
    common = set.intersection(*(set(part.video_ids) for part in sets.values()))
    failures = {failure.video_id: failure for part in sets.values() for failure in part.failures}
    first = next(iter(sets.values()))
    ids = tuple(video_id for video_id in first.video_ids if video_id in common)
    features = {
        name: _select(part, common) for name, part in sets.items() if part.features is not None
    }
    joined = FeatureSet(video_ids=ids, features=None, failures=tuple(failures.values()))
    return joined, features if ids else {}


def _select(part: FeatureSet, kept: set[str]) -> ViewFeatures:
    assert part.features is not None
    rows = [row for row, video_id in enumerate(part.video_ids) if video_id in kept]
    return part.features.select(rows)


def _find_files(folder: Path, key: FeatureKey) -> tuple[Path, Path]:
    name = key.name()
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def _read_set(said: Mapping[str, Any], tensors: Mapping[str, Any]) -> FeatureSet:
    ids = tuple(said["video_ids"])
    features = ViewFeatures(joint=tensors["joint"], pooled=tensors["pooled"]) if ids else None
    if features is not None and not len(features.joint) == len(features.pooled) == len(ids):
        raise ValueError("as many rows as videos are needed")
    return FeatureSet(
        video_ids=ids,
        features=features,
        failures=tuple(ClipFailure(**failure) for failure in said["failures"]),
    )


def _require_same(said: Mapping[str, Any], key: FeatureKey, path: Path) -> None:
    wanted: dict[str, Any] = json.loads(json.dumps(key.to_json()))
    differing = [name for name in wanted if said.get(name) != wanted[name]]
    if "encoder_digest" in differing:
        raise DataError(
            f"{path} holds features of another model ({str(said.get('encoder_digest'))[:12]}, "
            f"not {key.encoder_digest[:12]}). It was put there under this model's name: delete it, "
            "or name another folder with --cache DIR."
        )
    if differing:
        raise DataError(
            f"{path} holds features that differ in {', '.join(differing)} from what its name "
            "says; delete it, or name another folder with --cache DIR."
        )


def _write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
