"""A training worker killed on a node of its own, with MLflow's server gone: both at once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from fault_runs import (
    DECODE,
    NUM_STEPS,
    ON_NODES,
    TRAIN,
    WAIT_SECONDS,
    count_events,
    list_lines,
    train_undisturbed,
    wait_until_idle,
    write_recipe,
)
from mlflow_server import MlflowServer, list_runs, read_history
from run_checks import check_each_clip_once, check_same_training, count_rows, measure_pause
from run_process import RunProcess
from several_nodes import several_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(2 * WAIT_SECONDS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = MlflowServer(folder)
    server.start()
    yield server
    server.stop()


def test_killed_worker_and_a_tracking_server_away_cost_neither_steps_nor_rows(
    tmp_path: Path,
    tiny_clip_dir: Path,
    videos: tiny.VideoSet,
    server: MlflowServer,
    record_property: Callable[[str, object], None],
) -> None:
    workplace = write_recipe(tmp_path, tiny_clip_dir, videos, cluster=ON_NODES)
    reference = train_undisturbed(workplace)
    folder = workplace / "runs" / "worker-killed"
    arguments = ("--config", "recipe.yaml", "--run-name", "worker-killed")
    with several_nodes({"train": TRAIN, "decode": DECODE}) as cluster:
        settings = ("--set", f"tracking.uri={server.address}")
        with RunProcess(workplace, *arguments, *settings, environment=cluster.env) as run:
            run.wait_until(lambda: count_rows(folder) >= 25, seconds=WAIT_SECONDS)
            server.stop()
            (worker,) = list_lines(cluster, "train", "RayTrainWorker").values()
            worker.kill()
            killed = time.time()
            run.wait_until(lambda: count_rows(folder) >= 45, seconds=WAIT_SECONDS)
            assert count_rows(folder) < NUM_STEPS, "nobody was away while it trained"
            server.start()
            run.wait(seconds=WAIT_SECONDS)
        wait_until_idle(cluster, "train", "decode")
    check_same_training(folder, reference, num_steps=NUM_STEPS)
    check_each_clip_once(folder, num_steps=NUM_STEPS)
    assert count_events(folder, "restart") == 1
    (tracked,) = list_runs(server.address, "lssl_ray")
    assert tracked.info.status == "FINISHED"
    history = read_history(server.address, tracked.info.run_id, "loss/total")
    assert [step for step, _ in history] == list(range(1, NUM_STEPS + 1))
    record_property("pause after: worker", measure_pause(folder, since=killed))
