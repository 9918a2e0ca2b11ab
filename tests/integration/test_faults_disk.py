"""A disk that fills up, a checkpoint that is not whole: the run says so, and goes on from there.

Each run has a Ray of its own, or none.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import yaml
from fault_runs import (
    CHECKPOINT_EVERY,
    NUM_STEPS,
    WAIT_SECONDS,
    check_undisturbed,
    count_events,
    train_undisturbed,
    write_recipe,
)
from run_checks import count_rows, measure_pause
from run_process import RunProcess
from small_disk import small_disk

from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.checkpoint import checkpoint_name, find_damage

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(2 * WAIT_SECONDS)]
EXIT_REFUSED = 2
DISK_MIB = 48


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A folder with a recipe, shared by the runs of this file."""
    return write_recipe(tmp_path_factory.mktemp("faults"), tiny_clip_dir, videos, cluster={})


@pytest.fixture(scope="module")
def reference(workplace: Path) -> Path:
    """The same training without Ray and without faults."""
    return train_undisturbed(workplace)


@pytest.mark.parametrize("engine", ["ray", "local"])
def test_full_disk_ends_the_run_at_once_and_resuming_finishes_it(
    workplace: Path, reference: Path, engine: str, record_property: Callable[[str, object], None]
) -> None:
    name = f"full-{engine}"
    place = workplace / name
    recipe = yaml.safe_load((workplace / "recipe.yaml").read_text())
    recipe["run"]["folder"] = str(place)
    (workplace / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    options = ("--local",) if engine == "local" else ()
    with small_disk(place, mib=DISK_MIB) as disk:
        run_folder = disk.seen_from_here / name
        arguments = ("--config", f"{name}.yaml", "--run-name", name, *options)
        with RunProcess(workplace, *arguments, wrapper=disk.wrapper) as run:
            run.wait_until(
                lambda: count_rows(run_folder) >= CHECKPOINT_EVERY + 5, seconds=WAIT_SECONDS
            )
            disk.fill()
            filled = time.time()
            assert count_rows(run_folder) < NUM_STEPS, "filled too late to prove anything"
            assert run.process.wait(WAIT_SECONDS) == EXIT_REFUSED, run.output.read_text()
            record_property(f"end after the disk was full: {engine}", time.time() - filled)
            said = " ".join(run.output.read_text().split())
        assert f"--resume {place / name}" in said and "MiB" in said
        assert "Traceback" not in said
        assert count_events(run_folder, "restart") == 0  # it would be as full as before
        # What is left is whole, and nothing is half-written.
        whole = sorted((run_folder / "checkpoints").iterdir())
        assert whole and [find_damage(path) for path in whole] == [None] * len(whole)
        assert all(path.name.startswith("step_") for path in whole)
        rows = list(read_rows(run_folder / "metrics.jsonl"))
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))

        disk.free()
        arguments = ("--resume", str(place / name), *options)
        with RunProcess(workplace, *arguments, wrapper=disk.wrapper) as run:
            run.wait(seconds=WAIT_SECONDS)
        shutil.copytree(run_folder, workplace / "runs" / name)
    check_undisturbed(workplace, name, reference)


def test_checkpoint_cut_in_half_is_named_and_the_one_before_is_used(
    workplace: Path, reference: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, half_way = workplace / "runs" / "cut", NUM_STEPS // 2
    first = ("--config", "recipe.yaml", "--run-name", "cut", "--set")
    with RunProcess(workplace, *first, f"run.stop_at_step={half_way}") as run:
        run.wait(seconds=WAIT_SECONDS)
    newest = folder / "checkpoints" / checkpoint_name(half_way)
    cut = tiny.truncate_video(newest / "optimizer.safetensors")
    # What Ray Train itself keeps of its checkpoints is cut as well: it overwrites it in place.
    tiny.truncate_video(folder / "checkpoint_manager_snapshot.json")

    resumed = time.time()
    with RunProcess(workplace, "--resume", "cut", "--set", "run.stop_at_step=null") as run:
        said = run.wait(seconds=WAIT_SECONDS)
    assert newest.name in said and cut.name in said
    assert count_events(folder, "damaged_checkpoint") == 1
    check_undisturbed(workplace, "cut", reference)
    # The damaged one was made again, and is not what its first copy's turn to go takes away.
    names = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert names == [checkpoint_name(NUM_STEPS - CHECKPOINT_EVERY), checkpoint_name(NUM_STEPS)]
    record_property("pause after: resubmitting", measure_pause(folder, since=resumed))
