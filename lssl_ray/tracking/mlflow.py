"""MLflow: one run per training run, found again on resume. The only module that imports mlflow."""

import logging
import math
import os
import time
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


class MlflowTracker:
    """Logs one run to an MLflow store through the client API (no global state).

    Args:
        uri: Tracking store.
        experiment: Made when absent, marked as model training.
        run_name: Name of the run.
        run_folder: With the name, what a resumed run is found by.
        params: Flattened configuration; logged once, kept on resume.
        tags: Further tags.

    Raises:
        ConfigError: The store can't be opened at the start, when nothing is lost yet.
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
    ) -> None:
        self.num_failed_calls = 0
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not each table of a new store
        # MLflow waits minutes by default for a server that is away; training must not.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        try:
            self._client = MlflowClient(tracking_uri=uri)
            experiment_id = self._find_experiment(experiment)
            found = self._find_run(experiment_id, run_name, run_folder)
            self.run_id, self.last_step = found or (
                self._create_run(experiment_id, run_name, run_folder, params, tags),
                0,
            )
            if found:
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

    def log_artifact(self, path: Path) -> None:
        """Upload a file or folder."""
        self._attempt(partial(self._client.log_artifact, self.run_id, str(path)))

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

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Without this kind the UI opens the experiment in its GenAI mode.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, tags=tags))

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
