"""MLflow: one run per training run, found again on resume. The only module that imports mlflow."""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus

logger = logging.getLogger(__name__)

RUN_NAME_TAG = "lssl.run_name"
RUN_FOLDER_TAG = "lssl.run_folder"
_MAX_METRICS, _MAX_PARAMS = 1000, 100  # per call, by MLflow's own rule
_MAX_PARAM_CHARS = 6000
_UNAVAILABLE = (MlflowException, OSError)


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


def register_classifier(uri: str, *, name: str, path: Path, experiment: str) -> str:
    """Put a saved MLflow model into a store's registry; returns its `models:/NAME/VERSION`.

    Raises:
        ConfigError: The store can't be opened, or does not take it.
    """
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        place = _find_experiment(client, experiment)
        run = client.create_run(place, run_name=name, tags={"lssl.kind": "export"})
        client.log_artifacts(run.info.run_id, str(path), "model")
        client.set_terminated(run.info.run_id)
        if not client.search_registered_models(filter_string=f"name = '{name}'"):
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/model"
        version = client.create_model_version(name, source=source, run_id=run.info.run_id)
    except _UNAVAILABLE as error:
        raise ConfigError(
            f"{uri!r} did not take the model {name!r}: {error}. Name another store with "
            "--tracking-uri, or leave out --register."
        ) from error
    return f"models:/{name}/{version.version}"


def _find_experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Without this kind the UI opens the experiment in its GenAI mode.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, tags=tags))


class MlflowTracker:
    """Logs one run to an MLflow store through the client API (no global state).

    Args:
        uri: Tracking store.
        experiment: Made when absent, marked as model training.
        run_name: Name of the run.
        run_folder: With the name, what a resumed run is found by.
        params: Flattened configuration; logged once, kept on resume.
        tags: Further tags.
        reopen: False adds to a run that is there, and leaves its status as it is.

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
    ) -> None:
        self.num_failed_calls = 0
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not each table of a new store
        # MLflow waits minutes by default for a server that is away; training must not.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        try:
            self._client = MlflowClient(tracking_uri=uri)
            experiment_id = _find_experiment(self._client, experiment)
            found = self._find_run(experiment_id, run_name, run_folder)
            if found is None and not reopen:
                raise ConfigError(
                    f"tracking.uri={uri!r} has no run {run_name!r} of {run_folder} to add to."
                )
            self.run_id, self.last_step = found or (
                self._create_run(experiment_id, run_name, run_folder, params, tags),
                0,
            )
            if found and reopen:
                self._client.update_run(self.run_id, status="RUNNING")
        except _UNAVAILABLE as error:
            raise ConfigError(
                f"tracking.uri={uri!r} can't be used: {error}. Start the server, correct the "
                "address, or train without MLflow with --set tracking.uri=null."
            ) from error

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows in as few calls as MLflow's limits allow."""
        metrics = [
            Metric(name, float(value), int(time.time() * 1000), int(row["step"]))
            for row in rows
            for name, value in row.items()
            if "/" in name and isinstance(value, int | float) and math.isfinite(value)
        ]
        for start in range(0, len(metrics), _MAX_METRICS):
            chunk = metrics[start : start + _MAX_METRICS]
            self._attempt(partial(self._client.log_batch, self.run_id, metrics=chunk))
        if rows:
            self.last_step = max(self.last_step, int(rows[-1]["step"]))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Upload a file or folder, into a folder of the run's artifacts."""
        self._attempt(partial(self._client.log_artifact, self.run_id, str(path), folder))

    def finish(self, status: RunStatus) -> None:
        """Close the run with an honest status."""
        self._attempt(partial(self._client.set_terminated, self.run_id, status=status))

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except _UNAVAILABLE as error:
            # The journal has every row; the count is shown at the end of the run.
            self.num_failed_calls += 1
            logger.warning("MLflow did not take a call: %s", error)

    def _find_run(
        self, experiment_id: str, run_name: str, run_folder: Path
    ) -> tuple[str, int] | None:
        wanted = f"tags.`{RUN_NAME_TAG}` = '{run_name}'"
        runs = self._client.search_runs(
            [experiment_id], filter_string=wanted, run_view_type=ViewType.ACTIVE_ONLY
        )
        for run in runs:
            if run.data.tags.get(RUN_FOLDER_TAG) == str(run_folder):
                run_id = run.info.run_id
                history = self._client.get_metric_history(run_id, "loss/total")
                return str(run_id), max((metric.step for metric in history), default=0)
        return None

    def _create_run(
        self,
        experiment_id: str,
        run_name: str,
        run_folder: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> str:
        all_tags = {RUN_NAME_TAG: run_name, RUN_FOLDER_TAG: str(run_folder), **tags}
        run = self._client.create_run(experiment_id, run_name=run_name, tags=all_tags)
        run_id = str(run.info.run_id)
        items = [Param(key, str(value)[:_MAX_PARAM_CHARS]) for key, value in params.items()]
        for start in range(0, len(items), _MAX_PARAMS):
            self._client.log_batch(run_id, params=items[start : start + _MAX_PARAMS])
        self._client.log_batch(run_id, tags=[RunTag("lssl.kind", "train")])
        return run_id
