"""A whole run, whatever the engine: concept space, tracking, training, before and after."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lssl_ray import build
from lssl_ray.concepts.bank import resolve_label
from lssl_ray.concepts.space import ConceptSpace, load_concept_space, save_concept_space
from lssl_ray.config import RunConfig
from lssl_ray.engine import Engine, FeatureJob, TrainJob
from lssl_ray.errors import CheckpointError, DataError
from lssl_ray.evaluation.report import ADAPTED, CLIP, SplitResult, compare_zero_shot
from lssl_ray.evaluation.views import SLOW, EvaluationView
from lssl_ray.folder import RunFolder
from lssl_ray.model.clip import ClipModel, ImageTower
from lssl_ray.pictures import draw_contact_sheet, draw_curves, draw_zero_shot
from lssl_ray.summary import build_summary
from lssl_ray.tracked import file_results, open_tracker
from lssl_ray.tracking.base import Tracker
from lssl_ray.tracking.following import closing_honestly, following, telling_events
from lssl_ray.tracking.journal import EVENTS_FILE, Journal, read_rows
from lssl_ray.training.checkpoint import MODEL_FILES, find_latest_checkpoint
from lssl_ray.training.holding import list_held
from lssl_ray.training_videos import select_training_videos
from lssl_ray.types import Progress
from lssl_ray.validation.composing import require_known_score
from lssl_ray.validation.records import WAITING, summarise_evaluations
from lssl_ray.video.manifest import Manifest, load_manifest


class Display(Protocol):
    """Shows a person how the run goes."""

    def show_phase(self, text: str) -> None:
        """A new part of the run begins."""

    def show_row(self, row: Mapping[str, Any]) -> None:
        """A window of training steps is done, or a checkpoint evaluated beside them."""

    def show_waiting(self, count: int) -> None:
        """Training is over, and so many checkpoints wait to be evaluated."""


def execute_run(
    config: RunConfig,
    folder: RunFolder,
    *,
    open_engine: Callable[[RunConfig], Engine],
    display: Display,
) -> dict[str, Any]:
    """Train (or go on training), evaluate, file everything; returns the summary.

    Args:
        config: Resolved, with absolute paths.
        folder: The run's own; a checkpoint in it is gone on from.
        open_engine: Starts what does the heavy work; called once the inputs are known to be good.
        display: For a person.

    Raises:
        LsslError: What stopped the run; MLflow and the folder say so too.
    """
    display.show_phase("Reading the manifest and CLIP")
    require_known_score(config)
    manifest = build.load_training_manifest(config)
    clip = build.build_clip(config)
    space = prepare_space(config, clip, folder)
    answers = build.build_evaluation_space(config, clip, space)
    tower = clip.without_text()
    del clip  # the text tower has said what it had to say
    splits = load_splits(config, answers.labels)
    usable = select_training_videos(
        manifest,
        source=config.data.manifest,
        num_held_back=config.data.hold_back,
        run_folder=folder.path,
    )
    tracker = open_tracker(
        config, folder, manifest_digest=manifest.digest(), clip_digest=tower.digest
    )
    with closing_honestly(tracker):
        engine = open_engine(config)
        try:
            progress = _train(config, folder, usable, space, engine, tracker, display)
            num_steps = build.compute_run_steps(config, num_videos=len(usable))
            finished = progress.step == num_steps
            results = {}
            if finished and config.evaluation.every_checkpoints:
                shutil.rmtree(folder.validation, ignore_errors=True)
            if finished and splits:
                display.show_phase("Evaluating before and after")
                results = evaluate_splits(
                    config, splits, answers, engine=engine, folder=folder, teacher=_teacher(folder)
                )
        finally:
            engine.close()
        display.show_phase("Drawing pictures and filing results")
        _draw(config, folder, usable, tower, space, results)
        summary = build_summary(
            config,
            progress,
            num_steps=num_steps,
            num_videos=len(usable),
            manifest_digest=manifest.digest(),
            clip_digest=tower.digest,
            results=results,
            quarantine=folder.quarantine,
            metrics=folder.metrics,
            validation=summarise_evaluations(folder.path),
            num_tracking_failures=tracker.num_failed_calls,
        )
        _file(folder, tracker, summary)
        tracker.finish("FINISHED" if finished else "SCHEDULED")
    return summary


def prepare_space(config: RunConfig, clip: ClipModel, folder: RunFolder) -> ConceptSpace:
    """The run's concept space: built once, then read back and checked against CLIP."""
    if folder.space.exists():
        return load_concept_space(folder.space, clip_digest=clip.digest)
    space = build.build_space(config, clip)
    save_concept_space(space, folder.space)
    return space


