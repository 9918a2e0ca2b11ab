"""Sweeps on a Ray of their own: trials that die, are stopped or refused; a sweep that is killed.

Each sweep is a process of its own with logical cores for one trial: a trial that kept its cores
after its end would leave none to the next one.
"""

import csv
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from sweep_process import SweepProcess

from lssl_ray.config import load_config
from lssl_ray.sweeping.record import PlannedTrial, open_record
from lssl_ray.tracking.journal import read_rows

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]

NUM_STEPS = 60
METRIC = "-loss/total"
WORKER_NAME = "RayTrainWorker"
# A configuration each, run in this order. All train the same way, so that none is stopped for a
# worse score, but the poor one: its loss weighs a thousandfold.
FATES = ["worker killed", "driver killed", "raises", "poor", "refused", "sweep killed"]
SPACE = '''"""What becomes of trials that are treated like this?"""

from ray import tune


def build_space():
    return {"fate": tune.choice(FATES)}


def derive_settings(values):
    settings = {"optim.weight_decay": [0.04, 0.1]}
    if values["fate"] == "poor":
        settings["objective.weight_distill_category"] = 1000.0
    if values["fate"] == "raises":
        settings["views.flip_probability"] = 0.123
    if values["fate"] == "refused":
        settings["optim.learning_rate"] = 1.0e+30
    return settings
'''
# Python imports a module of this name in every process: one trial's driver breaks off at once.
SABOTAGE = """
import os
import sys

if "lssl_ray.sweeping.trial_run" in sys.orig_argv:
    with open(sys.orig_argv[-1]) as recipe:
        if "flip_probability: 0.123" in recipe.read():
            print("ValueError: sabotaged", file=sys.stderr, flush=True)
            os._exit(1)
"""


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A folder with space, recipe and sabotage."""
    folder = tmp_path_factory.mktemp("sweeps")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": 10}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["evaluation"]["manifests"] = {}
    values["tracking"] = {"uri": f"sqlite:///{folder / 'mlflow.db'}"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    space = SPACE.replace("def build_space", f"FATES = {FATES}\n\n\ndef build_space")
    (folder / "fates.py").write_text(space)
    (folder / "sabotage").mkdir()
    (folder / "sabotage" / "sitecustomize.py").write_text(SABOTAGE)
    return folder


@pytest.fixture(scope="module")
def ended(workplace: Path) -> Iterator[Path]:
    """A sweep whose trials met their fates, killed itself in the last one and resumed."""
    path = workplace / "runs" / "fates"
    request = {
        "space": "fates.py",
        "config": "recipe.yaml",
        "search": "grid",
        "metric": METRIC,
        "name": "fates",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.fspath(workplace / "sabotage"), prepend=os.pathsep)
        with SweepProcess(workplace, request=request) as sweep:
            for fate, name in (("worker killed", WORKER_NAME), ("driver killed", "trial_run")):
                _wait_for_rows(sweep, path, fate)
                for process in sweep.find(name):
                    process.kill()
            _wait_for_rows(sweep, path, "sweep killed")
            left = sweep.find()
            sweep.process.send_signal(signal.SIGKILL)
            sweep.wait_for_end(left)
        _note_rows(path)
        with SweepProcess(workplace, resume="fates") as sweep:
            sweep.wait()
    yield path


def find_trial(path: Path, fate: str) -> PlannedTrial:
    (trial,) = [trial for trial in open_record(path).trials if trial.values == {"fate": fate}]
    return trial


def find_runs(workplace: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lssl_ray")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def list_steps(path: Path, fate: str) -> list[int]:
    rows = read_rows(path / "trials" / find_trial(path, fate).trial_id / "metrics.jsonl")
    return [row["step"] for row in rows if "loss/total" in row]


def test_every_trial_is_in_the_record_with_its_end(ended: Path) -> None:
    ends = {trial.values["fate"]: trial.status for trial in open_record(ended).trials}
    assert ends == {
        "worker killed": "finished",
        "driver killed": "finished",
        "raises": "failed",
        "poor": "stopped_early",
        "refused": "failed",
        "sweep killed": "finished",
    }


@pytest.mark.parametrize("fate", ["worker killed", "driver killed", "sweep killed"])
def test_a_trial_that_was_killed_goes_on_from_its_checkpoint(ended: Path, fate: str) -> None:
    assert list_steps(ended, fate) == list(range(1, NUM_STEPS + 1))


def test_only_a_trial_that_breaks_off_is_run_again(ended: Path) -> None:
    retries = {trial.values["fate"]: trial.num_retries for trial in open_record(ended).trials}
    assert retries["driver killed"] == 1
    assert retries["raises"] == 2
    assert retries["refused"] == retries["worker killed"] == 0


def test_a_failed_trial_says_why(ended: Path) -> None:
    assert "sabotaged" in find_trial(ended, "raises").reason
    assert "finite" in find_trial(ended, "refused").reason


def test_a_trial_stopped_early_is_not_trained_to_its_end(ended: Path) -> None:
    trial = find_trial(ended, "poor")
    assert "%" in trial.reason
    assert not (ended / "trials" / trial.trial_id / "summary.json").exists()


def test_finished_trials_are_not_run_again_by_a_resumed_sweep(ended: Path) -> None:
    before = json.loads((ended / "rows_before.json").read_text())
    for fate, states in before.items():
        assert _state(ended, fate) == states, fate
    assert set(before) == set(FATES) - {"sweep killed"}


def test_leaderboard_ranks_finished_trials_and_lists_the_others(ended: Path) -> None:
    with (ended / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(FATES)
    assert [row["status"] for row in rows].count("finished") == 3
    assert rows[0]["status"] == "finished"
    assert {row["status"] for row in rows[-2:]} == {"failed"}


def test_the_best_configuration_is_a_recipe(ended: Path) -> None:
    best = json.loads((ended / "sweep.json").read_text())["best"]
    scores = {trial.trial_id: trial.scores.get(METRIC) for trial in open_record(ended).trials}
    assert best["score"] == scores[best["trial_id"]]
    recipe = load_config(ended / "best_recipe.yaml")
    own = load_config(ended / "trials" / best["trial_id"] / "run_config.yaml")
    assert recipe.optim == own.optim
    assert recipe.objective == own.objective


def test_mlflow_has_one_parent_and_one_run_for_each_trial_that_began(
    ended: Path, workplace: Path
) -> None:
    runs = find_runs(workplace)
    (parent,) = [run for run in runs if run.data.tags["lssl.kind"] == "sweep"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId")]
    names = sorted(run.info.run_name for run in children)
    # The sabotaged one never came so far as to have a run.
    expected = [trial for trial in open_record(ended).trials if trial.values["fate"] != "raises"]
    assert names == sorted(trial.trial_id for trial in expected)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"


def test_mlflow_runs_end_as_their_trials_did(ended: Path, workplace: Path) -> None:
    runs = {run.info.run_name: run for run in find_runs(workplace)}
    for trial in open_record(ended).trials:
        if trial.values["fate"] == "raises":
            continue
        run = runs[trial.trial_id]
        assert run.info.status == ("FAILED" if trial.status == "failed" else "FINISHED")
        stopped = run.data.tags.get("lssl.stopped_early") == "true"
        assert stopped == (trial.status == "stopped_early")


def test_the_best_teacher_is_a_model_version(ended: Path, workplace: Path) -> None:
    summary = json.loads((ended / "sweep.json").read_text())
    client = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'fates'")
    assert [f"models:/{v.name}/{v.version}" for v in versions] == [summary["model_version"]]
    assert versions[0].tags["lssl.trial"] == summary["best"]["trial_id"]


def _wait_for_rows(sweep: SweepProcess, path: Path, fate: str) -> None:
    """Until a trial has passed a checkpoint, and is far from its end."""

    def has_rows() -> bool:
        if not (path / "sweep.json").exists():
            return False
        started = [trial for trial in open_record(path).trials if trial.values == {"fate": fate}]
        return bool(started) and max(list_steps(path, fate), default=0) >= 12

    sweep.wait_until(has_rows)


def _state(path: Path, fate: str) -> dict[str, Any]:
    folder = path / "trials" / find_trial(path, fate).trial_id
    return {name.name: name.stat().st_mtime_ns for name in sorted(folder.glob("*.json*"))}


def _note_rows(path: Path) -> None:
    """When the files of the trials that ended before the kill were last written."""
    ended = [trial for trial in open_record(path).trials if trial.status not in ("running",)]
    states = {trial.values["fate"]: _state(path, trial.values["fate"]) for trial in ended}
    (path / "rows_before.json").write_text(json.dumps(states))
