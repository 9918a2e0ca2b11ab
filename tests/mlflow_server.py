"""A real `mlflow server` on loopback that can stop, freeze and come back on the same store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

WAIT_SECONDS = 100


class MlflowServer:
    """One address and one store; `start` and `stop` as often as a test likes.

    Args:
        folder: Where store, artifacts and log go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it answers."""
        if self._process is not None:
            return
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        arguments += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env=os.environ
                | {
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
            )
        self._wait_for_answer()

    def freeze(self) -> None:
        """It accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again, first what was asked meanwhile."""
        self._signal(signal.SIGCONT)
        self._wait_for_answer()

    def stop(self) -> None:
        """Connections are refused from now on."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, self._read_log()
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.address}/health", timeout=5),
            ):
                return
            time.sleep(0.1)
        raise AssertionError(self._read_log())

    def _read_log(self) -> str:
        return (self.folder / "server.log").read_text()


def find_free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def list_runs(uri: str, experiment: str) -> list[Run]:
    """The runs of an experiment, in no order."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def read_history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """All (step, value) of a metric that the store holds, doubles too."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def read_everything(uri: str, run_id: str) -> dict[str, object]:
    """A run as the store has it."""
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    history = Counter(
        (key, metric.step, metric.value, metric.timestamp)
        for key in run.data.metrics
        for metric in client.get_metric_history(run_id, key)
    )
    return {
        "history": history,
        "params": run.data.params,
        "tags": run.data.tags,
        "status": (run.info.status, run.info.end_time),
        "artifacts": {(item.path, item.file_size) for item in client.list_artifacts(run_id)},
    }


def wait_until(condition: Callable[[], bool], *, seconds: float = WAIT_SECONDS) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
