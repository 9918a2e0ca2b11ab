"""The run on Ray, as a user starts it: equal to the local one, and alive after kills.

Every test starts `lssl-ray train` as a process of its own, with a Ray of its own on loopback, and
ends only processes that it started.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tiny
import torch
import yaml
from mlflow import MlflowClient
from run_checks import check_same_training, count_rows, read_tracked
from run_process import RunProcess

from lssl_ray.tracking.journal import read_rows

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NUM_STEPS = 60
WORKER_NAME = "RayTrainWorker"


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A folder with a recipe, shared by the runs of this file."""
    folder = tmp_path_factory.mktemp("ray_runs")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": 10}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["tracking"] = {"uri": f"sqlite:///{folder / 'mlflow.db'}"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def start(workplace: Path) -> Iterator[Callable[..., RunProcess]]:
    """Starts runs and ends what is left of them."""
    started: list[RunProcess] = []

    def start_run(*arguments: str) -> RunProcess:
        started.append(RunProcess(workplace, *arguments))
        return started[-1]

    yield start_run
    for run in started:
        run.close()


@pytest.fixture(scope="module")
def local_run(workplace: Path) -> Path:
    """The reference: the same recipe in one process, without Ray, in one go."""
    run = RunProcess(workplace, "--config", "recipe.yaml", "--run-name", "local", "--local")
    run.wait()
    return workplace / "runs" / "local"


def test_ray_run_equals_local_run_to_the_bit(
    workplace: Path, local_run: Path, start: Callable[..., RunProcess]
) -> None:
    run = start("--config", "recipe.yaml", "--run-name", "straight")
    text = run.wait()
    folder = workplace / "runs" / "straight"
    check_same_training(folder, local_run, num_steps=NUM_STEPS)
    summary = json.loads((folder / "summary.json").read_text())
    reference = json.loads((local_run / "summary.json").read_text())
    assert summary["finished"] and summary["zero_shot"] == reference["zero_shot"]
    assert [tracked.info.status for tracked in read_tracked(workplace, "straight")] == ["FINISHED"]
    assert "Traceback" not in text and len(text.splitlines()) < NUM_STEPS + 40


def test_killed_training_worker_is_replaced_and_the_run_finishes(
    workplace: Path, local_run: Path, start: Callable[..., RunProcess]
) -> None:
    run = start("--config", "recipe.yaml", "--run-name", "worker-killed")
    folder = workplace / "runs" / "worker-killed"
    run.wait_until(lambda: count_rows(folder) >= 13)
    (worker,) = run.find_descendants(WORKER_NAME)
    worker.kill()
    assert count_rows(folder) < NUM_STEPS, "the worker was killed too late to prove anything"
    run.wait()
    check_same_training(folder, local_run, num_steps=NUM_STEPS)
    (tracked,) = read_tracked(workplace, "worker-killed")
    assert tracked.info.status == "FINISHED"


def test_killed_driver_leaves_no_process_and_resumes_in_the_same_mlflow_run(
    workplace: Path, local_run: Path, start: Callable[..., RunProcess]
) -> None:
    run = start("--config", "recipe.yaml", "--run-name", "driver-killed")
    folder = workplace / "runs" / "driver-killed"
    run.wait_until(lambda: count_rows(folder) >= 13)
    descendants = run.find_descendants("")
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    assert count_rows(folder) < NUM_STEPS, "the driver was killed too late to prove anything"
    # Ray's own small agents look for their node only now and then; the rest must go at once.
    agents = [process for process in descendants if "Agent" in process.name()]
    workers = [process for process in descendants if process not in agents]
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    (before,) = read_tracked(workplace, "driver-killed")
    start("--resume", "driver-killed").wait()
    assert psutil.wait_procs(agents, timeout=120)[1] == []
    check_same_training(folder, local_run, num_steps=NUM_STEPS)
    (after,) = read_tracked(workplace, "driver-killed")
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    steps = [metric.step for metric in client.get_metric_history(after.info.run_id, "loss/total")]
    assert sorted(steps) == list(range(1, NUM_STEPS + 1))


@pytest.mark.long
def test_run_that_gives_up_on_its_workers_ends_and_says_how_to_go_on(
    workplace: Path, start: Callable[..., RunProcess]
) -> None:
    arguments = ("--run-name", "given-up", "--set", "cluster.max_failures=0")
    run = start("--config", "recipe.yaml", *arguments)
    folder = workplace / "runs" / "given-up"
    run.wait_until(lambda: count_rows(folder) >= 13)
    started = run.find_descendants("")
    (worker,) = run.find_descendants(WORKER_NAME)
    worker.kill()
    assert run.process.wait(300) == 2, run.output.read_text()
    said = " ".join(run.output.read_text().split())
    # By its folder: a name is looked for below runs/ of whatever folder one is in.
    assert "cluster.max_failures=0" in said and f"--resume {folder}" in said
    assert [tracked.info.status for tracked in read_tracked(workplace, "given-up")] == ["FAILED"]
    assert psutil.wait_procs(started, timeout=120)[1] == []


def test_two_workers_train_like_one(
    workplace: Path, local_run: Path, start: Callable[..., RunProcess]
) -> None:
    start(
        *("--config", "recipe.yaml", "--run-name", "two-workers"),
        *("--set", "cluster.num_workers=2", "--set", "cluster.num_decoders=2"),
    ).wait()
    folder = workplace / "runs" / "two-workers"
    rows = list(read_rows(folder / "metrics.jsonl"))
    reference = list(read_rows(local_run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [row["step"] for row in reference]
    assert rows[-1]["data/clips_trained"] == reference[-1]["data/clips_trained"]
    # Float32 sums in another order drift apart with the steps; the first ones must agree closely.
    for name in ("loss/distill_category", "loss/align", "loss/prior_category"):
        ours = torch.tensor([row[name] for row in rows[:5]])
        torch.testing.assert_close(
            ours, torch.tensor([row[name] for row in reference[:5]]), rtol=1e-4, atol=1e-5
        )