def load_splits(config: RunConfig, labels: Collection[str]) -> dict[str, Manifest]:
    """The evaluation manifests, checked before anything is paid for.

    Raises:
        DataError: Empty, unlabelled, or with labels that are not among these.
    """
    splits = {}
    for name, path in config.evaluation.manifests.items():
        manifest = load_manifest(path).usable()
        known = set(labels)
        unknown = sorted({resolve_label(label, known) for label in manifest.labels()} - known)
        records = manifest.records()
        unlabelled = sum(record.label is None for record in records)
        if not records or unlabelled or unknown:
            raise DataError(
                f"evaluation.manifests.{name} ({path}) has {len(records)} usable videos, "
                f"{unlabelled} of them without label, and labels that the concept space lacks: "
                f"{unknown[:5]}. Index labelled videos (lssl-ray data index --labels ...) with "
                "names as in the label file, or give the videos' own list as evaluation.labels."
            )
        splits[name] = manifest
    return splits


def evaluate_splits(
    config: RunConfig,
    splits: Mapping[str, Manifest],
    space: ConceptSpace,
    *,
    engine: Engine,
    folder: RunFolder,
    teacher: Path,
) -> dict[str, SplitResult]:
    """Zero-shot of CLIP and of the teacher on every split; undecodable videos are quarantined."""
    view = EvaluationView(
        num_frames=config.evaluation.num_frames,
        size=config.evaluation.size or config.views.global_.size,
    )
    journal = Journal(folder.path)
    results = {}
    for name, manifest in splits.items():
        job = FeatureJob(
            config=config,
            manifest=manifest,
            views={SLOW: view},
            weights={CLIP: None, ADAPTED: teacher},
        )
        table = engine.extract_features(job)
        step = int(teacher.parent.name.removeprefix("step_"))
        for failure in table.failures:
            journal.append("quarantine", {**asdict(failure), "step": step, "stage": "evaluate"})
        results[name] = compare_zero_shot(table, manifest, space)
    return results


def _train(
    config: RunConfig,
    folder: RunFolder,
    manifest: Manifest,
    space: ConceptSpace,
    engine: Engine,
    tracker: Tracker,
    display: Display,
) -> Progress:
    display.show_phase("Training")
    job = TrainJob(
        config=config,
        run_folder=folder.path,
        manifest=manifest,
        space=space,
        on_waiting=display.show_waiting,
    )

    def show_row(row: Mapping[str, Any]) -> None:
        display.show_row({**row, WAITING: len(list_held(folder.path))})

    events = folder.path / EVENTS_FILE
    with following(folder.metrics, on_row=show_row), telling_events(events):
        return engine.train(job)


def _teacher(folder: RunFolder) -> Path:
    return require_checkpoint(folder) / "teacher.safetensors"


def require_checkpoint(folder: RunFolder) -> Path:
    """The run's newest checkpoint whose model is whole.

    Raises:
        CheckpointError: There is none.
    """
    checkpoint = find_latest_checkpoint(folder.path, files=MODEL_FILES)
    if checkpoint is None:
        raise CheckpointError(f"{folder.path} has no whole checkpoint; train it first.")
    return checkpoint


def _draw(
    config: RunConfig,
    folder: RunFolder,
    manifest: Manifest,
    tower: ImageTower,
    space: ConceptSpace,
    results: Mapping[str, SplitResult],
) -> None:
    draw_curves(list(read_rows(folder.metrics)), folder.artifacts / "curves.png")
    draw_contact_sheet(
        config, manifest, tower, space, _teacher(folder), folder.artifacts / "contact_sheet.png"
    )
    for split, result in results.items():
        draw_zero_shot(split, result, folder.artifacts / f"zero_shot_{split}.png")


def _file(folder: RunFolder, tracker: Tracker, summary: dict[str, Any]) -> None:
    for split, result in summary["zero_shot"].items():
        path = folder.artifacts / f"zero_shot_{split}.json"
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
    folder.summary.write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    file_results(folder, tracker, summary)
