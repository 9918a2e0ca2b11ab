"""MLflow: one run per training run or sweep, found again on resume; the model registry.

This package alone imports mlflow. What is sent when, and what happens while
the store is away, is `sending`'s.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import METRICS_FILE, TIME_KEY, read_rows
from lssl_ray.tracking.mlflow.runs import KIND_TAG, MlflowRun, find_experiment
from lssl_ray.tracking.outbox import (
    ADDED_OUTBOX,
    MAIN_OUTBOX,
    OUTBOX_FOLDER,
    Outbox,
    load_outbox,
)
from lssl_ray.tracking.sending import OutboxTracker
from lssl_ray.tracking.service import ServiceAwayError, ServiceRefusalError, TrackedRun

_MAX_PARAM_CHARS = 6000
_UNAVAILABLE = (MlflowException, OSError, ServiceRefusalError)


def save_classifier(
    path: Path, *, model_folder: Path, loader_module: str, requirements: Sequence[str]
) -> None:
    """Write an exported model as an MLflow model that `mlflow models serve` answers with.

    Args:
        path: A new folder.
        model_folder: The exported model; copied.
        loader_module: Module of ours whose `_load_pyfunc` opens it: nothing is pickled.
        requirements: What pip installs for it.
    """
    with warnings.catch_warnings():
        # Of classes of MLflow's own, when they are imported; and that no example request, which
        # would need a video, comes with the model.
        warnings.filterwarnings("ignore", message=".*(Any type hint|input example)")
        # Imported here: they take a second that training need not wait for.
        from mlflow.models import ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

        videos = Schema([ColSpec("string", name, required=False) for name in ("path", "base64")])
        params = [ParamSpec("labels", "string", [], shape=(-1,)), ParamSpec("top_k", "long", 5)]
        save_model(
            path=str(path),
            loader_module=loader_module,
            data_path=str(model_folder),
            signature=ModelSignature(inputs=videos, params=ParamSchema(params)),
            pip_requirements=list(requirements),
        )


def register_model_version(
    uri: str,
    *,
    name: str,
    path: Path,
    experiment: str,
    run_id: str | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Put an exported model into a store's registry; returns its `models:/NAME/VERSION`.

    Args:
        uri: The store.
        name: Registered model; made when absent.
        path: Folder from `export_mlflow` (what can be served), or from `export_folder`.
        experiment: Of the run that holds the files when `run_id` is None.
        run_id: Run that the model came from; gets the files.
        metrics: What was measured of the model: tags of the version, and metrics of a new run.
        tags: Of the version. A version of that name with the same tags is the same model, and is
            not registered again.

    Raises:
        ConfigError: The store can't be opened, or does not take it.
    """
    measured = {f"metric.{key}": f"{value:.6g}" for key, value in (metrics or {}).items()}
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        quoted = f"name = '{name}'"
        if not client.search_registered_models(filter_string=quoted):
            client.create_registered_model(name)
        for known in client.search_model_versions(quoted) if tags else ():
            if dict(tags or {}).items() <= known.tags.items():
                return f"models:/{name}/{known.version}"
        place = find_experiment(client, uri, experiment)
        if run_id is None:
            run = client.create_run(place, run_name=name, tags={KIND_TAG: "export"})
            for key, value in (metrics or {}).items():
                client.log_metric(run.info.run_id, key, value)
        else:
            run = client.get_run(run_id)
        client.log_artifacts(run.info.run_id, str(path), "model")
        if run_id is None:
            client.set_terminated(run.info.run_id)
        version = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/model",
            run_id=run.info.run_id,
            tags={**measured, **(tags or {})},
        )
    except _UNAVAILABLE as error:
        raise ConfigError(
            f"{uri!r} did not take the model {name!r}: {error}. Name another store with "
            "--tracking-uri, or leave out --register."
        ) from error
    return f"models:/{name}/{version.version}"


