"""A sweep's results: leaderboard, plots, best recipe, the best teacher's model version."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lssl_ray.config import RunConfig
from lssl_ray.display import RunDisplay
from lssl_ray.errors import LsslError, TrainingError
from lssl_ray.export import export_mlflow
from lssl_ray.inference import load_model
from lssl_ray.locking import find_lock, wait_until_free
from lssl_ray.summary import find_git_commit
from lssl_ray.sweep.leaderboard import (
    build_leaderboard,
    format_leaderboard,
    list_reasons,
    write_leaderboard,
)
from lssl_ray.sweep.plots import draw_importance, draw_parallel_coordinates
from lssl_ray.sweep.recipe import write_best_recipe
from lssl_ray.sweep.scores import describe_doubt
from lssl_ray.sweep.trials import TrialRecord
from lssl_ray.sweeping.record import SweepRecord
from lssl_ray.tracked import probe_tracking
from lssl_ray.tracking.base import NullTracker, RunStatus, Tracker
from lssl_ray.tracking.outbox import MAIN_OUTBOX, OUTBOX_FOLDER, load_outbox
from lssl_ray.training.holding import HELD_FOLDER
from lssl_ray.validation.decoded import VIEWS_FOLDER

STOPPED_TAG, REASON_TAG = "lssl.stopped_early", "lssl.reason"
MAX_TAG_CHARS = 500


@dataclass(frozen=True)
class SweepTracker:
    """Where a sweep is tracked.

    Attributes:
        run: The parent run.
        overrides: Settings that nest the trials' runs under it.
    """

    run: Tracker
    overrides: dict[str, Any] = field(default_factory=dict)


def open_sweep_tracker(record: SweepRecord, base: RunConfig) -> SweepTracker:
    """The sweep's parent run: a new one, or the one of an earlier session."""
    if base.tracking.uri is None:
        return SweepTracker(NullTracker())
    # Read when mlflow is imported. Sent to nobody unless the user says so.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from lssl_ray.tracking.mlflow import MlflowTracker

    settings = record.settings
    tracker = MlflowTracker(
        base.tracking.uri,
        experiment=base.tracking.experiment,
        run_name=settings.name,
        run_folder=record.folder.path,
        params={f"sweep.{key}": value for key, value in asdict(settings).items()},
        tags={
            **base.tracking.tags,
            "lssl.sweep": settings.name,
            "lssl.space": settings.space,
            "lssl.git_commit": find_git_commit() or "none",
        },
        kind="sweep",
        parent_run_id=base.tracking.parent,
    )
    return SweepTracker(tracker, {"tracking.parent": tracker.run_id})


def file_results(
    record: SweepRecord, base: RunConfig, tracker: SweepTracker, display: RunDisplay
) -> dict[str, Any]:
    """Write, show and track what a sweep whose trials have ended came to.

    Returns:
        What `sweep.json` says of the whole sweep.

    Raises:
        TrainingError: No trial has a score; what failed is filed and shown all the same.
    """
    display.show_phase("Filing results")
    folder, settings = record.folder, record.settings
    trials = record.list_ended()
    leaderboard = build_leaderboard(trials, select=settings.select)
    write_leaderboard(leaderboard, folder.path / "leaderboard.csv")
    missing = [
        problem
        for problem in (
            describe_doubt(
                [trial.settings for trial in trials],
                select=settings.select,
                answers=base.evaluation.labels,
            ),
            draw_importance(trials, settings.select, folder.path / "importance.png"),
            draw_parallel_coordinates(
                trials, settings.select, folder.path / "parallel_coordinates.png"
            ),
        )
        if problem is not None
    ]
    _close_child_runs(trials, base, display)
    drop_decoded(record)
    best = leaderboard.best_trial
    ending: dict[str, Any] = {"best": None, "model_version": None}
    if best is not None:
        values = record.get(best.trial_id).settings
        score = best.scores[settings.select]
        header = [
            f"The best configuration of the sweep {settings.name}, which asked:",
            settings.question,
            f"{settings.select} = {score:.6g} in trial {best.trial_id}; leaderboard.csv has all.",
        ]
        own = {**values, "run.name": f"{settings.name}-best", "run.folder": str(folder.path.parent)}
        write_best_recipe(base, own, folder.path / "best_recipe.yaml", header=header)
        ending["best"] = {"trial_id": best.trial_id, "values": best.values, "score": score}
        ending["model_version"] = _register(best, record, base, display)
    record.finish(ending)
    _track(record, trials, best, tracker.run)
    display.show_table(format_leaderboard(leaderboard))
    told = [*list_reasons(leaderboard), *missing, *_describe_end(record, base, ending)]
    display.show_lines(*dict.fromkeys(told))  # both pictures may have the same to say
    if best is None:
        tracker.run.finish("FAILED")
        raise TrainingError(
            f"No trial of {settings.name} has a score by {settings.select}. Reasons are in "
            f"{folder.path / 'leaderboard.csv'}, output in {folder.logs / 'trials'}; to try what "
            "failed again, start another sweep."
        )
    tracker.run.finish("FINISHED")
    lacking = tracker.run.describe_missing()
    if lacking is not None:
        display.show_lines(lacking)
    return ending


def close_broken_off_runs(record: SweepRecord, base: RunConfig, display: RunDisplay) -> None:
    """End the MLflow runs of trials that a sweep leaves unfinished, as KILLED.

    Ray may end a trial's process before it can do so itself. `--resume` opens these runs again.
    """
    record.wait_for_trials()
    for trial in record.trials:
        if trial.status == "running":
            run_folder = record.folder.trials / trial.trial_id
            _close_child_run(run_folder, base, display, status="KILLED", tags={})


