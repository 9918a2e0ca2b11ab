"""What `lssl-ray atlas` does: one page that shows what a model learned, concept by concept.

Here things are put together: the model and its features (both from `evaluating`, as an evaluation
has them), facts (`figures`), pictures (`thumbnails`), the page (`page`). The atlas is for looking;
numbers that can be quoted come from `lssl-ray evaluate`.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lssl_ray import build
from lssl_ray.atlas.figures import AtlasClips, choose_videos, compute_figures
from lssl_ray.atlas.origin import (
    count_reasons,
    describe_atlas,
    describe_origin,
    describe_pictures,
)
from lssl_ray.atlas.page import compute_picture_budget, write_atlas
from lssl_ray.atlas.ranking import build_axes
from lssl_ray.atlas.request import AtlasRequest
from lssl_ray.atlas.thumbnails import draw_thumbnails
from lssl_ray.commands import logging_to, pick_engine, sigterm_as_exit
from lssl_ray.display import RunDisplay
from lssl_ray.engine import Engine
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.evaluating.gathering import GatheredFeatures, gather_features, select_videos
from lssl_ray.evaluating.sources import EvaluatedModel, open_evaluated_model
from lssl_ray.evaluating.videos import join_manifests
from lssl_ray.evaluation.cache import FeatureCache
from lssl_ray.evaluation.report import ADAPTED, CLIP
from lssl_ray.evaluation.views import SLOW, EvaluationView
from lssl_ray.tracked import open_tracker
from lssl_ray.tracking.base import NullTracker
from lssl_ray.video.manifest import Manifest

__all__ = ["AtlasRequest", "run_atlas"]

ATLAS_FOLDER, PAGE_FILE, FEATURES_FOLDER = "atlas", "atlas.html", "features"


def run_atlas(request: AtlasRequest, *, display: RunDisplay) -> dict[str, Any]:
    """Make the atlas and add it to the run's tracked run; returns what its JSON holds.

    Raises:
        LsslError: What is wrong and what to do.
    """
    started = time.monotonic()
    request.check()
    display.show_phase("Reading the manifest and CLIP")
    model = _open_model(request)
    listed = join_manifests(request.manifests)
    usable = listed.usable().table["video_id"].to_pylist()
    chosen = choose_videos(usable, request.max_videos)
    base = Path() if model.folder is None else model.folder.path
    page = request.out or base / ATLAS_FOLDER / PAGE_FILE
    # A checkpoint outside its run has no folder to keep things in.
    beside = page.parent if model.folder is None else base
    log = page.with_suffix(".log") if model.folder is None else model.folder.log
    with logging_to(log), sigterm_as_exit():
        gathered = _gather(
            model,
            select_videos(listed, chosen),
            cache=FeatureCache(beside / FEATURES_FOLDER),
            local=request.local,
            display=display,
        )
        if not gathered.video_ids:
            raise DataError(
                f"None of {len(chosen)} videos gave frames: {count_reasons(gathered.failures)}. "
                "Look at the files with lssl-ray data check MANIFEST --decode."
            )
        facts, addresses = _compute_facts(request, model, listed, gathered, display)
    facts["videos"] |= {"usable": len(usable), "looked_at": len(chosen)}
    facts["seconds"] = round(time.monotonic() - started, 1)
    display.show_phase("Writing the page")
    written = write_atlas(facts, addresses, page)
    display.show_lines(*describe_atlas(facts, written))
    if model.folder is not None:
        display.show_lines(*_file_in_mlflow(model, listed.digest(), written))
    return facts


def _open_model(request: AtlasRequest) -> EvaluatedModel:
    model = open_evaluated_model(
        request.model, manifest=request.manifests[0], overrides=request.overrides
    )
    if model.checkpoint is None:
        raise ConfigError(
            f"{request.model} is plain CLIP or an export: an atlas shows before and after, so it "
            "takes a run or a checkpoint."
        )
    return model


def _gather(
    model: EvaluatedModel,
    manifest: Manifest,
    *,
    cache: FeatureCache,
    local: bool,
    display: RunDisplay,
) -> GatheredFeatures:
    """Features under CLIP and the teacher, seen as the run evaluates: its cache serves again."""
    with ExitStack() as stack:

        def open_engine() -> Engine:
            display.show_phase("Extracting features")
            engine = pick_engine(local=local)(model.config)
            stack.callback(engine.close)
            return engine

        return gather_features(
            model.config,
            model.clip.without_text(),
            manifest,
            views={SLOW: _build_view(model)},
            weights={CLIP: None, ADAPTED: model.teacher},
            cache=cache,
            open_engine=open_engine,
            on_progress=lambda done, total, bad: display.show_count(done, total, f"{bad} bad"),
        )


def _build_view(model: EvaluatedModel) -> EvaluationView:
    config = model.config
    size = config.evaluation.size or config.views.global_.size
    return EvaluationView(num_frames=config.evaluation.num_frames, size=size)


def _compute_facts(
    request: AtlasRequest,
    model: EvaluatedModel,
    listed: Manifest,
    gathered: GatheredFeatures,
    display: RunDisplay,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts, and the address of a picture for each clip in them."""
    assert model.space is not None  # a checkpoint has one
    display.show_phase("Ranking clips and laying out the map")
    records = {record.video_id: record for record in listed.records()}
    clips = AtlasClips(
        records=tuple(records[video_id] for video_id in gathered.video_ids),
        before=gathered.features[CLIP][SLOW].joint[:, 0],
        after=gathered.features[ADAPTED][SLOW].joint[:, 0],
    )
    facts, shown = compute_figures(
        clips,
        build_axes(model.space),
        num_top=request.clips_per_concept,
        num_concepts=request.num_concepts,
    )
    origin = describe_origin(
        request, model, listed, list(records.values()), gathered, view=_build_view(model)
    )
    facts = {**origin, **facts}
    display.show_phase(f"Drawing {len(shown)} thumbnails")
    pictures = draw_thumbnails(
        shown,
        settings=build.build_decode_settings(model.config),
        budget_bytes=compute_picture_budget(facts, num_pictures=len(shown)),
        on_progress=lambda done, total, bad: display.show_count(done, total, f"{bad} without"),
    )
    return facts | {"thumbnails": describe_pictures(pictures)}, pictures.addresses


def _file_in_mlflow(model: EvaluatedModel, digest: str, written: Sequence[Path]) -> list[str]:
    """Add the files to the run's tracked run; lines for a person, none when all went well."""
    assert model.folder is not None
    try:
        tracker = open_tracker(
            model.config, model.folder, manifest_digest=digest, reopen=False, writer=ATLAS_FOLDER
        )
    except ConfigError as error:
        # The atlas is written and paid for; a missing store takes nothing from it.
        return [f"Not in MLflow: {error}"]
    if isinstance(tracker, NullTracker):
        return []
    for path in written:
        tracker.log_artifact(path, folder=ATLAS_FOLDER)
    tracker.close()
    missing = tracker.describe_missing()
    return [] if missing is None else [missing]
