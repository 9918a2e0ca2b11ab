"""An evaluation goes into the MLflow run that its model came from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lssl_ray.errors import ConfigError
from lssl_ray.evaluating.sources import EvaluatedModel
from lssl_ray.evaluation.outcome import Outcome
from lssl_ray.tracked import open_tracker
from lssl_ray.tracking.base import NullTracker

ARTIFACT_FOLDER = "evaluation"


def file_in_mlflow(
    model: EvaluatedModel, report: dict[str, Any], outcomes: Sequence[Outcome], out: Path
) -> list[str]:
    """Add metrics and the report to the run's tracked run, whose status stays what it is.

    Returns:
        Lines for a person: none when all went well or nothing is tracked.
    """
    assert model.folder is not None
    try:
        tracker = open_tracker(
            model.config,
            model.folder,
            manifest_digest=report["manifest"]["digest"],
            reopen=False,
            writer=f"evaluation-{report['name']}",
        )
    except ConfigError as error:
        # The report is written and paid for; a missing store takes nothing from it.
        return [f"Not in MLflow: {error}"]
    if isinstance(tracker, NullTracker):
        return []
    row: dict[str, Any] = {"step": model.step}
    for outcome, described in zip(outcomes, report["outcomes"], strict=True):
        for name, figures in described["models"].items():
            key = f"evaluation/{report['name']}/{outcome.slug}/{name}"
            row[key] = figures["top1_percent"] / 100
    tracker.log_rows([row])
    tracker.log_artifact(out, folder=ARTIFACT_FOLDER)
    tracker.close()
    missing = tracker.describe_missing()
    return [] if missing is None else [missing]
