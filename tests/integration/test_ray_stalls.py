"""Runs on Ray that stand still: what froze is found by the worker, what is missing by the driver.

A frozen process (SIGSTOP) is what a hanging decoder library, a dead mount or a lost machine looks
like from a training worker: nothing fails, and no batch comes.
"""

import signal
from pathlib import Path

import pytest
import tiny
import yaml
from run_checks import check_same_training, count_rows
from run_process import RunProcess
from several_nodes import Node, several_nodes

from lssl_ray.tracking.journal import read_rows

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

NUM_STEPS = 60
# Longer than a loaded machine takes from a worker's start to its first batch.
STALL_SECONDS = 120.0
WAIT_SECONDS = 900


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    folder = tmp_path_factory.mktemp("ray_stalls")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": 10}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["evaluation"] = {}
    values["health"] = {"stall_seconds": STALL_SECONDS}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def local_run(workplace: Path) -> Path:
    """The reference: the same recipe in one process, without Ray."""
    with RunProcess(workplace, "--config", "recipe.yaml", "--run-name", "local", "--local") as run:
        run.wait()
    return workplace / "runs" / "local"


def test_run_whose_decoders_freeze_is_restarted_and_finishes_with_the_same_weights(
    workplace: Path, local_run: Path
) -> None:
    folder = workplace / "runs" / "frozen"
    with RunProcess(workplace, "--config", "recipe.yaml", "--run-name", "frozen") as run:
        run.wait_until(lambda: count_rows(folder) >= 13)
        frozen = [*run.find_descendants("MapWorker"), *run.find_descendants("decode_child")]
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        assert frozen and count_rows(folder) < NUM_STEPS, "frozen too late to prove anything"
        run.wait(seconds=WAIT_SECONDS)
    check_same_training(folder, local_run, num_steps=NUM_STEPS)
    (dump,) = (folder / "logs").glob("stall_rank0_*.txt")
    text = dump.read_text()
    assert text.startswith("Rank 0 ") and "waiting for its next batch" in text.splitlines()[0]
    assert "_next_batch" in text and "loop.py" in text
    (stall,) = [row for row in read_rows(folder / "events.jsonl") if row["event"] == "stall"]
    assert stall["dump"] == dump.name and stall["rank"] == 0


def test_run_whose_workers_fit_nowhere_says_so_and_starts_when_a_node_comes(
    workplace: Path,
) -> None:
    with (
        several_nodes({"small": Node(num_cpus=1)}) as cluster,
        RunProcess(
            workplace,
            *("--config", "recipe.yaml", "--run-name", "waiting"),
            *("--set", "cluster.address=auto", "--set", "cluster.cpus_per_worker=2"),
            *("--set", "optim.max_steps=4"),
            environment=cluster.env,
        ) as run,
    ):
        run.wait_until(lambda: "Each needs 2 CPU; 0 fit" in run.output.read_text())
        assert "1 CPU in all" in run.output.read_text()
        cluster.start_node("large", Node(num_cpus=3))
        run.wait(seconds=WAIT_SECONDS)
    assert count_rows(workplace / "runs" / "waiting") == 4