class MlflowTracker(OutboxTracker):
    """One run of an MLflow store, through the client API (no global state).

    It follows the run folder's journal by itself.

    Args:
        uri: Tracking store.
        experiment: Made when absent, marked as model training.
        run_name: Name of the run.
        run_folder: Holds what the run is found by when it is resumed.
        params: Flattened configuration; logged once, kept on resume.
        tags: Further tags, kept on resume.
        reopen: False adds to a run that is there, and leaves its journal and status to others.
        kind: What the run is.
        parent_run_id: Run to nest this one under. Its owner knows that the store is there: such a
            run starts even when the store is away.
        writer: Names the file in the run folder that keeps what the store has; one per process
            that may run at a time. Default `run`, or `added` without `reopen`.

    Raises:
        ConfigError: The store can't be opened at the start, when nothing is lost yet, or has no
            run to add to.
    """

    def __init__(
        self,
        uri: str,
        *,
        experiment: str,
        run_name: str,
        run_folder: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        reopen: bool = True,
        kind: Literal["train", "sweep"] = "train",
        parent_run_id: str | None = None,
        writer: str | None = None,
    ) -> None:
        run = TrackedRun(
            uri=uri,
            experiment=experiment,
            run_name=run_name,
            run_folder=str(run_folder),
            kind=kind,
            parent_run_id=parent_run_id,
            params={key: str(value)[:_MAX_PARAM_CHARS] for key, value in params.items()},
            tags=dict(tags),
        )
        writer = writer or (MAIN_OUTBOX if reopen else ADDED_OUTBOX)
        outbox = Outbox(run_folder / OUTBOX_FOLDER / f"{writer}.json", run)
        is_new = reopen and parent_run_id is None and outbox.run_id is None
        metrics = run_folder / METRICS_FILE
        # A run of earlier versions, or one whose record is lost.
        has_past = outbox.run_id is None and metrics.exists() and metrics.stat().st_size > 0
        super().__init__(
            MlflowRun(outbox.run, by_name=has_past or not reopen),
            outbox,
            metrics=metrics if reopen else None,
            creates=reopen,
        )
        try:
            self.open()
        except (ServiceAwayError, ServiceRefusalError) as error:
            if is_new or isinstance(error, ServiceRefusalError):
                raise ConfigError(
                    f"tracking.uri={uri!r} can't be used: {error}. Start the server, correct the "
                    "address, or train without MLflow with --set tracking.uri=null."
                ) from error
            self.note_failure(error)
        if reopen:
            self.set_running()
        self.start()


def close_run(
    uri: str,
    *,
    experiment: str,
    run_name: str,
    run_folder: Path,
    status: RunStatus,
    tags: Mapping[str, str] | None = None,
    seconds: float = 5.0,
) -> str | None:
    """End a run whose own process is gone: the rest of its journal, tags and status.

    It ended with its last row, not now: other trials may have run since.

    Args:
        uri: Tracking store.
        experiment: Of the run.
        run_name: Of the run.
        run_folder: Of the run.
        status: Its end.
        tags: Further ones.
        seconds: Longest wait for a store that takes nothing.

    Returns:
        What a person can do about what the store lacks; None when it has everything.
    """
    path = run_folder / OUTBOX_FOLDER / f"{MAIN_OUTBOX}.json"
    run = TrackedRun(uri, experiment, run_name, str(run_folder), "train", None, {}, {})
    outbox = Outbox(path, run)
    is_known = path.exists()
    tracker = OutboxTracker(
        MlflowRun(outbox.run, by_name=not is_known),
        outbox,
        metrics=run_folder / METRICS_FILE,
        creates=is_known,
    )
    tracker.start()
    tracker.set_tags(tags or {})
    times = [row[TIME_KEY] for row in read_rows(run_folder / METRICS_FILE) if TIME_KEY in row]
    tracker.finish(status, seconds=seconds, ended=max(times, default=None))
    return tracker.describe_missing()


def sync_outbox(path: Path, *, uri: str | None, experiment: str | None) -> OutboxTracker:
    """Bring a store up to what an outbox and its run folder say; done twice, it changes nothing.

    Args:
        path: File of the outbox.
        uri: Another store than it was written for.
        experiment: Another experiment.

    Returns:
        The closed tracker, to ask what was sent and what is missing.

    Raises:
        ConfigError: The store can't be used, or has no run to add to.
    """
    outbox = load_outbox(path, uri=uri, experiment=experiment)
    outbox.renew_artifacts()
    is_main = path.stem == MAIN_OUTBOX
    tracker = OutboxTracker(
        MlflowRun(outbox.run, by_name=not is_main),
        outbox,
        metrics=outbox.folder / METRICS_FILE if is_main else None,
        creates=is_main,
    )
    try:
        tracker.open()
    except (ServiceAwayError, ServiceRefusalError) as error:
        raise ConfigError(
            f"{outbox.run.uri!r} can't be used: {error}. Start the server, or name another one "
            "with --uri."
        ) from error
    tracker.start()
    tracker.close()
    return tracker
