"""Runs that faults are done to: long enough to be hit, small enough to be done again."""

import time
from pathlib import Path
from typing import Any

import psutil
import tiny
import yaml
from run_checks import check_each_clip_once, check_same_training, read_tracked
from run_process import RunProcess
from several_nodes import Node, SeveralNodes

from lssl_ray.tracking.journal import EVENTS_FILE, read_rows

# So many that a fault comes before the end, however late a busy machine lets the test see it.
NUM_STEPS, CHECKPOINT_EVERY = 400, 20
WAIT_SECONDS = 900
TRAIN = Node(num_cpus=1, labels={"pool": "train"})
DECODE = Node(num_cpus=3, labels={"pool": "decode"})
ON_NODES = {
    "address": "auto",
    "train_labels": dict(TRAIN.labels),
    "decode_labels": dict(DECODE.labels),
    "max_failures": 10,
}
# Of a run, on whichever node: trainer, decoders and their children, and who deals out the clips.
PROCESSES = ("RayTrainWorker", "MapWorker", "lssl_ray.video.decode_child", "SplitCoordinator")


def write_recipe(
    folder: Path, clip: Path, videos: tiny.VideoSet, *, cluster: dict[str, Any]
) -> Path:
    """A workplace with `recipe.yaml` and an MLflow store; returns it."""
    values = tiny.build_recipe_values(clip, videos, run_folder=folder / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": CHECKPOINT_EVERY}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["data"]["audit"] = True
    values["cluster"] = cluster
    values["tracking"] = {"uri": f"sqlite:///{folder / 'mlflow.db'}"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder


def train_undisturbed(workplace: Path) -> Path:
    """The reference: the same recipe in one process, without Ray, in one go."""
    run = RunProcess(workplace, "--config", "recipe.yaml", "--run-name", "undisturbed", "--local")
    with run:
        run.wait(seconds=WAIT_SECONDS)
    return workplace / "runs" / "undisturbed"


def check_undisturbed(workplace: Path, name: str, reference: Path) -> None:
    """Same weights to the bit, same rows, each clip once, one MLflow run with all of it."""
    folder = workplace / "runs" / name
    check_same_training(folder, reference, num_steps=NUM_STEPS)
    check_each_clip_once(folder, num_steps=NUM_STEPS)
    (tracked,) = read_tracked(workplace, name)
    assert tracked.info.status == "FINISHED"


def count_events(folder: Path, event: str) -> int:
    """What the run says happened to it."""
    return sum(row["event"] == event for row in read_rows(folder / EVENTS_FILE))


def wait_until_idle(cluster: SeveralNodes, *names: str) -> None:
    """Wait until no process of a run is left on these nodes."""
    deadline = time.monotonic() + 120
    while left := [line for name in names for line in list_lines(cluster, name)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def list_lines(cluster: SeveralNodes, name: str, *words: str) -> dict[str, psutil.Process]:
    """A node's processes that belong to a run, by command line and id."""
    found = {}
    for process in cluster.list_processes(name):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(word in line for word in words or PROCESSES):
            found[f"{process.pid} {line}"] = process
    return found
