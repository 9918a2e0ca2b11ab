"""Ray Train's own list of a run's checkpoints, written anew from what is there.

Ray reads that file when a session starts, and deletes old checkpoints by it. It overwrites it in
place, so a kill or a full disk can leave half of it; it ends the run when a checkpoint of the list
is gone; and a checkpoint that was damaged, and is written again, would be in the list twice and
deleted with its first entry. What training goes on from is not read from it: that is
`training.checkpoint.find_latest_checkpoint`.
"""

from collections.abc import Sequence
from pathlib import Path

from pyarrow import fs
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from lssl_ray.training.checkpoint import (
    CHECKPOINTS_FOLDER,
    find_latest_checkpoint,
    list_checkpoints,
)


def file_checkpoints(run_folder: Path) -> None:
    """Tell Ray Train of the checkpoints in a run folder, up to the newest that is whole.

    Raises:
        OSError: The list can't be written.
    """
    # Rank 0 finds, and tells, the same.
    newest = find_latest_checkpoint(run_folder, on_damage=lambda message: None)
    names = [one.name for one in list_checkpoints(run_folder)]
    kept = names[: names.index(newest.name) + 1] if newest else []
    write_checkpoint_list(str(run_folder), kept, filesystem=fs.LocalFileSystem())


def write_checkpoint_list(run: str, names: Sequence[str], *, filesystem: fs.FileSystem) -> None:
    """Tell Ray Train which checkpoints a run has; before each session, and not during one.

    Args:
        run: Path of the run on the filesystem.
        names: Folders of its checkpoints that stay, oldest first: not those that come after the
            one that training goes on from.
        filesystem: Where the run is kept.

    Raises:
        OSError: The list can't be written.
    """
    results = [
        _TrainingResultState(
            checkpoint_dir_name=f"{CHECKPOINTS_FOLDER}/{name}", metrics={"checkpoint": name}
        )
        for name in names
    ]
    state = _CheckpointManagerState(
        checkpoint_results=results,
        checkpoint_report_indices=list(range(len(results))),
        latest_checkpoint_result=results[-1] if results else None,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(results),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    with filesystem.open_output_stream(f"{run}/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}") as file:
        file.write(state.model_dump_json().encode())
