"""Decoding some clips of a manifest as a run would: does this machine open its videos?

The data path's own `ClipDecoder` and child process; not here: which machine does it.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lssl_ray.doctor.findings import Finding
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, FailedClip
from lssl_ray.video.recipe import DecodeSettings, ViewRecipe
from lssl_ray.video.remote import has_scheme

NUM_TRIED = 3


@dataclass(frozen=True)
class Trial:
    """One clip.

    Attributes:
        path: Of the video.
        reader: That the manifest names for it.
        seconds: That it took.
        failure: Reason and detail; None when all views came.
    """

    path: str
    reader: str
    seconds: float
    failure: str | None


def choose_videos(manifest: Manifest, *, count: int = NUM_TRIED) -> Manifest:
    """The first video of each reader, then the first ones.

    Args:
        manifest: Usable videos; at least one.
        count: At most so many.
    """
    readers = np.asarray(manifest.table["reader"].to_pylist())
    firsts = sorted(np.unique(readers, return_index=True)[1].tolist())
    rows = list(dict.fromkeys([*firsts, *range(min(count, len(readers)))]))[:count]
    return Manifest(manifest.table.take(rows).combine_chunks(), root=manifest.root)


def try_clips(
    manifest: Manifest, *, recipe: ViewRecipe, settings: DecodeSettings, seed: int
) -> list[Trial]:
    """Decode and cut one clip of every video.

    Args:
        manifest: A few usable videos.
        recipe: The run's views.
        settings: How it opens videos.
        seed: Of the run.

    Raises:
        DecoderUnavailableError: No decode process can be started, or a reader is missing.
    """
    trials = []
    with ClipDecoder(manifest, recipe=recipe, settings=settings, seed=seed) as decoder:
        for video in range(len(manifest)):
            record, started = manifest.row(video), time.monotonic()
            clip = decoder.decode(ClipVisit(position=video, epoch=0, video=video))
            seconds, failure = time.monotonic() - started, None
            if isinstance(clip, FailedClip):
                failure = f"{clip.failure.reason}, {clip.failure.detail}"
            trials.append(Trial(record.path, record.reader, seconds, failure))
    return trials


def judge_decoding(trials: Sequence[Trial], *, where: str) -> Finding:
    """Whether videos open on a machine that decodes.

    Args:
        trials: At least one.
        where: Its name.
    """
    failed = [f"{trial.path}: {trial.failure}" for trial in trials if trial.failure is not None]
    if failed:
        is_here = any(
            not has_scheme(trial.path) and os.path.exists(trial.path)
            for trial in trials
            if trial.failure is not None
        )
        return Finding(
            "decoding",
            "problem" if len(failed) == len(trials) else "warning",
            f"{len(failed)} of {len(trials)} clips failed on {where}: {'; '.join(failed)}",
            "put the videos where every node sees them under the same path, or check them: "
            "lssl-ray data check MANIFEST --decode"
            if is_here
            else "are they where the manifest says? lssl-ray data check MANIFEST",
        )
    readers = ", ".join(sorted({trial.reader for trial in trials}))
    seconds = median(trial.seconds for trial in trials)
    return Finding(
        "decoding",
        "ok",
        f"{len(trials)} clips with all views on {where}, {seconds:.2f} s each ({readers})",
    )
