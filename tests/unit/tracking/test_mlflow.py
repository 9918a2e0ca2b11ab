"""MLflow against real stores: SQLite in a folder, and a server that goes away."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.mlflow import MlflowTracker

PARAMS = {f"section.key_{number}": number for number in range(230)} | {"long": "x" * 9000}
OpenTracker = Callable[..., MlflowTracker]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for this file: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def open_tracker(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> OpenTracker:
    """Opens the tracker of a run in `tmp_path`, in an experiment of the test's own."""
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts beside the working directory

    def open_run(**changes: Any) -> MlflowTracker:
        arguments: dict[str, Any] = {
            "experiment": request.node.name,
            "run_name": "run",
            "run_folder": tmp_path / "runs" / "run",
            "params": {"optim.epochs": 3},
            "tags": {"lssl.manifest_digest": "abc"},
        }
        return MlflowTracker(uri, **(arguments | changes))

    return open_run


def list_runs(uri: str, experiment: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def read_history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def test_mlflow_new_run_has_params_tags_and_no_steps(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tracker = open_tracker(params=PARAMS)
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "run"
    assert set(run.data.params) == set(PARAMS)
    assert run.data.params["section.key_229"] == "229"
    assert set(run.data.params["long"]) == {"x"}
    assert run.data.tags["lssl.manifest_digest"] == "abc"
    assert run.data.tags["lssl.run_folder"] == str(tmp_path / "runs" / "run")
    assert (tracker.last_step, tracker.num_failed_calls) == (0, 0)


def test_mlflow_rows_beyond_one_batch_all_arrive(uri: str, open_tracker: OpenTracker) -> None:
    tracker = open_tracker()
    rows = [
        {"step": step, "num_steps": 400, **{f"loss/{n}": step + n / 10 for n in range(3)}}
        for step in range(1, 401)
    ]
    tracker.log_rows(rows[:1])
    tracker.log_rows(rows[1:])
    tracker.log_rows([])
    for n in range(3):
        expected = [(step, step + n / 10) for step in range(1, 401)]
        assert read_history(uri, tracker.run_id, f"loss/{n}") == expected
    metrics = MlflowClient(tracking_uri=uri).get_run(tracker.run_id).data.metrics
    assert set(metrics) == {"loss/0", "loss/1", "loss/2"}
    assert (tracker.last_step, tracker.num_failed_calls) == (400, 0)


def test_mlflow_non_finite_values_are_left_to_the_journal(
    uri: str, open_tracker: OpenTracker
) -> None:
    tracker = open_tracker()
    tracker.log_rows([{"step": 1, "loss/a": float("nan"), "loss/b": 2.0, "loss/c": float("inf")}])
    metrics = MlflowClient(tracking_uri=uri).get_run(tracker.run_id).data.metrics
    assert metrics == {"loss/b": 2.0}
    assert tracker.num_failed_calls == 0


def test_mlflow_resumed_run_is_found_with_its_last_step(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest
) -> None:
    first = open_tracker()
    first.log_rows([{"step": step, "loss/total": 1.0} for step in (2, 4, 6)])
    first.finish("KILLED")
    second = open_tracker(params={"optim.epochs": 3, "cluster.num_workers": 2})
    assert (second.run_id, second.last_step) == (first.run_id, 6)
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "RUNNING"
    second.log_rows([{"step": 8, "loss/total": 1.0}])
    second.finish("FINISHED")
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "FINISHED"
    assert read_history(uri, first.run_id, "loss/total") == [(s, 1.0) for s in (2, 4, 6, 8)]


def test_mlflow_same_name_in_another_folder_is_another_run(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    first = open_tracker()
    second = open_tracker(run_folder=tmp_path / "elsewhere" / "run")
    third = open_tracker(run_name="run-2", run_folder=tmp_path / "runs" / "run-2")
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    assert open_tracker().run_id == first.run_id
    assert len(list_runs(uri, request.node.name)) == 3


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED", "SCHEDULED"])
def test_mlflow_finish_leaves_the_status(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, status: RunStatus
) -> None:
    open_tracker().finish(status)
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == status


def test_mlflow_artifacts_can_be_read_back(
    uri: str, open_tracker: OpenTracker, tmp_path: Path
) -> None:
    tracker = open_tracker()
    (tmp_path / "summary.json").write_text("{}")
    tracker.log_artifact(tmp_path / "summary.json")
    client = MlflowClient(tracking_uri=uri)
    assert [item.path for item in client.list_artifacts(tracker.run_id)] == ["summary.json"]
    fetched = client.download_artifacts(tracker.run_id, "summary.json", str(tmp_path))
    assert Path(fetched).read_text() == "{}"


def test_mlflow_absent_artifact_is_counted(open_tracker: OpenTracker, tmp_path: Path) -> None:
    tracker = open_tracker()
    tracker.log_artifact(tmp_path / "never-written.json")
    assert tracker.num_failed_calls == 1


@pytest.mark.parametrize(
    "wrong", ["sqlite:////proc/none/mlflow.db", "carrier-pigeon://coop", "http://127.0.0.1:9"]
)
def test_mlflow_store_that_cant_be_opened_is_a_config_error(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        MlflowTracker(wrong, experiment="e", run_name="r", run_folder=tmp_path, params={}, tags={})
    assert wrong in str(caught.value)
    assert "tracking.uri=null" in str(caught.value)


@pytest.fixture
def server(uri: str, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A tracking server on loopback, in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", uri, "--artifacts-destination", str(tmp_path / "art")]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=tmp_path,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        stop(process)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    pytest.fail(f"the MLflow server ended with {process.returncode} before it answered")


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_mlflow_server_that_goes_away_is_counted_and_not_raised(
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    address, process = server
    tracker = MlflowTracker(
        address,
        experiment="served",
        run_name="run",
        run_folder=tmp_path,
        params={"a": 1},
        tags={},
    )
    tracker.log_rows([{"step": 1, "loss/total": 0.5}])
    assert tracker.num_failed_calls == 0
    assert read_history(address, tracker.run_id, "loss/total") == [(1, 0.5)]
    stop(process)
    (tmp_path / "summary.json").write_text("{}")
    tracker.log_rows([{"step": 2, "loss/total": 0.4}])
    tracker.log_artifact(tmp_path / "summary.json")
    tracker.finish("FINISHED")
    assert tracker.num_failed_calls == 3
