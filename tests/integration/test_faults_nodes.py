"""Nodes that go without a word, under a run of several: nothing is lost but the time.

Each run is a process of its own that joins the cluster, as a job on its head does. Where nodes go
with a notice is in `test_ray_elastic.py`.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny
from fault_runs import (
    CHECKPOINT_EVERY,
    DECODE,
    NUM_STEPS,
    ON_NODES,
    TRAIN,
    WAIT_SECONDS,
    check_undisturbed,
    count_events,
    list_lines,
    train_undisturbed,
    wait_until_idle,
    write_recipe,
)
from run_checks import count_rows, measure_pause, read_tracked
from run_process import RunProcess
from several_nodes import several_nodes

from lssl_ray.training.checkpoint import checkpoint_name

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(2 * WAIT_SECONDS)]

# In training workers only: the first upload of these checkpoints stops, for ever, after this part.
STOPPED = {"step_00000060": 0.5, "step_00000100": 1.0}
SABOTAGE = f"""
import os
import shutil
import sys
import time
from pathlib import Path

if "default_worker.py" in " ".join(sys.orig_argv):
    import pyarrow.fs

    copy_files = pyarrow.fs.copy_files

    def stop(source, destination, **options):
        name = Path(str(destination)).name
        marker = Path(os.environ["FAULTS"], name)
        if name not in {STOPPED} or marker.exists():
            return copy_files(source, destination, **options)
        files = sorted(Path(source).iterdir())
        for file in files[: round({STOPPED}[name] * len(files))]:
            shutil.copy(file, destination)
        marker.touch()
        time.sleep(10_000)

    pyarrow.fs.copy_files = stop
"""


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A folder with a recipe and sabotage, shared by the runs of this file."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sabotage").mkdir()
    (folder / "sabotage" / "sitecustomize.py").write_text(SABOTAGE)
    return write_recipe(folder, tiny_clip_dir, videos, cluster=ON_NODES)


@pytest.fixture(scope="module")
def reference(workplace: Path) -> Path:
    """The same training without Ray and without faults."""
    return train_undisturbed(workplace)


def test_training_nodes_lost_between_and_within_checkpoints(
    workplace: Path, reference: Path, record_property: Callable[[str, object], None]
) -> None:
    environment = {"FAULTS": str(workplace), "PYTHONPATH": str(workplace / "sabotage")}
    folder, killed = workplace / "runs" / "nodes-lost", []
    nodes = {"train-0": TRAIN, "decode": DECODE}
    with several_nodes(nodes, environment=environment) as cluster:
        arguments = ("--config", "recipe.yaml", "--run-name", "nodes-lost")
        with RunProcess(workplace, *arguments, environment=cluster.env) as run:
            run.wait_until(lambda: count_rows(folder) >= 25, seconds=WAIT_SECONDS)
            cluster.kill_node("train-0")
            killed.append(time.time())
            assert count_rows(folder) < NUM_STEPS, "killed too late to prove anything"
            cluster.start_node("train-1", TRAIN)
            for number, name in enumerate(STOPPED, start=1):
                run.wait_until((workplace / name).exists, seconds=WAIT_SECONDS)
                cluster.start_node(f"train-{number + 1}", TRAIN)
                cluster.kill_node(f"train-{number}")
                killed.append(time.time())
            run.wait(seconds=WAIT_SECONDS)
        wait_until_idle(cluster, "decode", "train-3")
    check_undisturbed(workplace, "nodes-lost", reference)
    assert count_events(folder, "restart") == len(killed)
    # Half of step 60 was there, all of step 100, though nobody had been told.
    assert count_events(folder, "damaged_checkpoint") == 1
    names = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert names == [checkpoint_name(NUM_STEPS - CHECKPOINT_EVERY), checkpoint_name(NUM_STEPS)]
    for moment, seconds in zip(("training", *STOPPED), killed, strict=True):
        record_property(f"pause after a node lost: {moment}", measure_pause(folder, since=seconds))


def test_decoder_decode_node_and_driver_lost_in_one_run(
    workplace: Path, reference: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = workplace / "runs" / "decoding-lost"
    with several_nodes({"train": TRAIN, "decode-0": DECODE}) as cluster:
        arguments = ("--config", "recipe.yaml", "--run-name", "decoding-lost")
        with RunProcess(workplace, *arguments, environment=cluster.env) as run:
            run.wait_until(lambda: count_rows(folder) >= 25, seconds=WAIT_SECONDS)
            (decoder,) = list_lines(cluster, "decode-0", "MapWorker").values()
            children = decoder.children()
            decoder.kill()
            actor_killed = time.time()
            assert psutil.wait_procs(children, timeout=60)[1] == []
            run.wait_until(lambda: count_rows(folder) >= 65, seconds=WAIT_SECONDS)
            cluster.start_node("decode-1", DECODE)
            cluster.kill_node("decode-0")
            node_killed = time.time()
            # Workers take some steps yet until Ray has seen that their driver is dead.
            run.wait_until(lambda: count_rows(folder) >= 85, seconds=WAIT_SECONDS)
            run.process.send_signal(signal.SIGKILL)
            run.process.wait()
            assert count_rows(folder) < NUM_STEPS, "killed too late to prove anything"
        # The cluster goes on; of the run nothing does.
        wait_until_idle(cluster, "train", "decode-1")
        (before,) = read_tracked(workplace, "decoding-lost")
        resubmitted = time.time()
        arguments = ("--resume", "decoding-lost")
        with RunProcess(workplace, *arguments, environment=cluster.env) as run:
            run.wait(seconds=WAIT_SECONDS)
    check_undisturbed(workplace, "decoding-lost", reference)
    (after,) = read_tracked(workplace, "decoding-lost")
    assert after.info.run_id == before.info.run_id
    # Training never stopped for a decoder: its workers were not started again.
    assert count_events(folder, "restart") == 0
    moments = {"decoder": actor_killed, "decode node": node_killed, "resubmitting": resubmitted}
    for moment, seconds in moments.items():
        record_property(f"pause after: {moment}", measure_pause(folder, since=seconds))


def test_whole_cluster_lost_with_its_head_and_another_one_goes_on(
    workplace: Path, reference: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = workplace / "runs" / "head-lost"
    nodes = {"train": TRAIN, "decode": DECODE}
    with several_nodes(nodes) as cluster:
        arguments = ("--config", "recipe.yaml", "--run-name", "head-lost")
        with RunProcess(workplace, *arguments, environment=cluster.env) as run:
            run.wait_until(lambda: count_rows(folder) >= 45, seconds=WAIT_SECONDS)
            for name in ("head", *nodes):
                cluster.kill_node(name)
            lost = time.time()
            assert count_rows(folder) < NUM_STEPS, "killed too late to prove anything"
            # A driver elsewhere than on the head is not left waiting for ever.
            assert run.process.wait(WAIT_SECONDS) != 0
            record_property("driver's end after the head", time.time() - lost)
    with several_nodes(nodes) as cluster:
        resubmitted = time.time()
        with RunProcess(workplace, "--resume", "head-lost", environment=cluster.env) as run:
            run.wait(seconds=WAIT_SECONDS)
    check_undisturbed(workplace, "head-lost", reference)
    record_property("pause after: resubmitting", measure_pause(folder, since=resubmitted))
