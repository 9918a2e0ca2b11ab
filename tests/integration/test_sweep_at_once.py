"""A sweep on a Ray that is there already: two trials at once, Optuna, two seeds of each.

One node with logical cores for three trials and logical GPUs for one; all runs are real ones.
"""

import csv
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import tiny
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from several_nodes import Node, SeveralNodes, several_nodes
from sweep_process import SweepProcess

from lssl_ray.sweeping.record import PlannedTrial, open_record

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]

METRIC = "-loss/total"
AT_ONCE = 2
SWEEP_SECONDS = 1200
SPACE = '''"""Which rate?"""

from ray import tune


def build_space():
    return {"optim.learning_rate": tune.loguniform(1.0e-4, 1.0e-2)}
'''
COUNT_ROOM = """
import sys
from pathlib import Path
from lssl_ray.cluster.room import open_trial_room
from lssl_ray.config import load_config
from lssl_ray.errors import ClusterError

config = load_config(Path(sys.argv[1]), ["cluster.use_gpu=true", "cluster.num_workers=2"])
try:
    print(open_trial_room(config, wanted=int(sys.argv[2]) or None).count())
except ClusterError as error:
    print(error)
"""


@dataclass(frozen=True)
class Swept:
    """A sweep that ended, and what was seen of it."""

    folder: Path
    uri: str
    most_training: int
    own_ray: list[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SeveralNodes]:
    with several_nodes({"work": Node(num_cpus=9, num_gpus=3)}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    folder = tmp_path_factory.mktemp("at_once")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    values["run"] |= {"checkpoint_every": 6}
    values["optim"] |= {"epochs": 1000, "max_steps": 12}
    values["evaluation"]["manifests"] = {}
    values["tracking"] = {"uri": f"sqlite:///{folder / 'mlflow.db'}"}
    values["cluster"] = {"address": "auto", "decode_memory_mib": 1024}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    (folder / "rates.py").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def swept(cluster: SeveralNodes, workplace: Path) -> Swept:
    request = {
        "space": "rates.py",
        "config": "recipe.yaml",
        "search": "optuna",
        "scheduler": "none",
        "num_trials": 2,
        "num_seeds": 2,
        "metric": METRIC,
        "name": "at_once",
    }
    seen = [0]

    def note_workers() -> bool:
        seen.append(count_training(cluster))
        return sweep.process.poll() is not None or max(seen) >= AT_ONCE

    with SweepProcess(
        workplace, request=request, max_concurrent=AT_ONCE, environment=cluster.env
    ) as sweep:
        sweep.wait_until(note_workers)
        own_ray = [" ".join(process.cmdline()) for process in sweep.find("raylet")]
        sweep.wait(seconds=SWEEP_SECONDS)
    uri = f"sqlite:///{workplace / 'mlflow.db'}"
    return Swept(workplace / "runs" / "at_once", uri, max(seen), own_ray)


def count_training(cluster: SeveralNodes) -> int:
    """Training workers on the cluster's node."""
    return sum("RayTrainWorker" in read_command(one) for one in cluster.list_processes("work"))


def read_command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def list_trials(swept: Swept) -> list[PlannedTrial]:
    return open_record(swept.folder).trials


def test_every_trial_of_every_configuration_finishes(swept: Swept) -> None:
    trials = {trial.trial_id: trial for trial in list_trials(swept)}
    assert sorted(trials) == ["c001-s0", "c001-s1", "c002-s0", "c002-s1"]
    assert {trial.status for trial in trials.values()} == {"finished"}
    assert {trial.steps for trial in trials.values()} == {12}
    rates = [trials[f"c00{number}-s0"].values["optim.learning_rate"] for number in (1, 2)]
    assert rates[0] != rates[1] and all(1e-4 <= rate <= 1e-2 for rate in rates)
    for number in (1, 2):
        assert trials[f"c00{number}-s0"].values == trials[f"c00{number}-s1"].values


def test_trials_train_two_at_once_on_the_ray_that_is_there_and_never_three(swept: Swept) -> None:
    """From its recipe, written when a trial is given to Tune, to its summary, its last file."""
    moments = []
    for trial in list_trials(swept):
        began = (swept.folder / "recipes" / f"{trial.trial_id}.yaml").stat().st_mtime_ns
        ended = (swept.folder / "trials" / trial.trial_id / "summary.json").stat().st_mtime_ns
        moments += [(began, 1), (ended, -1)]
    running, most = 0, 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    assert most == AT_ONCE
    assert swept.most_training == AT_ONCE
    assert swept.own_ray == []


def test_leaderboard_has_mean_and_spread_of_both_seeds(swept: Swept) -> None:
    with (swept.folder / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = {trial.trial_id: trial.scores[METRIC] for trial in list_trials(swept)}
    assert [row["rank"] for row in rows] == ["1", "2"]
    for row in rows:
        own = [scores[name] for name in row["trials"].split()]
        assert (row["seeds"], row["seeds_scored"], len(own)) == ("2", "2", 2)
        assert own[0] != own[1], "seeds that change nothing tell nothing"
        assert float(row["score"]) == pytest.approx(statistics.mean(own))
        assert float(row["spread"]) == pytest.approx(statistics.stdev(own))
    assert float(rows[0]["score"]) >= float(rows[1]["score"])
    best = json.loads((swept.folder / "sweep.json").read_text())["best"]
    assert best["score"] == max(scores[name] for name in rows[0]["trials"].split())


def test_mlflow_has_a_parent_and_a_tagged_child_for_each_trial(swept: Swept) -> None:
    client = MlflowClient(swept.uri)
    experiment = client.get_experiment_by_name("lssl_ray")
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id]))
    (parent,) = [run for run in runs if run.data.tags["lssl.kind"] == "sweep"]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = {trial.trial_id: trial for trial in list_trials(swept)}
    assert Counter(run.data.tags["lssl.trial"] for run in children) == Counter(list(trials))
    for run in children:
        trial = trials[run.data.tags["lssl.trial"]]
        assert run.data.tags["lssl.configuration"] == f"c{trial.configuration:03d}"
        assert run.data.params["run.seed"] == str(trial.seed)
        assert run.data.metrics["loss/total"] == pytest.approx(-trial.scores[METRIC])


@pytest.mark.parametrize(("wanted", "expected"), [(0, "1"), (2, "3 GPUs")])
def test_logical_gpus_decide_how_many_trials_of_two_gpus_run(
    cluster: SeveralNodes, workplace: Path, wanted: int, expected: str
) -> None:
    """By cores two would fit: two workers, a decoder, evaluation each."""
    command = [sys.executable, "-c", COUNT_ROOM, str(workplace / "recipe.yaml"), str(wanted)]
    done = subprocess.run(
        command, env=cluster.env, capture_output=True, text=True, timeout=300, check=True
    )
    assert expected in done.stdout.strip()
