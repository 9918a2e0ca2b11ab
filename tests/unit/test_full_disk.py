"""A full disk is told apart from other failures, at any depth, and is a refusal."""

import errno
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError

from lssl_ray.errors import CheckpointError
from lssl_ray.full_disk import describe_full_disk, find_existing, is_disk_full, measure_bytes
from lssl_ray.training.disk_room import refusing_full_disk


def wrap(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("upload failed") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "any words"),
        OSError(errno.EDQUOT, "any words"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        wrap(OSError(errno.ENOSPC, "any words")),
        wrap(ValueError("Disk quota exceeded")),
        RayTaskError("append", "cut", OSError(errno.ENOSPC, "any words")).as_instanceof_cause(),
        WorkerGroupError("died", {0: wrap(OSError(errno.ENOSPC, "any words"))}),
        ControllerError(OSError(errno.ENOSPC, "any words")),
    ],
    ids=str,
)
def test_full_disk_is_known_at_any_depth(error: Exception) -> None:
    assert is_disk_full(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "denied"), ValueError("no space"), wrap(KeyError("disk"))]
)
def test_other_failures_are_no_full_disk(error: Exception) -> None:
    assert not is_disk_full(error)


def test_chain_that_ends_in_itself_is_followed_once() -> None:
    error = RuntimeError("a")
    error.__cause__ = wrapped = RuntimeError("b")
    wrapped.__context__ = error
    assert not is_disk_full(error)


def test_full_disk_told_by_a_ray_actor_becomes_a_refusal(tmp_path: Path) -> None:
    error = RayTaskError("append", "cut", OSError(errno.ENOSPC, "any words"))
    with pytest.raises(CheckpointError), refusing_full_disk(tmp_path):
        raise error.as_instanceof_cause()


def test_full_disk_at_a_checkpoint_becomes_a_refusal_with_the_way_out(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine" / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes(3 * 2**20))
    with pytest.raises(CheckpointError) as caught, refusing_full_disk(tmp_path / "mine"):
        raise OSError(errno.ENOSPC, "full")
    message = str(caught.value)
    assert f"--resume {tmp_path / 'mine'}" in message
    assert "3.0 MiB" in message  # what a checkpoint takes


def test_worker_with_room_refuses_when_another_has_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError), refusing_full_disk(tmp_path, agree=lambda mine: True):
        pass


def test_other_errors_are_raised_as_they_are_and_ask_nobody(tmp_path: Path) -> None:
    def agree(mine: bool) -> bool:
        raise AssertionError("the other workers are not at this point")

    with pytest.raises(PermissionError), refusing_full_disk(tmp_path, agree=agree):
        raise PermissionError(errno.EACCES, "denied")


def test_message_names_the_folder_with_the_least_room(tmp_path: Path) -> None:
    # /proc has no room at all, on any machine.
    proc = Path("/proc/self")
    message = describe_full_disk([tmp_path, proc], needed_bytes=0, run=tmp_path / "mine")
    assert f"disk of {proc} " in message


def test_sizes_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"12345")
    assert measure_bytes(tmp_path) == 5
    assert measure_bytes(tmp_path / "missing") == 0
    assert find_existing(tmp_path / "missing" / "deeper") == tmp_path
