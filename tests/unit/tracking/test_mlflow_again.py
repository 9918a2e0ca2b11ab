"""One MLflow run for one run, in a real SQLite store: resumed, rewound, nested, ended, added to."""

import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_server import list_runs, read_everything, read_history
from tracked_run import OpenTracker, write_steps

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import METRICS_FILE, TIME_KEY, Journal, read_rows
from lssl_ray.tracking.mlflow import close_run


def test_mlflow_resumed_run_is_found_and_goes_on(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, folder: Path
) -> None:
    first = open_tracker()
    write_steps(folder, 2, 4, 6)
    first.finish("KILLED")
    second = open_tracker(params={"optim.epochs": 9, "cluster.num_workers": 2}, tags={"new": "1"})
    second.flush()
    assert second.run_id == first.run_id
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"optim.epochs": "3"}
    write_steps(folder, 8)
    second.finish("FINISHED")
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "FINISHED"
    assert read_history(uri, first.run_id, "loss/total") == [(s, 1.0) for s in (2, 4, 6, 8)]
    assert second.num_failed_calls == 0


@pytest.mark.parametrize("is_record_lost", [False, True])
def test_mlflow_steps_done_again_after_a_rewind_are_there_once(
    uri: str, open_tracker: OpenTracker, folder: Path, is_record_lost: bool
) -> None:
    """Of a step that was done twice, the store keeps what it got first."""
    first = open_tracker()
    write_steps(folder, 2, 4, 6, seconds=1.0)
    first.close()  # killed without a word on its status
    if is_record_lost:
        (folder / "tracking" / "run.json").unlink()
    Journal(folder).rewind(2)
    second = open_tracker()
    write_steps(folder, 4, 6, 8, seconds=3.0)
    second.close()
    assert second.run_id == first.run_id
    steps = [step for step, _ in read_history(uri, first.run_id, "loss/total")]
    assert steps == [2, 4, 6, 8]
    seconds = read_history(uri, first.run_id, "loss/seconds")
    assert seconds == [(2, 1.0), (4, 1.0), (6, 1.0), (8, 3.0)]


def test_mlflow_folder_thrown_away_and_made_anew_is_another_run(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, folder: Path
) -> None:
    first = open_tracker()
    write_steps(folder, 2, 4)
    first.finish("FINISHED")
    for file in (folder / "tracking" / "run.json", folder / METRICS_FILE):
        file.unlink()
    write_none = open_tracker()
    write_steps(folder, 2)
    write_none.close()
    assert write_none.run_id != first.run_id
    assert read_history(uri, write_none.run_id, "loss/total") == [(2, 1.0)]
    assert len(list_runs(uri, request.node.name)) == 2


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
    before = time.time()
    open_tracker().finish(status)
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == status
    assert run.info.end_time >= 1000 * before - 1


def test_mlflow_added_results_leave_status_and_journal_alone(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, folder: Path
) -> None:
    first = open_tracker()
    first.finish("KILLED")
    write_steps(folder, 2)  # of a session that is going on elsewhere
    added = open_tracker(reopen=False, writer="evaluation-test")
    added.log_rows([{"step": 0, "evaluation/test/zero_shot/clip": 0.5}])
    added.close()
    (run,) = list_runs(uri, request.node.name)
    assert (run.info.status, run.info.run_id) == ("KILLED", first.run_id)
    assert run.data.metrics == {"evaluation/test/zero_shot/clip": 0.5}
    with pytest.raises(ConfigError, match="never"):
        open_tracker(run_name="never", reopen=False)


def test_mlflow_child_is_nested_and_closed_from_outside(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    parent = open_tracker(kind="sweep", run_name="sweep", run_folder=tmp_path / "sweep")
    names = {"run_name": "trial-1", "run_folder": tmp_path / "sweep" / "trial-1"}
    child = open_tracker(**names, parent_run_id=parent.run_id)
    write_steps(names["run_folder"], 2)
    child.close()
    write_steps(names["run_folder"], 4)  # killed before it could send this
    arguments: dict[str, Any] = {**names, "experiment": request.node.name}
    for _ in range(2):
        missing = close_run(uri, **arguments, status="FINISHED", tags={"lssl.stopped_early": "1"})
        assert missing is None
    last = max(row[TIME_KEY] for row in read_rows(names["run_folder"] / METRICS_FILE))
    ended = MlflowClient(tracking_uri=uri).get_run(child.run_id or "").info.end_time
    assert ended == round(1000 * last), "a trial ends when it did, not with its sweep"
    assert open_tracker(**names, parent_run_id=parent.run_id).run_id == child.run_id
    found = {run.info.run_name: run for run in list_runs(uri, request.node.name)}
    assert set(found) == {"sweep", "trial-1"}
    tags = found["trial-1"].data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id == found["sweep"].info.run_id
    assert (tags["lssl.kind"], tags["lssl.stopped_early"]) == ("train", "1")
    assert found["sweep"].data.tags["lssl.kind"] == "sweep"
    assert read_history(uri, child.run_id, "loss/total") == [(2, 1.0), (4, 1.0)]


def test_mlflow_record_says_the_same_as_the_store(
    uri: str, open_tracker: OpenTracker, folder: Path
) -> None:
    """A run resumed with nothing new sends nothing."""
    write_steps(folder, 1, 2)
    (folder / "summary.json").write_text("{}")
    for _ in range(2):
        tracker = open_tracker()
        tracker.log_artifact(folder / "summary.json")
        tracker.finish("FINISHED")
    assert (tracker.num_points_sent, tracker.num_artifacts_sent) == (0, 0)
    history = read_everything(uri, tracker.run_id or "")["history"]
    assert set(history.values()) == {1}  # type: ignore[attr-defined]
