"""What using a model on video files gives back: an outcome for every file, good or bad."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.recipe import DecodeSettings


@dataclass(frozen=True)
class VideoFeatures:
    """Features of video files, one row for each file that was asked for.

    Attributes:
        paths: The files, as given.
        features: Unit-length rows in the order of `paths`; NaN where a file gave no frames.
        failures: Per file None, or why it gave no frames.
    """

    paths: tuple[str, ...]
    features: Float[Tensor, "videos embedding"]
    failures: tuple[ClipFailure | None, ...]

    def require_all(self) -> Float[Tensor, "videos embedding"]:
        """The features, when every file gave some.

        Raises:
            DataError: Files that gave none, with their reasons.
        """
        bad = [f"{item.path}: {item.reason} ({item.detail})" for item in self.failures if item]
        if bad:
            raise DataError(
                f"{len(bad)} of {len(self.paths)} videos gave no frames: {'; '.join(bad[:5])}. "
                "Leave them out, or handle `failures`."
            )
        return self.features


@dataclass(frozen=True)
class Prediction:
    """What a model takes a video for.

    Attributes:
        path: The file, as given.
        labels: The best labels, best first; empty when the file gave no frames.
        scores: Their share of the softmax over all labels, in [0, 1].
        failure: None, or why the file gave no frames.
    """

    path: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    failure: ClipFailure | None


def list_paths(paths: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One path or several as texts."""
    return (str(paths),) if isinstance(paths, str | Path) else tuple(map(str, paths))


def open_decoder(settings: DecodeSettings) -> DecodeProcess:
    """A decoding process with these settings; it starts with its first request."""
    return DecodeProcess(
        deadline_seconds=settings.deadline_seconds,
        recycle_after=settings.recycle_after,
        short_side=settings.short_side,
        memory_limit_mib=settings.memory_limit_mib,
    )


def probe_file(process: DecodeProcess, path: str) -> VideoRecord | ClipFailure:
    """What decoding needs to know of a file that is in no manifest, or why it can't be had."""
    try:
        probe = process.probe(path)
    except DecodeError as error:
        return ClipFailure(
            video_id=path,
            path=path,
            reason=error.reason,
            detail=error.detail,
            seconds=round(error.seconds, 3),
            epoch=0,
        )
    return VideoRecord(
        video_id=path,
        path=path,
        label=None,
        split=None,
        status="ok",
        reason=None,
        size_bytes=0,
        mtime_ns=0,
        **vars(probe),
    )
