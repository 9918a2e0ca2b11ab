"""One run of an MLflow store, call by call; when to call is `sending`'s business."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from lssl_ray.tracking.service import Point, ServiceAwayError, ServiceRefusalError, TrackedRun

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
