"""Checkpoints: a folder that is whole or refused, in formats that can't run code.

::

    step_00000100/
        student.safetensors      weights, by parameter name
        teacher.safetensors
        student_head.safetensors, teacher_head.safetensors   of a run with prototypes
        optimizer.safetensors    AdamW moments and step counts, `moment/student.parameter`
        memory.safetensors       running means of the objectives, none without such settings
        rng_rank_0.safetensors   random state of each worker
        progress.json            how far the run is
        run_config.yaml          what it was trained with
        checkpoint.json          version, and size and SHA-256 of rank 0's files; written last

Schedules are functions of the step and need no state.
"""

import dataclasses
import errno
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lssl_ray.errors import CheckpointError
from lssl_ray.full_disk import is_disk_full
from lssl_ray.training.task import LssTask
from lssl_ray.types import Progress

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
CHECKPOINTS_FOLDER = "checkpoints"
INDEX_FILE = "checkpoint.json"
# What a model for use is read from. Student and optimiser are three quarters of a checkpoint.
MODEL_FILES = ("teacher.safetensors", "progress.json", "run_config.yaml")
_CHUNK_BYTES = 1 << 20


def checkpoint_name(step: int) -> str:
    """Folder name of a step's checkpoint; names sort like steps."""
    return f"step_{step:08d}"


def write_checkpoint(
    folder: Path,
    *,
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    run_config: str,
) -> None:
    """Write rank 0's part of a checkpoint into an empty folder; the index goes last."""
    for suffix, (student, teacher) in task.averaged_pairs().items():
        _save(student.state_dict(), folder / f"student{suffix}.safetensors")
        _save(teacher.state_dict(), folder / f"teacher{suffix}.safetensors")
    _save(_optimizer_tensors(task, optimizer), folder / "optimizer.safetensors")
    _save(task.memory, folder / "memory.safetensors")
    (folder / "progress.json").write_text(json.dumps(dataclasses.asdict(progress), indent=2))
    (folder / "run_config.yaml").write_text(run_config)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _file_digest(path)}
        for path in sorted(folder.iterdir())
    }
    index = {"version": FORMAT_VERSION, "files": files}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2))


def write_rng_state(folder: Path, *, rank: int) -> None:
    """Write this worker's random state: every rank calls it for its own."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    _save(tensors, folder / f"rng_rank_{rank}.safetensors")


def list_checkpoints(run_folder: Path) -> list[Path]:
    """All checkpoint folders of a run, oldest first, whole or not."""
    return sorted((run_folder / CHECKPOINTS_FOLDER).glob("step_*"))


def find_latest_checkpoint(
    run_folder: Path,
    *,
    files: Collection[str] | None = None,
    on_damage: Callable[[str], None] | None = None,
) -> Path | None:
    """The newest checkpoint that is whole; damaged newer ones are named.

    Args:
        run_folder: The run's.
        files: See `find_damage`.
        on_damage: Told of each damaged one, with what is wrong; by default the log is.
    """
    for folder in reversed(list_checkpoints(run_folder)):
        problem = find_damage(folder, files=files)
        if problem is None:
            return folder
        message = f"Checkpoint {folder} is not used: {problem}."
        if on_damage is None:
            logger.warning("%s", message)
        else:
            on_damage(message)
    return None


def find_damage(folder: Path, *, files: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint's files, or None when all are as written.

    Args:
        folder: The checkpoint's.
        files: Names of those that are to be read: only their content is compared with what was
            written, all others must be there and as long as they were. None compares all.
    """
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        written = dict(index["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{INDEX_FILE} is missing or cut ({error})"
    for name, expected in written.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        is_read = files is None or name in files
        if path.stat().st_size != expected["bytes"] or (
            is_read and _file_digest(path) != expected["sha256"]
        ):
            return f"{name} is not what was written"
    return None


def load_progress(folder: Path) -> Progress:
    """How far the run was when this checkpoint was written.

    Raises:
        CheckpointError: Another format version, or not readable.
    """
    try:
        version = json.loads((folder / INDEX_FILE).read_text())["version"]
        values = json.loads((folder / "progress.json").read_text())
        if version == FORMAT_VERSION:
            return Progress(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"Checkpoint {folder} can't be read: {error!r}.") from error
    raise CheckpointError(
        f"Checkpoint {folder} has version {version}; this release reads version "
        f"{FORMAT_VERSION}. Resume it with the release that wrote it."
    )


def load_checkpoint(
    folder: Path,
    *,
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    rank: int,
) -> Progress:
    """Restore a worker's whole training state in place.

    Raises:
        CheckpointError: Damaged, of another version, or of another architecture.
    """
    progress = load_progress(folder)
    for suffix, (student, teacher) in task.averaged_pairs().items():
        load_weights(student, folder / f"student{suffix}.safetensors")
        load_weights(teacher, folder / f"teacher{suffix}.safetensors")
    _restore_optimizer(task, optimizer, _load(folder / "optimizer.safetensors"))
    memory = _load(folder / "memory.safetensors")
    task.memory = {name: value.to(task.categories.device) for name, value in memory.items()}
    rng_path = folder / f"rng_rank_{rank}.safetensors"
    if rng_path.exists():
        # Absent for workers that the run did not have when it was saved.
        states = _load(rng_path)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    return progress


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a module's weights from safetensors, all of them and nothing else.

    Raises:
        CheckpointError: Not readable, or of another architecture.
    """
    try:
        module.load_state_dict(_load(path), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit this architecture: {error}. Resume with the configuration that "
            "the run was started with."
        ) from error


def _list_trained(task: LssTask) -> dict[str, nn.Parameter]:
    """Trained parameters, named `student.parameter`."""
    return {
        f"student{suffix}.{name}": parameter
        for suffix, (student, _) in task.averaged_pairs().items()
        for name, parameter in student.named_parameters()
        if parameter.requires_grad
    }


def _optimizer_tensors(task: LssTask, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in _list_trained(task).items()}
    return {
        f"{key}/{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _restore_optimizer(
    task: LssTask, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    parameters = _list_trained(task)
    # AdamW keeps its step counts on the CPU, unless it is fused.
    fused = bool(optimizer.defaults.get("fused"))
    optimizer.state.clear()
    for full_name, value in tensors.items():
        key, name = full_name.split("/", 1)
        if name not in parameters:
            raise CheckpointError(
                f"optimizer.safetensors holds state for {name!r}, which this model lacks."
            )
        on_cpu = key == "step" and not fused
        device = torch.device("cpu") if on_cpu else parameters[name].device
        optimizer.state[parameters[name]][key] = value.to(device)
    missing = len({*parameters.values()} - optimizer.state.keys())
    if missing and tensors:  # a run whose first clips all failed has no state yet
        raise CheckpointError(
            f"optimizer.safetensors lacks the state of {missing} trained parameters; it belongs "
            "to another configuration."
        )


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, path)
    except SafetensorError as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, str(error), str(path)) from error
        raise


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors: {error}.") from error
    return tensors


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
