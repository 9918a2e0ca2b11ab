"""A run and its place in MLflow: what it is known by there, what is filed, how it catches up."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lssl_ray.concepts.bank import BANK_PREFIX
from lssl_ray.config import RunConfig, flatten_config, load_config
from lssl_ray.config.passwords import has_password
from lssl_ray.errors import ConfigError
from lssl_ray.folder import RunFolder
from lssl_ray.summary import find_git_commit
from lssl_ray.tracking.base import NullTracker, Tracker
from lssl_ray.tracking.outbox import MAIN_OUTBOX, OUTBOX_FOLDER
from lssl_ray.tracking.sending import OutboxTracker
from lssl_ray.tracking.service import ServiceAwayError, ServiceRefusalError


@dataclass(frozen=True)
class SyncReport:
    """What one run's catching up did.

    Attributes:
        folder: Of the run.
        num_points: Metric values that were sent.
        num_artifacts: Files and folders that were sent.
        missing: What to do about what the store still lacks; None when it has everything.
    """

    folder: Path
    num_points: int
    num_artifacts: int
    missing: str | None


def open_tracker(
    config: RunConfig,
    folder: RunFolder,
    *,
    manifest_digest: str,
    clip_digest: str | None = None,
    reopen: bool = True,
    writer: str | None = None,
) -> Tracker:
    """MLflow when the configuration names a store, else nothing.

    Args:
        config: Names the store.
        folder: The run's own.
        manifest_digest: Becomes a tag of a new run.
        clip_digest: Likewise.
        reopen: False adds to a run that is there, and leaves its status as it is.
        writer: Names the record of what the store has; one per process that may run at a time.

    Raises:
        ConfigError: The store of a new run can't be used.
    """
    if config.tracking.uri is None:
        return NullTracker()
    _ask_no_telemetry()
    from lssl_ray.tracking.mlflow import MlflowTracker

    return MlflowTracker(
        config.tracking.uri,
        experiment=config.tracking.experiment,
        run_name=config.run.name,
        run_folder=folder.path,
        params=flatten_config(config),
        tags={
            "lssl.manifest_digest": manifest_digest,
            **({} if clip_digest is None else {"lssl.clip_digest": clip_digest}),
            "lssl.git_commit": find_git_commit() or "none",
            "lssl.seed": str(config.run.seed),
            "lssl.concepts": describe_variant(config),
            **config.tracking.tags,
        },
        reopen=reopen,
        parent_run_id=config.tracking.parent,
        writer=writer,
    )


def describe_variant(config: RunConfig) -> str:
    """Which concepts a run trains with: `LABELS/SPACES/LAYOUT`, or `SPACE FILE/SPACES`."""
    concepts = config.concepts
    if concepts.space is not None:
        return f"{Path(concepts.space).name}/{concepts.spaces}"
    labels = str(concepts.labels)
    name = labels if labels.startswith(BANK_PREFIX) else Path(labels).name
    return f"{name}/{concepts.spaces}/{concepts.layout}"


def file_results(folder: RunFolder, tracker: Tracker, summary: dict[str, Any]) -> None:
    """Final accuracies and every file of a run's record go to its tracked run."""
    for split, result in summary["zero_shot"].items():
        row = {
            "step": summary["steps"],
            f"zero_shot/{split}/clip": result["clip_top1"] / 100,
            f"zero_shot/{split}/adapted": result["adapted_top1"] / 100,
        }
        tracker.log_rows([row])
    for path in (folder.config, folder.summary, folder.metrics, folder.quarantine):
        tracker.log_artifact(path)
    for path in sorted(folder.artifacts.iterdir()):
        tracker.log_artifact(path)


def sync_run(path: Path, *, uri: str | None, experiment: str | None) -> SyncReport:
    """Bring MLflow up to what a run folder says, whenever the run was; twice is as good as once.

    Args:
        path: Folder of a run or of a sweep.
        uri: Another store than the run's own.
        experiment: Another experiment.

    Raises:
        ConfigError: Not such a folder, the run names no store, or the store can't be used.
    """
    if uri is not None and has_password(uri):
        raise ConfigError(
            "--uri holds a password, which would be filed with the run; take it out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
        )
    _ask_no_telemetry()
    from lssl_ray.tracking.mlflow import sync_outbox

    outboxes = sorted((path / OUTBOX_FOLDER).glob("*.json"), key=lambda p: p.stem != MAIN_OUTBOX)
    if not outboxes:
        return _file_untracked(path, uri=uri, experiment=experiment)
    trackers = [sync_outbox(outbox, uri=uri, experiment=experiment) for outbox in outboxes]
    missing = [text for tracker in trackers if (text := tracker.describe_missing()) is not None]
    return SyncReport(
        path,
        num_points=sum(tracker.num_points_sent for tracker in trackers),
        num_artifacts=sum(tracker.num_artifacts_sent for tracker in trackers),
        missing="\n".join(missing) or None,
    )


def probe_tracking(uri: str) -> None:
    """Ask a store for its experiments: what a new run does first. Nothing is made there.

    Raises:
        ConfigError: It does not answer, or refuses.
    """
    _ask_no_telemetry()
    from lssl_ray.tracking.mlflow import probe_store

    try:
        probe_store(uri)
    except (ServiceAwayError, ServiceRefusalError) as error:
        raise ConfigError(f"tracking.uri={uri!r} can't be used: {error}.") from error


def _file_untracked(path: Path, *, uri: str | None, experiment: str | None) -> SyncReport:
    """A run of a time or a setting without MLflow goes there as a whole."""
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise ConfigError(f"{path} holds no run; give the folder of a run or of a sweep.")
    changes = {"tracking.uri": uri, "tracking.experiment": experiment}
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value]
    config = load_config(folder.config, overrides)
    summary: dict[str, Any] = {}
    if folder.summary.is_file():
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    tracker = open_tracker(
        config,
        folder,
        manifest_digest=summary.get("manifest_digest", "unknown"),
        clip_digest=summary.get("clip_digest"),
    )
    if not isinstance(tracker, OutboxTracker):
        raise ConfigError(f"{path} was trained without MLflow; name a store with --uri.")
    if summary:
        file_results(folder, tracker, summary)
        status: Literal["FINISHED", "SCHEDULED"] = (
            "FINISHED" if summary["finished"] else "SCHEDULED"
        )
        tracker.finish(status)
    else:
        tracker.close()  # it may be training right now
    return SyncReport(
        path,
        num_points=tracker.num_points_sent,
        num_artifacts=tracker.num_artifacts_sent,
        missing=tracker.describe_missing(),
    )


def _ask_no_telemetry() -> None:
    """Read when mlflow is imported. Sent to nobody unless the user says so."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
