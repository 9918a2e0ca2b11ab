"""Folders that a run writes to: is it allowed, how much room is there, how much is wanted."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lssl_ray.doctor.findings import Finding
from lssl_ray.errors import CheckpointError

MIB = 2**20
_CONTENT = b"lssl_ray doctor\n"


@dataclass(frozen=True)
class FolderFacts:
    """What came of writing to a folder.

    Attributes:
        path: The folder.
        error: Why a small file could not be written, read back and removed; None when it could.
        free_mib: What is left there.
    """

    path: str
    error: str | None
    free_mib: float


def try_folder(path: Path) -> FolderFacts:
    """Write a small file to a folder, read it back, remove it."""
    probe = path / f".lssl_ray_doctor.{os.uname().nodename}.{os.getpid()}"
    try:
        try:
            probe.write_bytes(_CONTENT)
            error = None if probe.read_bytes() == _CONTENT else "what was written is not read back"
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(path).free
    except OSError as problem:
        return FolderFacts(str(path), problem.strerror or str(problem), 0.0)
    return FolderFacts(str(path), error, free / MIB)


@contextmanager
def lending_folder(path: Path) -> Iterator[Path]:
    """A folder that is there while it is checked, and no longer when it was not before.

    Raises:
        CheckpointError: It can't be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be made: {error.strerror}. Choose another place with --set "
            "run.folder=..."
        ) from error
    try:
        yield path
    finally:
        for folder in missing:
            # Somebody may have put a run there meanwhile.
            if not any(folder.iterdir()):
                folder.rmdir()


def judge_writing(name: str, facts: Mapping[str, FolderFacts]) -> Finding:
    """Whether everybody who writes to a folder can.

    Args:
        name: Of the check.
        facts: Whose, to what came of it; at least one.
    """
    path = next(iter(facts.values())).path
    refused = [f"{who}: {one.error}" for who, one in facts.items() if one.error is not None]
    if refused:
        return Finding(
            name,
            "problem",
            f"{path} can't be written: {'; '.join(refused)}",
            "choose a folder that all of them may write to: --set run.folder=..., or change its "
            "permissions",
        )
    return Finding(name, "ok", f"{path}: written, read and removed by {', '.join(facts)}")


def judge_free_space(name: str, folder: FolderFacts, *, bytes_each: int, num_kept: int) -> Finding:
    """Whether a folder holds a run's checkpoints.

    Args:
        name: Of the check.
        folder: Where they go.
        bytes_each: Of one checkpoint.
        num_kept: Whole ones that are kept; one more is there while the next is written.
    """
    needed = (num_kept + 1) * bytes_each / MIB
    found = (
        f"{_format(folder.free_mib)} free; {num_kept} checkpoints and the next one take "
        f"{_format(needed)} ({_format(bytes_each / MIB)} each)"
    )
    remedy = (
        "free some space, choose another folder with --set run.folder=..., or keep fewer with "
        "--set run.checkpoints_to_keep=..."
    )
    if folder.free_mib < needed:
        return Finding(name, "problem", found, remedy)
    if folder.free_mib < 2 * needed:
        return Finding(name, "warning", found, remedy)
    return Finding(name, "ok", found)


def _format(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.1f} MiB"
