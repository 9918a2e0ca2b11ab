"""What `lssl-ray evaluate` does: protocols on videos under CLIP and an adapted model, and a report.

Here things are put together: which model (`sources`), which videos (`videos`), which features
(`gathering`). Figures come from `evaluation/`, pages from `evaluation_page`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from lssl_ray import __version__
from lssl_ray.commands import logging_to, pick_engine, sigterm_as_exit
from lssl_ray.display import RunDisplay
from lssl_ray.engine import EncoderWeights, Engine, Interpolated
from lssl_ray.errors import ConfigError
from lssl_ray.evaluating.filing import file_in_mlflow
from lssl_ray.evaluating.gathering import GatheredFeatures, gather_features, select_videos
from lssl_ray.evaluating.request import EvaluationRequest
from lssl_ray.evaluating.showing import show_evaluation
from lssl_ray.evaluating.sources import EvaluatedModel, open_evaluated_model
from lssl_ray.evaluating.videos import EvaluatedVideos, prepare_videos
from lssl_ray.evaluation.cache import FeatureCache
from lssl_ray.evaluation.outcome import Protocol
from lssl_ray.evaluation.protocols import Setting, run_protocol
from lssl_ray.evaluation.report import (
    ADAPTED,
    CLIP,
    SWEEP_WARNING,
    describe_excluded,
    list_indexed_failures,
)
from lssl_ray.evaluation.transductive import Reading
from lssl_ray.evaluation.views import FAST, SLOW, EvaluationView, build_fast_view
from lssl_ray.evaluation_page import write_evaluation_report
from lssl_ray.summary import find_git_commit, find_versions

__all__ = ["EvaluationRequest", "run_evaluation"]

REPORT_VERSION = 1
ALPHAS = tuple(step / 10 for step in range(11))
EVALUATION_FOLDER, FEATURES_FOLDER = "evaluation", "features"


def run_evaluation(request: EvaluationRequest, *, display: RunDisplay) -> dict[str, Any]:
    """Run protocols, write the report, add it to the run's tracked run; returns the report.

    Raises:
        LsslError: What is wrong and what to do.
    """
    started = time.monotonic()
    request.check()
    display.show_phase("Reading the manifest and CLIP")
    model = open_evaluated_model(
        request.model,
        manifest=request.manifests[0],
        config=request.config,
        overrides=request.overrides,
        weights=request.weights,
    )
    if model.checkpoint is None and (request.interpolate is not None or request.sweep):
        raise ConfigError(
            f"{model.title} has not both CLIP's and adapted weights to interpolate between; name a "
            "run or a checkpoint."
        )
    videos = prepare_videos(request, model)
    readings = _name_readings(request, videos)
    base = Path() if model.folder is None else model.folder.path
    out = request.out or base / EVALUATION_FOLDER / request.name
    cache_folder = request.cache or (out if model.folder is None else base) / FEATURES_FOLDER
    cache = FeatureCache(cache_folder if request.use_cache else None)
    views = _choose_views(request, model)
    log = out / "evaluation.log" if model.folder is None else model.folder.log
    with (
        logging_to(log),
        sigterm_as_exit(),
        _engine_when_needed(model, local=request.local, display=display) as open_engine,
    ):

        def gather(
            weights: Mapping[str, EncoderWeights], looks: Mapping[str, EvaluationView]
        ) -> GatheredFeatures:
            return gather_features(
                model.config,
                model.clip.without_text(),
                select_videos(videos.manifest, videos.target.video_ids),
                views=looks,
                weights=weights,
                cache=cache,
                open_engine=open_engine,
                on_progress=lambda done, total, bad: display.show_count(done, total, f"{bad} bad"),
            )

        gathered = gather(_choose_weights(request, model), views)
        sweep = None
        if request.sweep:
            display.show_phase(f"Features of {len(ALPHAS)} weight mixtures")
            mixtures = {f"{alpha:g}": mix_weights(model.teacher, alpha) for alpha in ALPHAS}
            swept = gather(mixtures, {SLOW: views[SLOW]})
            sweep = _compute_sweep(swept, videos, readings)
        display.show_phase("Protocols")
        setting = _build_setting(gathered, videos, readings)
        outcomes = [
            outcome
            for protocol in request.protocols
            for outcome in run_protocol(cast(Protocol, protocol), setting)
        ]
    report = {
        "version": REPORT_VERSION,
        "name": request.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "created_by": f"lssl_ray {__version__}",
        "command": request.describe_command(),
        "model": _describe_model(request, model, gathered),
        **_describe_videos(videos, gathered),
        "views": {name: view.to_json() for name, view in views.items()},
        "view_average": "features",
        "outcomes": [outcome.to_json() for outcome in outcomes],
        "sweep": sweep,
        "features": {
            "folder": str(cache_folder) if request.use_cache else None,
            "from_cache": gathered.num_cached,
            "made": gathered.num_made,
            "damaged_made_again": cache.num_damaged,
        },
        "versions": find_versions(),
        "git_commit": find_git_commit(),
        "seconds": round(time.monotonic() - started, 2),
    }
    display.show_phase("Writing the report")
    write_evaluation_report(report, outcomes, out)
    show_evaluation(display, report, out)
    if model.folder is not None:
        display.show_lines(*file_in_mlflow(model, report, outcomes, out))
    return report


def mix_weights(teacher: Path | None, alpha: float) -> EncoderWeights:
    """Weights at a share of the adapted ones; both ends are the models themselves."""
    if alpha == 0 or teacher is None:
        return None
    return teacher if alpha == 1 else Interpolated(teacher, alpha)


def _choose_weights(request: EvaluationRequest, model: EvaluatedModel) -> dict[str, EncoderWeights]:
    if model.temporal is not None:
        return {ADAPTED: model.temporal}
    if model.teacher is None:
        return {CLIP: None}
    alpha = 1.0 if request.interpolate is None else request.interpolate
    return {CLIP: None, ADAPTED: mix_weights(model.teacher, alpha)}


def _choose_views(request: EvaluationRequest, model: EvaluatedModel) -> dict[str, EvaluationView]:
    config = model.config
    slow = EvaluationView(
        num_frames=request.num_frames or config.evaluation.num_frames,
        size=request.size or config.evaluation.size or config.views.global_.size,
        num_clips=request.num_clips,
        num_crops=request.num_crops,
    )
    if slow.size < 1 or slow.size % model.patch_size:
        raise ConfigError(
            f"--size {slow.size}: {config.clip.model} has patches of {model.patch_size} px; choose "
            "a multiple."
        )
    views = {SLOW: slow}
    if "linear_probe" in request.protocols:
        views[FAST] = build_fast_view(slow, patch_size=model.patch_size)
    return views


def _name_readings(request: EvaluationRequest, videos: EvaluatedVideos) -> dict[str, Reading]:
    known = videos.transduction
    reading: Reading = "not stated" if known is None else known.reading
    if "transductive" in request.protocols and reading in ("none", "not stated"):
        raise ConfigError(
            "--protocol transductive: the model's training knew neither the target's label names "
            "nor its videos, or its manifest is gone and nobody can say; ask for --protocol "
            "zero_shot."
        )
    return {CLIP: "none", ADAPTED: reading}


def _build_setting(
    gathered: GatheredFeatures, videos: EvaluatedVideos, readings: Mapping[str, Reading]
) -> Setting:
    return Setting(
        target=videos.target,
        video_ids=gathered.video_ids,
        features=gathered.features,
        categories=videos.categories,
        readings={name: readings.get(name, readings[ADAPTED]) for name in gathered.features},
    )


def _compute_sweep(
    swept: GatheredFeatures, videos: EvaluatedVideos, readings: Mapping[str, Reading]
) -> dict[str, Any]:
    (outcome,) = run_protocol("zero_shot", _build_setting(swept, videos, readings))
    described = outcome.to_json()["models"]
    return {
        "warning": SWEEP_WARNING,
        "set": outcome.main.name,
        "videos": len(outcome.main.rows),
        "points": [
            {
                "alpha": alpha,
                "top1_percent": described[f"{alpha:g}"]["set_interval"]["percent"],
                "low_percent": described[f"{alpha:g}"]["set_interval"]["low_percent"],
                "high_percent": described[f"{alpha:g}"]["set_interval"]["high_percent"],
            }
            for alpha in ALPHAS
        ],
    }


def _describe_model(
    request: EvaluationRequest, model: EvaluatedModel, gathered: GatheredFeatures
) -> dict[str, Any]:
    alpha = 1.0 if request.interpolate is None else request.interpolate
    return {
        "title": model.title,
        "clip": model.config.clip.model,
        "clip_weights": model.config.clip.weights,
        "clip_digest": model.clip.digest,
        "checkpoint": None if model.checkpoint is None else str(model.checkpoint),
        "alpha": None if model.checkpoint is None else alpha,
        "export": None if model.export is None else str(model.export),
        "digests": dict(gathered.digests),
    }


def _describe_videos(videos: EvaluatedVideos, gathered: GatheredFeatures) -> dict[str, Any]:
    target, known = videos.target, videos.transduction
    indexed = list_indexed_failures(videos.records, set(target.video_ids))
    return {
        "benchmark": target.benchmark,
        "manifest": {"root": videos.manifest.root, "digest": videos.manifest.digest()},
        "coverage": target.coverage,
        "divisions": [asdict(division) for division in target.divisions],
        "labels": {"source": videos.label_source, "names": list(target.labels)},
        "templates": list(videos.templates),
        "transductive": {"transductive": "not stated"} if known is None else known.to_json(),
        "excluded_undecodable": describe_excluded([*indexed, *gathered.failures]),
        "excluded_unlabelled": target.num_unlabelled,
        "videos": list(target.video_ids),
        "truth": list(target.truth),
    }


@contextmanager
def _engine_when_needed(
    model: EvaluatedModel, *, local: bool, display: RunDisplay
) -> Iterator[Callable[[], Engine]]:
    """Starts the engine at the first call, and closes it at the end."""
    opened: list[Engine] = []

    def open_engine() -> Engine:
        display.show_phase("Extracting features")
        if not opened:
            opened.append(pick_engine(local=local)(model.config))
        return opened[0]

    try:
        yield open_engine
    finally:
        for engine in opened:
            engine.close()
