"""Runs with `run.storage` on Ray: only the driver's machine has the run folder, and may be lost.

The machines of other nodes are played by a mount namespace in which the driver's folder is empty.
"""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from run_checks import check_same_training, count_rows, load_final, read_tracked
from run_process import RunProcess
from several_nodes import Node, several_nodes

from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.checkpoint import find_damage
from lssl_ray.validation.records import read_evaluations

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

NUM_STEPS, EVERY = 60, 10
WAIT_SECONDS = 900
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
KEY = "validation/test/zero_shot"


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A folder with a recipe and an MLflow store; `machines/` holds a folder per machine."""
    folder = tmp_path_factory.mktemp("stored")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=Path("runs"))
    values["run"] |= {"log_every": 1, "checkpoint_every": EVERY}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["tracking"] = {"uri": f"sqlite:///{folder / 'mlflow.db'}"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    for machine in ("reference", "first", "second", "third", "fourth"):
        (folder / "machines" / machine).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def reference(workplace: Path) -> Path:
    """The same training in one process, without Ray and without a store."""
    machine = workplace / "machines" / "reference"
    recipe = str(workplace / "recipe.yaml")
    with RunProcess(machine, "--config", recipe, "--run-name", "straight", "--local") as run:
        run.wait(seconds=WAIT_SECONDS)
    return machine / "runs" / "straight"


def start_flags(workplace: Path, name: str) -> tuple[str, ...]:
    storage = f"run.storage=file://{workplace / 'store'}"
    return (*("--config", str(workplace / "recipe.yaml")), "--run-name", name, "--set", storage)


def list_steps(folder: Path) -> list[int]:
    return sorted(
        int(path.name.removeprefix("step_")) for path in folder.glob("checkpoints/step_*")
    )


def read_summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_run_whose_driver_and_disk_are_lost_goes_on_elsewhere_from_its_uri(
    workplace: Path, reference: Path
) -> None:
    first, second = (workplace / "machines" / name for name in ("first", "second"))
    copy, kept = first / "runs" / "lost", workplace / "store" / "lost"
    with RunProcess(first, *start_flags(workplace, "lost")) as run:
        run.wait_until(lambda: count_rows(copy) >= 23, seconds=WAIT_SECONDS)
        family = run.find_descendants("")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        run.wait_for_end(family)
    assert count_rows(copy) < NUM_STEPS, "killed too late to prove anything"
    assert list_steps(kept) and not (copy / "checkpoints").exists()
    (before,) = read_tracked(workplace, "lost")
    shutil.rmtree(first)

    with RunProcess(second, "--resume", f"file://{kept}") as run:
        assert f"file://{kept}" in run.wait(seconds=WAIT_SECONDS)
    for place in (second / "runs" / "lost", kept):
        check_same_training(place, reference, num_steps=NUM_STEPS)
        assert read_summary(place)["zero_shot"] == read_summary(reference)["zero_shot"]
    assert list_steps(kept) == [NUM_STEPS - EVERY, NUM_STEPS]
    (after,) = read_tracked(workplace, "lost")
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")


def test_nodes_that_never_see_the_run_folder_train_and_evaluate_through_a_lost_driver(
    workplace: Path, reference: Path
) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody make a mount namespace")
    machines = workplace / "machines"
    third, fourth = machines / "third", machines / "fourth"
    copy, kept = third / "runs" / "far", workplace / "store" / "far"
    hide = ("sh", "-c", f"mount -t tmpfs tmpfs '{machines}' && exec \"$@\"", "sh")
    wrapper = (*NAMESPACE, *hide)
    flags = (
        *start_flags(workplace, "far"),
        *("--set", "cluster.address=auto", "--set", "cluster.num_workers=2"),
        *("--set", "evaluation.every_checkpoints=1", "--set", f"evaluation.best={KEY}"),
    )
    with several_nodes({"far": Node(num_cpus=5, wrapper=wrapper)}) as cluster:
        with RunProcess(third, *flags, environment=cluster.env) as run:
            run.wait_until(lambda: count_rows(copy) >= 23, seconds=WAIT_SECONDS)
            run.process.send_signal(signal.SIGKILL)
            run.process.wait()
        assert count_rows(copy) < NUM_STEPS, "killed too late to prove anything"
        shutil.rmtree(third)
        with RunProcess(fourth, "--resume", f"file://{kept}", environment=cluster.env) as run:
            run.wait(seconds=WAIT_SECONDS)
    copy = fourth / "runs" / "far"
    summary = read_summary(copy)
    assert summary["finished"] and summary["zero_shot"].keys() == {"test"}
    grid = set(range(EVERY, NUM_STEPS + 1, EVERY))
    # One that waited for its evaluation went with the machine, and is counted.
    evaluated = {row["step"] for row in read_evaluations(copy) if KEY in row}
    assert evaluated >= grid - {EVERY, 2 * EVERY}
    assert {row["step"] for row in read_evaluations(copy)} == grid
    for place in (copy, kept):
        trained = [row["step"] for row in read_rows(place / "metrics.jsonl") if "num_steps" in row]
        assert trained == list(range(1, NUM_STEPS + 1))
        assert find_damage(place / "best") is None
        assert load_final(place, "teacher", num_steps=NUM_STEPS).keys() == (
            load_final(reference, "teacher", num_steps=NUM_STEPS).keys()
        )
    assert len(read_tracked(workplace, "far")) == 1
