"""A real server that goes away in every way: nothing is lost, nothing doubled, nobody waits."""

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import (
    MlflowServer,
    list_runs,
    read_everything,
    read_history,
    wait_until,
)
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.config import load_config
from lssl_ray.errors import ConfigError
from lssl_ray.folder import create_run_folder
from lssl_ray.locking import find_lock, holding
from lssl_ray.tracking.journal import Journal
from lssl_ray.tracking.mlflow import MlflowTracker

TIMEOUT_SECONDS = 1
# A server takes seconds to start, and a minute on a busy machine.
pytestmark = pytest.mark.timeout(400)
OpenTracker = Callable[..., MlflowTracker]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One for this file: its first start takes seconds."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """The same, running."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shared_server.start()
    return shared_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "run"
    path.mkdir(parents=True)
    (path / "summary.json").write_text("{}")
    return path


@pytest.fixture
def open_tracker(server: MlflowServer, folder: Path, request: pytest.FixtureRequest) -> OpenTracker:
    def open_run(**changes: Any) -> MlflowTracker:
        arguments: dict[str, Any] = {
            "experiment": request.node.name,
            "run_name": "run",
            "run_folder": folder,
            "params": {"optim.epochs": 3},
            "tags": {"lssl.seed": "0"},
        }
        return MlflowTracker(server.address, **(arguments | changes))

    return open_run


def write_steps(folder: Path, *steps: int) -> None:
    for step in steps:
        row = {"step": step, "loss/total": 1 / step, "health/agreement": step / 10}
        Journal(folder).append("metrics", row)


def read_steps(server: MlflowServer, tracker: MlflowTracker) -> list[int]:
    history = read_history(server.address, tracker.run_id or "", "loss/total")
    assert all(value == 1 / step for step, value in history)
    return [step for step, _ in history]


def sync(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["track", "sync", *map(str, arguments)])


def test_outage_in_mid_run_is_made_up_for_when_the_server_returns(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path
) -> None:
    tracker = open_tracker()
    write_steps(folder, 1, 2, 3)
    tracker.flush()
    assert read_steps(server, tracker) == [1, 2, 3]
    server.stop()
    write_steps(folder, 4, 5, 6)
    tracker.set_tags({"lssl.note": "away"})
    tracker.log_rows([{"step": 6, "zero_shot/val/adapted": 0.5}])
    tracker.log_artifact(folder / "summary.json")
    tracker.flush()
    assert tracker.num_failed_calls > 0 and tracker.describe_missing() is not None
    server.start()
    wait_until(lambda: tracker.describe_missing() is None)  # by itself, while the run goes on
    write_steps(folder, 7)
    tracker.finish("FINISHED")
    assert read_steps(server, tracker) == [1, 2, 3, 4, 5, 6, 7]
    found = read_everything(server.address, tracker.run_id or "")
    assert found["tags"]["lssl.note"] == "away"  # type: ignore[index]
    assert found["artifacts"] == {("summary.json", 2)}
    assert found["status"][0] == "FINISHED"  # type: ignore[index]


def test_frozen_server_holds_up_nobody_and_doubles_nothing(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path
) -> None:
    """What it was asked while frozen it does when it wakes, after the client gave up on it."""
    tracker = open_tracker()
    write_steps(folder, 1, 2)
    tracker.flush()
    server.freeze()
    try:
        started = time.monotonic()
        write_steps(folder, 3, 4)
        tracker.log_artifact(folder / "summary.json")
        tracker.set_tags({"a": "b"})
        assert time.monotonic() - started < 0.5
        tracker.finish("FINISHED")
        assert time.monotonic() - started < 2 * TIMEOUT_SECONDS + 5
        assert str(folder) in (tracker.describe_missing() or "")
    finally:
        server.thaw()
    assert sync(folder).exit_code == 0
    assert read_steps(server, tracker) == [1, 2, 3, 4]
    found = read_everything(server.address, tracker.run_id or "")
    assert set(found["history"].values()) == {1}  # type: ignore[attr-defined]
    assert found["status"][0] == "FINISHED"  # type: ignore[index]


