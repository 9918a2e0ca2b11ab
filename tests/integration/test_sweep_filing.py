"""The end of a sweep with MLflow away, or back again: its results are filed all the same."""

import csv
import io
import json
import shutil
import socket
from pathlib import Path

import pytest
import tiny
from mlflow import MlflowClient
from rich.console import Console

from lssl_ray.display import RunDisplay
from lssl_ray.sweeping.filing import SweepTracker, file_results
from lssl_ray.sweeping.record import SweepFolder, SweepRecord, SweepSettings, create_record
from lssl_ray.tracking.base import NullTracker
from lssl_ray.tracking.outbox import Outbox
from lssl_ray.tracking.service import TrackedRun

pytestmark = pytest.mark.timeout(240)

METRIC = "-loss/total"
SETTINGS = SweepSettings(
    name="mine",
    space="rates",
    question="Which rate?",
    search="grid",
    scheduler="none",
    select=METRIC,
    num_configurations=None,
    num_seeds=1,
    seed=0,
    working_folder="/",
)


@pytest.fixture
def record(trained_run: Path, tmp_path: Path) -> SweepRecord:
    """A sweep whose only trial has finished."""
    record = create_record(SweepFolder(tmp_path / "mine"), SETTINGS)
    record.plan({"optim.learning_rate": 0.05}, {"optim.learning_rate": 0.05})
    record.change("c001-s0", status="finished", steps=4, scores={METRIC: -1.5})
    shutil.copytree(trained_run, record.folder.trials / "c001-s0")
    return record


def file_away(record: SweepRecord, uri: str, clip: Path, videos: tiny.VideoSet) -> None:
    """File the results of a sweep whose trial could not reach MLflow when it ended."""
    trial = record.folder.trials / "c001-s0"
    run = TrackedRun(uri, "sweeps", "c001-s0", str(trial), "train", None, {}, {})
    Outbox(trial / "tracking" / "run.json", run).set_status("FINISHED", unix_ms=1_000_000)
    values = tiny.build_recipe_values(clip, videos, run_folder=record.folder.trials)
    values["tracking"] = {"uri": uri, "experiment": "sweeps"}
    base = tiny.build_run_config(values)
    with RunDisplay(Console(file=io.StringIO())) as display:
        file_results(record, base, SweepTracker(NullTracker()), display)


def test_results_are_filed_while_the_registry_is_away(
    record: SweepRecord,
    tiny_clip_dir: Path,
    videos: tiny.VideoSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        file_away(record, uri, tiny_clip_dir, videos)
    ending = json.loads(record.folder.record.read_text())
    assert (ending["best"]["trial_id"], ending["model_version"]) == ("c001-s0", None)
    with (record.folder.path / "leaderboard.csv").open(newline="") as file:
        assert [row["trials"] for row in csv.DictReader(file)] == ["c001-s0"]
    assert (record.folder.path / "best_model" / "MLmodel").is_file()


def test_trial_that_ended_during_an_outage_is_in_mlflow_at_the_end_of_its_sweep(
    record: SweepRecord, tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.search_experiments()  # makes the tables, which takes longer than a sweep's end waits
    file_away(record, uri, tiny_clip_dir, videos)
    experiment = client.get_experiment_by_name("sweeps")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("c001-s0", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4]
    (version,) = client.search_model_versions("name = 'mine'")
    assert version.run_id == run.info.run_id
