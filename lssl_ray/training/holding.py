"""Checkpoints set aside to be evaluated, out of reach of whoever deletes old ones.

::

    RUN/validation/
        step_00000100/    links to a checkpoint's files, until it is evaluated
        asked.jsonl       a row per checkpoint that was set aside

Who trains sets them aside, who evaluates takes them, oldest first. The folder is the queue: a
killed run finds it again. Not here: evaluating (`validation/`).
"""

import errno
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER, checkpoint_name
from lssl_ray.whole_files import write_whole

logger = logging.getLogger(__name__)

HELD_FOLDER = "validation"
ASKED_FILE = "asked.jsonl"
# What a file system without hard links, or another one, answers.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class CheckpointHolder:
    """Sets the checkpoints aside that are due.

    Attributes:
        run_folder: The run's own.
        every_steps: Steps between checkpoints that are due.
        last_step: Of the session; due as well.
    """

    run_folder: Path
    every_steps: int
    last_step: int

    def is_due(self, step: int) -> bool:
        """Whether the checkpoint of a step is to be set aside."""
        return step % self.every_steps == 0 or step == self.last_step

    def hold(self, checkpoint: Path) -> None:
        """Set a whole checkpoint aside when it is due; training waits for some links only."""
        step = read_step(checkpoint)
        if not self.is_due(step):
            return
        folder = self.run_folder / HELD_FOLDER
        folder.mkdir(exist_ok=True)
        target = folder / checkpoint.name
        shutil.rmtree(target, ignore_errors=True)  # of the same step, done again
        link_checkpoint(checkpoint, target)
        with (folder / ASKED_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step}) + "\n")

    def resume(self, step: int) -> None:
        """Go on after a step: what is done again is forgotten, what was missed is made up for.

        A run can be killed between writing its checkpoint and setting it aside.
        """
        for held in list_held(self.run_folder):
            if read_step(held) > step:
                shutil.rmtree(held)
        asked = read_asked(self.run_folder)
        if any(other > step for other in asked):
            path = self.run_folder / HELD_FOLDER / ASKED_FILE
            kept = sorted(other for other in asked if other <= step)
            write_whole(path, "".join(json.dumps({"step": one}) + "\n" for one in kept))
        checkpoint = self.run_folder / CHECKPOINTS_FOLDER / checkpoint_name(step)
        if step not in asked and checkpoint.is_dir():
            self.hold(checkpoint)


def read_step(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("step_"))


def list_held(run_folder: Path) -> list[Path]:
    """Checkpoints that wait to be evaluated, oldest first; each is whole."""
    return sorted((run_folder / HELD_FOLDER).glob("step_*"))


def read_asked(run_folder: Path) -> set[int]:
    """Steps of all checkpoints that were set aside, evaluated by now or not."""
    path = run_folder / HELD_FOLDER / ASKED_FILE
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return {int(json.loads(line)["step"]) for line in lines if line.endswith("\n")}


def link_checkpoint(checkpoint: Path, target: Path) -> None:
    """Make a second folder of a checkpoint's files, whole or not at all.

    Args:
        checkpoint: Its files are not changed once written, so hard links do.
        target: Must not exist.
    """
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    num_copied = 0
    for path in checkpoint.iterdir():
        try:
            os.link(path, staging / path.name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copy2(path, staging / path.name)
            num_copied += 1
    if num_copied:
        logger.warning(
            "%s: %d files copied, because there are no hard links here; training waited for it.",
            checkpoint,
            num_copied,
        )
    os.replace(staging, target)