def test_sync_twice_changes_nothing(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    tracker = open_tracker()
    server.freeze()
    write_steps(folder, 1, 2, 3)
    tracker.log_rows([{"step": 3, "zero_shot/val/adapted": 0.5}])
    tracker.log_artifact(folder / "summary.json")
    tracker.finish("SCHEDULED")
    ended = time.time()
    assert sync(folder).exit_code == 2  # away: a refusal that says so
    server.thaw()
    first = sync(folder)
    assert first.exit_code == 0 and "7 metric values and 1 artifacts" in first.output
    found = read_everything(server.address, tracker.run_id or "")
    assert found["params"] == {"optim.epochs": "3"}
    status, end_time = found["status"]  # type: ignore[misc]
    assert status == "SCHEDULED" and abs(end_time / 1000 - ended) < 5
    assert len(found["history"]) == 7  # type: ignore[arg-type]
    again = sync(folder)
    assert again.exit_code == 0 and "0 metric values and 0 artifacts" in again.output
    assert read_everything(server.address, tracker.run_id or "") == found
    assert len(list_runs(server.address, request.node.name)) == 1


def test_trial_starts_and_ends_while_the_server_is_away_and_is_there_later(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    parent = open_tracker(kind="sweep", run_name="sweep", run_folder=folder.parent)
    parent.close()
    server.freeze()
    child = open_tracker(parent_run_id=parent.run_id)
    assert child.run_id is None
    write_steps(folder, 1, 2)
    child.finish("FINISHED")
    resumed = open_tracker(kind="sweep", run_name="sweep", run_folder=folder.parent)
    assert resumed.run_id == parent.run_id  # a sweep goes on without the server, too
    resumed.finish("FINISHED")
    server.thaw()
    for _ in range(2):
        assert sync(folder, folder.parent).exit_code == 0
    runs = {run.info.run_name: run for run in list_runs(server.address, request.node.name)}
    assert set(runs) == {"run", "sweep"} and runs["sweep"].info.run_id == parent.run_id
    assert runs["run"].data.tags["mlflow.parentRunId"] == parent.run_id
    assert [run.info.status for run in runs.values()] == ["FINISHED", "FINISHED"]
    history = read_history(server.address, runs["run"].info.run_id, "loss/total")
    assert history == [(1, 1.0), (2, 0.5)]


def test_sync_of_a_sweep_sends_what_its_trials_lack(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    trial = folder / "trials" / "c001-s0"
    trial.mkdir(parents=True)
    parent = open_tracker(kind="sweep", run_name="sweep")
    server.freeze()
    child = open_tracker(parent_run_id=parent.run_id, run_name="c001-s0", run_folder=trial)
    write_steps(trial, 1, 2)
    child.finish("FINISHED")
    parent.finish("FINISHED")
    server.thaw()
    with holding(find_lock(trial), what="trial"):  # what trains does its own sending
        assert sync(folder).exit_code == 0
    assert len(list_runs(server.address, request.node.name)) == 1
    done = sync(folder)
    assert done.exit_code == 0, done.output
    runs = {run.info.run_name: run for run in list_runs(server.address, request.node.name)}
    assert [runs[name].info.status for name in ("sweep", "c001-s0")] == ["FINISHED", "FINISHED"]
    assert runs["c001-s0"].data.tags["mlflow.parentRunId"] == parent.run_id
    history = read_history(server.address, runs["c001-s0"].info.run_id, "loss/total")
    assert history == [(1, 1.0), (2, 0.5)]


def test_new_run_at_an_address_that_never_answers_is_refused_soon(
    server: MlflowServer, tmp_path: Path
) -> None:
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.listen()
        address = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ConfigError, match=address):
            MlflowTracker(
                address, experiment="e", run_name="r", run_folder=tmp_path, params={}, tags={}
            )
        assert time.monotonic() - started < TIMEOUT_SECONDS + 3
    assert not (tmp_path / "tracking").exists()


def test_sync_sends_a_run_that_was_never_tracked_to_a_named_server(
    server: MlflowServer, tmp_path: Path
) -> None:
    settings = ["clip.model='local-dir:clip'", "data.manifest=videos.parquet"]
    settings += ["concepts.labels=bank:lss-c", "tracking.uri=null", "tracking.tags={team: vision}"]
    settings += [f"run.folder={tmp_path}", "optim.learning_rate=0.5"]
    folder, _ = create_run_folder(load_config(None, settings), overwrite=False)
    write_steps(folder.path, 1, 2)
    result = {"clip_top1": 25.0, "adapted_top1": 50.0}
    summary = {"finished": True, "steps": 2, "zero_shot": {"test": result}}
    folder.summary.write_text(json.dumps(summary | {"manifest_digest": "a", "clip_digest": "b"}))
    folder.quarantine.touch()
    assert "--uri" in sync(folder.path).output
    for _ in range(2):
        done = sync(folder.path, "--uri", server.address, "--experiment", "imported")
        assert done.exit_code == 0, done.output
    (run,) = list_runs(server.address, "imported")
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.learning_rate"] == "0.5"
    assert run.data.metrics["zero_shot/test/adapted"] == 0.5
    expected = {"lssl.concepts": "bank:lss-c/both/pooled", "lssl.clip_digest": "b"}
    assert run.data.tags.items() >= (expected | {"lssl.seed": "0", "team": "vision"}).items()
    found = read_everything(server.address, run.info.run_id)
    assert set(found["history"].values()) == {1}  # type: ignore[attr-defined]
    assert {path for path, _ in found["artifacts"]} >= {"run_config.yaml", "metrics.jsonl"}  # type: ignore[attr-defined]


def test_sync_of_what_is_no_run_is_refused(tmp_path: Path) -> None:
    result = sync(tmp_path)
    assert result.exit_code == 2 and str(tmp_path) in result.output


def test_experiment_of_a_server_is_refused_to_who_goes_past_the_server(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    """Its artifacts could not be put where the server keeps them."""
    open_tracker().close()
    uri = f"sqlite:///{server.folder / 'mlflow.db'}"
    with pytest.raises(ConfigError, match=request.node.name):
        MlflowTracker(
            uri, experiment=request.node.name, run_name="r", run_folder=folder / "r", params={},
            tags={},
        )  # fmt: skip


def test_run_in_an_experiment_of_the_file_shows_its_artifacts_at_the_server(
    server: MlflowServer, folder: Path, request: pytest.FixtureRequest
) -> None:
    """As `make ui` over the demo's store."""
    uri = f"sqlite:///{server.folder / 'mlflow.db'}"
    tracker = MlflowTracker(
        uri, experiment=request.node.name, run_name="r", run_folder=folder, params={}, tags={}
    )
    tracker.log_artifact(folder / "summary.json")
    tracker.finish("FINISHED")
    query = f"path=summary.json&run_uuid={tracker.run_id}"
    with urllib.request.urlopen(f"{server.address}/get-artifact?{query}", timeout=20) as answer:
        assert answer.read() == b"{}"


def test_run_whose_server_is_gone_for_good_moves_to_another(
    server: MlflowServer, open_tracker: OpenTracker, folder: Path
) -> None:
    tracker = open_tracker()
    write_steps(folder, 1, 2)
    tracker.log_artifact(folder / "summary.json")
    tracker.finish("FINISHED")
    other = server.address.replace("127.0.0.1", "localhost")
    for _ in range(2):
        assert sync(folder, "--uri", other, "--experiment", "moved").exit_code == 0
    (run,) = list_runs(other, "moved")
    assert read_history(other, run.info.run_id, "loss/total") == [(1, 1.0), (2, 0.5)]
    found = read_everything(other, run.info.run_id)
    assert (found["params"], found["artifacts"]) == ({"optim.epochs": "3"}, {("summary.json", 2)})