def drop_decoded(record: SweepRecord) -> None:
    """Delete the decoded videos of trials that ended before they could: up to gigabytes each.

    Who goes on with such a trial by itself decodes them again.
    """
    for trial in record.list_ended():
        folder = Path(trial.run_folder)
        if trial.status != "finished" and wait_until_free([find_lock(folder)], seconds=0.0):
            shutil.rmtree(folder / HELD_FOLDER / VIEWS_FOLDER, ignore_errors=True)


def _close_child_runs(trials: list[TrialRecord], base: RunConfig, display: RunDisplay) -> None:
    """Runs whose own process was ended, or did not reach the store: what came of them."""
    for trial in trials:
        run_folder = Path(trial.run_folder)
        if trial.status == "finished":
            outbox = _find_outbox(run_folder)
            if outbox.is_file() and load_outbox(outbox).has_due:
                _close_child_run(run_folder, base, display, status="FINISHED", tags={})
            continue
        is_stopped = trial.status == "stopped_early"
        tags = {
            **({STOPPED_TAG: "true"} if is_stopped else {}),
            REASON_TAG: trial.reason[:MAX_TAG_CHARS],
        }
        status: RunStatus = "FINISHED" if is_stopped else "FAILED"
        _close_child_run(run_folder, base, display, status=status, tags=tags)


def _close_child_run(
    run_folder: Path,
    base: RunConfig,
    display: RunDisplay,
    *,
    status: RunStatus,
    tags: Mapping[str, str],
) -> None:
    if base.tracking.uri is None or not _find_outbox(run_folder).is_file():
        return  # not tracked, or it never came so far as to have a run
    from lssl_ray.tracking.mlflow import close_run

    told = close_run(
        base.tracking.uri,
        experiment=base.tracking.experiment,
        run_name=run_folder.name,
        run_folder=run_folder,
        status=status,
        tags=tags,
    )
    if told is not None:
        display.show_lines(told)


def _register(
    best: TrialRecord, record: SweepRecord, base: RunConfig, display: RunDisplay
) -> str | None:
    """The best teacher's model version; None without MLflow, and when it can't be had now."""
    if base.tracking.uri is None:
        return None
    display.show_phase("Registering the best teacher")
    try:
        return _export_and_register(best, record, base, base.tracking.uri)
    except LsslError as error:
        display.show_lines(
            f"The best teacher is not in the registry: {error} To try again: lssl-ray sweep "
            f"--resume {record.folder.path}"
        )
        return None


def _export_and_register(best: TrialRecord, record: SweepRecord, base: RunConfig, uri: str) -> str:
    """The best trial's teacher as a version of the model that is named after the sweep."""
    from lssl_ray.tracking.mlflow import register_model_version

    settings = record.settings
    exported = record.folder.path / "best_model"
    shutil.rmtree(exported, ignore_errors=True)  # of an earlier ending of this sweep
    with load_model(best.run_folder) as model:
        export_mlflow(
            model, exported, labels=None, command=f"lssl-ray sweep --resume {record.folder.path}"
        )
    probe_tracking(uri)  # one that is away is known at once; MLflow would try for minutes
    return register_model_version(
        uri,
        name=settings.name,
        path=exported,
        experiment=base.tracking.experiment,
        run_id=load_outbox(_find_outbox(Path(best.run_folder))).run_id,
        metrics=best.scores,
        tags={"lssl.sweep": str(record.folder.path), "lssl.trial": best.trial_id},
    )


def _find_outbox(run_folder: Path) -> Path:
    """What a trial's run filed of its place in MLflow."""
    return run_folder / OUTBOX_FOLDER / f"{MAIN_OUTBOX}.json"


def _track(
    record: SweepRecord, trials: list[TrialRecord], best: TrialRecord | None, run: Tracker
) -> None:
    counts = _count(trials)
    row: dict[str, Any] = {"step": 0}
    row |= {f"sweep/trials_{status}": count for status, count in counts.items()}
    if best is not None:
        row["sweep/best_score"] = best.scores[record.settings.select]
        run.set_tags({"lssl.best_trial": best.trial_id})
    run.log_rows([row])
    names = ("leaderboard.csv", "importance.png", "parallel_coordinates.png", "best_recipe.yaml")
    for name in (*names, "sweep.json", "recipe.yaml", "space.py"):
        if (record.folder.path / name).is_file():
            run.log_artifact(record.folder.path / name)


def _count(trials: list[TrialRecord]) -> Mapping[str, int]:
    statuses = ("finished", "stopped_early", "failed")
    return {status: sum(trial.status == status for trial in trials) for status in statuses}


def _describe_end(record: SweepRecord, base: RunConfig, ending: Mapping[str, Any]) -> list[str]:
    counts = _count(record.list_ended())
    folder = record.folder.path
    lines = [
        f"{counts['finished']} trials finished, {counts['stopped_early']} were stopped early, "
        f"{counts['failed']} failed",
        f"Sweep folder: {folder}",
    ]
    if ending["best"] is not None:
        lines.append(f"Train the best: lssl-ray train --config {folder / 'best_recipe.yaml'}")
    if ending["model_version"] is not None:
        lines.append(f"Best teacher: {ending['model_version']}")
    if base.tracking.uri is not None:
        is_server = base.tracking.uri.startswith("http")
        place = "" if is_server else "mlflow ui --backend-store-uri "
        lines.append(f"Compare trials: {place}{base.tracking.uri}")
    return lines
