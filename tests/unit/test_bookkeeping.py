"""Ray Train's list of checkpoints, read by Ray Train itself: it is told what is there."""

import json
from pathlib import Path

import pytest
from ray.train import CheckpointConfig
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext

from lssl_ray.cluster.bookkeeping import file_checkpoints
from lssl_ray.training.checkpoint import INDEX_FILE, checkpoint_name

# Ray's own reading of its list.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def write_checkpoint(run: Path, step: int, *, whole: bool = True) -> Path:
    """As far as Ray Train and `find_damage` look: a folder, and an index of its files."""
    folder = run / "checkpoints" / checkpoint_name(step)
    folder.mkdir(parents=True)
    (folder / INDEX_FILE).write_text(json.dumps({"version": 2, "files": {}} if whole else {}))
    return folder


def open_by_ray(run: Path) -> CheckpointManager:
    storage = StorageContext(storage_path=run.parent, experiment_dir_name=run.name)
    return CheckpointManager(
        checkpoint_config=CheckpointConfig(num_to_keep=2), storage_context=storage
    )


def list_known(manager: CheckpointManager) -> list[str]:
    return [Path(result.checkpoint.path).name for result in manager.best_checkpoint_results]


@pytest.mark.parametrize("before", [None, "", '{"ray_version": "2.6', '{"ray_version": "1.0"}'])
def test_ray_reads_what_is_there_whatever_its_list_was(tmp_path: Path, before: str | None) -> None:
    run = tmp_path / "mine"
    for step in (10, 20):
        write_checkpoint(run, step)
    if before is not None:
        (run / CHECKPOINT_MANAGER_SNAPSHOT_FILENAME).write_text(before)
    file_checkpoints(run)
    manager = open_by_ray(run)
    assert list_known(manager) == ["step_00000010", "step_00000020"]
    assert Path(manager.latest_checkpoint_result.checkpoint.path).name == "step_00000020"


def test_damaged_newest_checkpoint_is_not_in_the_list_because_it_is_made_again(
    tmp_path: Path,
) -> None:
    run = tmp_path / "mine"
    for step in (10, 20):
        write_checkpoint(run, step)
    write_checkpoint(run, 30, whole=False)
    file_checkpoints(run)
    assert list_known(open_by_ray(run)) == ["step_00000010", "step_00000020"]


def test_new_run_begins_with_an_empty_list(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    file_checkpoints(run)
    manager = open_by_ray(run)
    assert list_known(manager) == [] and manager.latest_checkpoint_result is None
