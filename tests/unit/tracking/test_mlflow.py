"""What of a tracked run arrives in a real SQLite store, and what is refused there."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_server import list_runs, read_history, wait_until
from tracked_run import OpenTracker, write_steps

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.journal import METRICS_FILE, TIME_KEY, Journal, read_rows
from lssl_ray.tracking.mlflow import MlflowTracker

PARAMS = {f"section.key_{number}": number for number in range(230)} | {"long": "x" * 9000}


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
