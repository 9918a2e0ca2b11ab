"""A tracked run in a real SQLite store: what is there, once, however often the run was resumed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_server import list_runs, read_everything, read_history, wait_until

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import METRICS_FILE, TIME_KEY, Journal, read_rows
from lssl_ray.tracking.mlflow import MlflowTracker, close_run

PARAMS = {f"section.key_{number}": number for number in range(230)} | {"long": "x" * 9000}
OpenTracker = Callable[..., MlflowTracker]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for this file: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run's folder, with an empty journal."""
    path = tmp_path / "runs" / "run"
    path.mkdir(parents=True)
    Journal(path)
    return path


@pytest.fixture
def open_tracker(uri: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[OpenTracker]:
    """Opens the tracker of the run in `folder`, in an experiment of the test's own."""
    opened = []

    def open_run(**changes: Any) -> MlflowTracker:
        arguments: dict[str, Any] = {
            "experiment": request.node.name,
            "run_name": "run",
            "run_folder": folder,
            "params": {"optim.epochs": 3},
            "tags": {"lssl.manifest_digest": "abc"},
        }
        opened.append(MlflowTracker(uri, **(arguments | changes)))
        return opened[-1]

    yield open_run
    for tracker in opened:
        tracker.close()


def write_steps(folder: Path, *steps: int, **figures: float) -> None:
    for step in steps:
        row = {f"loss/{name}": value for name, value in figures.items()}
        Journal(folder).append("metrics", {"step": step, "num_steps": 9, "loss/total": 1.0, **row})


def test_mlflow_new_run_has_params_tags_and_no_steps(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, folder: Path
) -> None:
    tracker = open_tracker(params=PARAMS)
    tracker.flush()
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "run"
    assert set(run.data.params) == set(PARAMS)
    assert run.data.params["section.key_229"] == "229"
    assert set(run.data.params["long"]) == {"x"}
    expected = {
        "lssl.manifest_digest": "abc",
        "lssl.run": "run",
        "lssl.run_folder": str(folder),
        "lssl.kind": "train",
    }
    assert run.data.tags.items() >= expected.items()
    assert (run.data.metrics, tracker.num_failed_calls) == ({}, 0)
    assert tracker.describe_missing() is None


def test_mlflow_experiment_opens_as_model_training(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest
) -> None:
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment(request.node.name)  # by someone else, without the mark
    open_tracker()
    experiment = client.get_experiment_by_name(request.node.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_mlflow_rows_of_a_long_journal_all_arrive_with_their_time(
    uri: str, open_tracker: OpenTracker, folder: Path
) -> None:
    for step in range(1, 1203):
        row = {f"loss/{n}": step + n / 10 for n in range(3)}
        Journal(folder).append("metrics", {"step": step, "num_steps": 400, **row})
    tracker = open_tracker()
    tracker.close()
    for n in range(3):
        expected = [(step, step + n / 10) for step in range(1, 1203)]
        assert read_history(uri, tracker.run_id, f"loss/{n}") == expected
    client = MlflowClient(tracking_uri=uri)
    assert set(client.get_run(tracker.run_id).data.metrics) == {"loss/0", "loss/1", "loss/2"}
    times = [metric.timestamp for metric in client.get_metric_history(tracker.run_id, "loss/0")]
    written = [round(1000 * row[TIME_KEY]) for row in read_rows(folder / METRICS_FILE)]
    assert sorted(times) == sorted(written)


def test_mlflow_rows_arrive_while_the_run_goes_on(
    uri: str, open_tracker: OpenTracker, folder: Path
) -> None:
    tracker = open_tracker()
    write_steps(folder, 2, 4)
    wait_until(lambda: len(read_history(uri, tracker.run_id, "loss/total")) == 2)
    Journal(folder).append("metrics", {"step": 2, "validation/val/zero_shot": 0.5})  # late
    wait_until(lambda: read_history(uri, tracker.run_id, "validation/val/zero_shot") == [(2, 0.5)])


def test_mlflow_non_finite_values_are_left_to_the_journal(
    uri: str, open_tracker: OpenTracker, folder: Path
) -> None:
    write_steps(folder, 1, a=float("nan"), b=2.0, c=float("inf"))
    tracker = open_tracker()
    tracker.close()
    metrics = MlflowClient(tracking_uri=uri).get_run(tracker.run_id).data.metrics
    assert metrics == {"loss/b": 2.0, "loss/total": 1.0}
    assert tracker.num_failed_calls == 0


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


def test_mlflow_results_outside_the_journal_are_there_once_and_corrected(
    uri: str, open_tracker: OpenTracker
) -> None:
    key = "zero_shot/val/adapted"
    for value in (0.5, 0.5, 0.25):
        tracker = open_tracker()
        tracker.log_rows([{"step": 9, key: value}])
        tracker.close()
    assert read_history(uri, tracker.run_id, key) == [(9, 0.25), (9, 0.5)]
    assert MlflowClient(tracking_uri=uri).get_run(tracker.run_id).data.metrics[key] == 0.25


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


def test_mlflow_artifacts_lie_beside_the_store_and_can_be_read_back(
    uri: str, open_tracker: OpenTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # whatever folder the run was started from
    tracker = open_tracker()
    (tmp_path / "summary.json").write_text("{}")
    tracker.log_artifact(tmp_path / "summary.json")
    tracker.close()
    client = MlflowClient(tracking_uri=uri)
    assert [item.path for item in client.list_artifacts(tracker.run_id)] == ["summary.json"]
    fetched = client.download_artifacts(tracker.run_id, "summary.json", str(tmp_path))
    assert Path(fetched).read_text() == "{}"
    store = Path(uri.removeprefix("sqlite:///")).parent
    assert Path(client.get_run(tracker.run_id).info.artifact_uri).is_relative_to(store)
    assert not (tmp_path / "mlruns").exists()


def test_mlflow_absent_artifact_is_told_and_holds_up_nothing(
    uri: str, open_tracker: OpenTracker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tracker = open_tracker()
    tracker.log_artifact(tmp_path / "never-written.json")
    tracker.finish("FINISHED")
    assert tracker.num_failed_calls == 1
    assert "never-written.json" in (tracker.describe_missing() or "")
    (run,) = list_runs(uri, request.node.name)
    assert run.info.status == "FINISHED"


def test_mlflow_metric_that_is_refused_costs_no_other(
    uri: str, open_tracker: OpenTracker, folder: Path
) -> None:
    write_steps(folder, 1, **{"odd\\name?": 3.0, "good": 2.0})
    tracker = open_tracker()
    tracker.close()
    metrics = MlflowClient(tracking_uri=uri).get_run(tracker.run_id).data.metrics
    assert metrics == {"loss/total": 1.0, "loss/good": 2.0}
    assert "odd" in (tracker.describe_missing() or "")
    write_steps(folder, 2, good=4.0)
    again = open_tracker()
    again.close()
    assert read_history(uri, tracker.run_id, "loss/good") == [(1, 2.0), (2, 4.0)]


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


@pytest.mark.parametrize(
    "wrong", ["sqlite:////proc/none/mlflow.db", "carrier-pigeon://coop", "http://127.0.0.1:9"]
)
def test_mlflow_store_that_cant_be_opened_is_a_config_error(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        MlflowTracker(wrong, experiment="e", run_name="r", run_folder=tmp_path, params={}, tags={})
    assert wrong in str(caught.value)
    assert "tracking.uri=null" in str(caught.value)


def test_mlflow_settings_in_the_environment_are_taken_back(open_tracker: OpenTracker) -> None:
    before = dict(os.environ)
    open_tracker().close()
    assert dict(os.environ) == before


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
