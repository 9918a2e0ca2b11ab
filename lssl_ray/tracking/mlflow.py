"""MLflow: one run per training run or sweep, found again on resume; the model registry.

The only module that imports mlflow, so it is longer than others. What is sent when, and what
happens while the store is away, is `sending`'s.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import METRICS_FILE, TIME_KEY, read_rows
from lssl_ray.tracking.outbox import (
    ADDED_OUTBOX,
    MAIN_OUTBOX,
    OUTBOX_FOLDER,
    Outbox,
    load_outbox,
)
from lssl_ray.tracking.sending import OutboxTracker
from lssl_ray.tracking.service import (
    Point,
    ServiceAwayError,
    ServiceRefusalError,
    TrackedRun,
)

RUN_NAME_TAG = "lssl.run"
RUN_FOLDER_TAG = "lssl.run_folder"
KIND_TAG = "lssl.kind"
UID_TAG = "lssl.uid"
PARENT_TAG = "mlflow.parentRunId"
_KIND_OF_EXPERIMENT = ("mlflow.experimentKind", "custom_model_development")
_MAX_PARAMS, _MAX_TAGS = 100, 100  # per call, by MLflow's own rule
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
# MLflow waits minutes by default for a server that is away; the sending thread tries again anyway.
# And it prints where a run is, into our own output.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_MAX_PARAM_CHARS = 6000
_UNAVAILABLE = (MlflowException, OSError, ServiceRefusalError)


class MlflowRun:
    """One run as `sending.Service` wants it.

    Args:
        run: What it is known by.
        by_name: Whether the newest run of its name and folder will do.
    """

    def __init__(self, run: TrackedRun, *, by_name: bool) -> None:
        self._run = run
        self._by_name = by_name
        self._client: MlflowClient | None = None
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not each table of a new store

    def find_run(self, known_id: str | None) -> str | None:
        """The run by its uid or id, or by name and folder where nobody knows these."""
        wanted = f"tags.`{RUN_NAME_TAG}` = '{self._run.run_name}'"
        with self._calling() as client:
            experiment = find_experiment(client, self._run.uri, self._run.experiment)
            runs = client.search_runs(
                [experiment], filter_string=wanted, run_view_type=ViewType.ACTIVE_ONLY
            )
        for run in runs:
            tags = run.data.tags
            is_here = self._by_name and tags.get(RUN_FOLDER_TAG) == self._run.run_folder
            if is_here or tags.get(UID_TAG) == self._run.uid or run.info.run_id == known_id:
                return str(run.info.run_id)
        return None

    def create_run(self) -> str:
        """A new run, with all that it is found by from the first moment."""
        with self._calling() as client:
            experiment = find_experiment(client, self._run.uri, self._run.experiment)
            name = self._run.run_name
            run = client.create_run(experiment, run_name=name, tags=self._list_tags())
            return str(run.info.run_id)

    def read_points(self, run_id: str) -> dict[str, list[Point]]:
        """All that the run has, by key."""
        with self._calling() as client:
            return {
                key: [
                    Point(key, metric.value, metric.step, metric.timestamp)
                    for metric in client.get_metric_history(run_id, key)
                ]
                for key in client.get_run(run_id).data.metrics
            }

    def describe_run(self, run_id: str) -> None:
        """Settings and tags that the run lacks; MLflow takes no second value of a setting."""
        with self._calling() as client:
            there = client.get_run(run_id).data
            params = [Param(k, v) for k, v in self._run.params.items() if k not in there.params]
            for start in range(0, len(params), _MAX_PARAMS):
                client.log_batch(
                    run_id, params=params[start : start + _MAX_PARAMS], synchronous=True
                )
            tags = {k: v for k, v in self._list_tags().items() if k not in there.tags}
        self.send_tags(run_id, tags)

    def send_points(self, run_id: str, points: Sequence[Point]) -> None:
        """One call; MLflow knows equal points."""
        metrics = [Metric(p.key, p.value, p.unix_ms, p.step) for p in points]
        with self._calling() as client:
            client.log_batch(run_id, metrics=metrics, synchronous=True)

    def send_artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Upload a file or folder."""
        with self._calling() as client:
            client.log_artifact(run_id, str(path), folder)

    def send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, in one call."""
        items = [RunTag(key, value) for key, value in tags.items()]
        with self._calling() as client:
            for start in range(0, len(items), _MAX_TAGS):
                client.log_batch(run_id, tags=items[start : start + _MAX_TAGS], synchronous=True)

    def send_status(self, run_id: str, status: str, unix_ms: int) -> None:
        """RUNNING opens a run again; the others end it when it ended."""
        with self._calling() as client:
            if status == "RUNNING":
                client.update_run(run_id, status=status)
            else:
                client.set_terminated(run_id, status=status, end_time=unix_ms)

    def _list_tags(self) -> dict[str, str]:
        run = self._run
        parent = {} if run.parent_run_id is None else {PARENT_TAG: run.parent_run_id}
        own = {
            RUN_NAME_TAG: run.run_name,
            RUN_FOLDER_TAG: run.run_folder,
            KIND_TAG: run.kind,
            UID_TAG: run.uid,
        }
        return run.tags | own | parent

    @contextmanager
    def _calling(self) -> Iterator[MlflowClient]:
        """The client, with short waits and failures told apart."""
        with _our_settings:
            try:
                if self._client is None:
                    self._client = MlflowClient(tracking_uri=self._run.uri)
                yield self._client
            except MlflowException as error:
                if error.error_code in _REFUSED:
                    raise ServiceRefusalError(str(error)) from error
                raise ServiceAwayError(str(error)) from error
            except OSError as error:
                raise ServiceAwayError(str(error)) from error


def probe_store(uri: str) -> None:
    """Ask a store for something small.

    Raises:
        ServiceAwayError: It did not answer.
        ServiceRefusalError: It refused.
    """
    nobody = TrackedRun(uri, "", "", "", "train", None, {}, {})
    with MlflowRun(nobody, by_name=False)._calling() as client:
        client.search_experiments(max_results=1)


def find_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """An experiment's id; made when absent, and marked as model training.

    Args:
        client: Of the store.
        uri: The store.
        name: Of the experiment.

    Raises:
        ServiceRefusalError: Its artifacts can't be reached this way.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=_find_artifacts(uri))
        except MlflowException as error:
            # Another trial of the same sweep was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
        assert found is not None
    if found.artifact_location.startswith("mlflow-artifacts:") and not uri.startswith("http"):
        raise ServiceRefusalError(
            f"the experiment {name!r} was made through a server, which keeps its artifacts; give "
            "that server's address, or another experiment"
        )
    key, kind = _KIND_OF_EXPERIMENT
    if key not in found.tags:
        # Without it the UI opens the experiment in its GenAI mode.
        client.set_experiment_tag(found.experiment_id, key, kind)
    return str(found.experiment_id)


def _find_artifacts(uri: str) -> str | None:
    """Artifacts lie beside an SQLite file: found from any folder, and by a server over the file."""
    if not uri.startswith("sqlite:///"):
        return None  # a server knows its own place
    return str(Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts")


class _OurSettings:
    """MLflow reads settings from the environment only; what the user set there stays.

    Calls of several threads may overlap: the last that ends cleans up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_calls = 0
        self._added: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            self._num_calls += 1
            new = {key: value for key, value in _SETTINGS.items() if key not in os.environ}
            self._added += new
            os.environ.update(new)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_calls -= 1
            if not self._num_calls:
                for key in self._added:
                    os.environ.pop(key, None)
                self._added = []


_our_settings = _OurSettings()


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
            f"{uri!r} did not take the model {name!r}: {error}. Try again once it does; what would "
            f"be registered lies in {path}. lssl-ray export can name another store: --tracking-uri."
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
