"""Checkpoints set aside: the due ones, whole, whatever happens to the originals."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, checkpoint_name
from lssl_ray.training.holding import (
    CheckpointHolder,
    link_checkpoint,
    list_held,
    read_asked,
    read_step,
)


def write_checkpoint(run: Path, step: int, *, text: str = "weights") -> Path:
    folder = run / CHECKPOINTS_FOLDER / checkpoint_name(step)
    folder.mkdir(parents=True)
    (folder / "teacher.safetensors").write_text(f"{text} {step}")
    (folder / "optimizer.safetensors").write_text(f"moments {step}")
    return folder


def build_holder(run: Path) -> CheckpointHolder:
    return CheckpointHolder(run_folder=run, every_steps=4, last_step=10)


def list_steps(run: Path) -> list[int]:
    return [read_step(held) for held in list_held(run)]


def test_hold_takes_every_nth_and_the_last_oldest_first(tmp_path: Path) -> None:
    holder = build_holder(tmp_path)
    for step in (10, 2, 8, 4, 6):
        holder.hold(write_checkpoint(tmp_path, step))
    assert list_steps(tmp_path) == [4, 8, 10]
    assert read_asked(tmp_path) == {4, 8, 10}


def test_hold_survives_the_deletion_of_the_original(tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path, 4)
    build_holder(tmp_path).hold(original)
    inode = (original / "teacher.safetensors").stat().st_ino
    shutil.rmtree(original)
    (held,) = list_held(tmp_path)
    assert (held / "teacher.safetensors").read_text() == "weights 4"
    assert (held / "teacher.safetensors").stat().st_ino == inode, "copied where a link would do"


def test_hold_of_a_step_done_again_replaces_the_first(tmp_path: Path) -> None:
    holder = build_holder(tmp_path)
    holder.hold(write_checkpoint(tmp_path, 4))
    shutil.rmtree(tmp_path / CHECKPOINTS_FOLDER)
    holder.hold(write_checkpoint(tmp_path, 4, text="others"))
    (held,) = list_held(tmp_path)
    assert (held / "teacher.safetensors").read_text() == "others 4"


def test_link_without_hard_links_copies_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    original = write_checkpoint(tmp_path, 4)
    link_checkpoint(original, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "optimizer.safetensors",
        "teacher.safetensors",
    ]
    assert (tmp_path / "copy" / "teacher.safetensors").read_text() == "weights 4"


def test_link_on_a_full_disk_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="no space"):
        build_holder(tmp_path).hold(write_checkpoint(tmp_path, 4))
    assert list_held(tmp_path) == [] and read_asked(tmp_path) == set()


def test_resume_forgets_what_is_done_again(tmp_path: Path) -> None:
    holder = build_holder(tmp_path)
    for step in (4, 8):
        holder.hold(write_checkpoint(tmp_path, step))
    holder.resume(6)
    assert list_steps(tmp_path) == [4]
    assert read_asked(tmp_path) == {4}


def test_resume_holds_a_checkpoint_that_a_kill_left_out(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 8)
    build_holder(tmp_path).resume(8)
    assert list_steps(tmp_path) == [8]


def test_resume_does_not_hold_again_what_was_held(tmp_path: Path) -> None:
    holder = build_holder(tmp_path)
    holder.hold(write_checkpoint(tmp_path, 8))
    shutil.rmtree(list_held(tmp_path)[0])  # evaluated
    holder.resume(8)
    assert list_steps(tmp_path) == []


def test_resume_of_nothing_holds_nothing(tmp_path: Path) -> None:
    build_holder(tmp_path).resume(0)
    assert list_held(tmp_path) == [] and read_asked(tmp_path) == set()
