"""A small disk of a test's own: a tmpfs in a mount namespace, for the programs that are put in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 2**20
HOLD = 'mount -t tmpfs -o "size=$1m" tmpfs "$2" && echo ready && exec cat'


@dataclass(frozen=True)
class SmallDisk:
    """The disk, while its context lasts.

    Attributes:
        folder: Where its programs see it.
        pid: Of the process that holds the namespace.
    """

    folder: Path
    pid: int

    @property
    def wrapper(self) -> tuple[str, ...]:
        """A command that starts another one in the namespace, in the same working folder."""
        enter = (
            "nsenter",
            "--target",
            str(self.pid),
            "--user",
            "--mount",
            "--preserve-credentials",
        )
        return (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder.parent))

    @property
    def seen_from_here(self) -> Path:
        """The same folder for this process, which is outside."""
        return Path(f"/proc/{self.pid}/root", *self.folder.parts[1:])

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.seen_from_here / "filler").open("wb", buffering=0) as file:
            size = MIB
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Take the filler away."""
        (self.seen_from_here / "filler").unlink()


@contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator[SmallDisk]:
    """Mount it over a folder, for nobody else to see.

    Args:
        folder: Made if missing; its content goes with the disk.
        mib: Size.
    """
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare and nsenter here")
    folder.mkdir(exist_ok=True)
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    holder = subprocess.Popen(
        [*unshare, "sh", "-c", HOLD, "sh", str(mib), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"LC_ALL": "C"},
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        told = holder.stdout.readline().strip()
        if told != "ready":
            pytest.skip(f"this machine lets nobody mount a disk of their own: {told}")
        yield SmallDisk(folder, holder.pid)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
