"""Memory and processor time of every process of a run on one machine, by what it is there for.

Three figures of memory: resident (`rss`), private (`uss`), and anonymous, which is resident memory
that no file and no shared object backs. A leak shows in the last. The first two also hold pages of
Ray's object store, which a process keeps mapped after the objects are gone, up to the store's size.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = float(2**20)
# A part of the command line or of the name that Ray gives a process, to the role; first match wins.
_ROLES = (
    ("lssl_ray.video.decode_child", "decode child"),
    ("DecodeUnits", "decode actor"),
    ("SplitCoordinator", "split coordinator"),
    ("NoOpWorker", "training worker"),
    ("TrainWorker", "training worker"),
    ("ray::RunDesk", "run desk"),
    ("ray::IDLE", "idle Ray worker"),
    ("gcs_server", "gcs"),
    ("raylet/raylet", "raylet"),
)


@dataclass(frozen=True)
class RoleMemory:
    """One role at one moment; memory in MiB, summed over its processes."""

    role: str
    num_processes: int
    rss: float
    uss: float
    anonymous: float


def sample_roles() -> list[RoleMemory]:
    """This process ("driver") and everything that it started, by role."""
    driver = psutil.Process()
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    found["driver"].append(_measure(driver))
    for process in driver.children(recursive=True):
        try:
            found[_find_role(process)].append(_measure(process))
        except psutil.NoSuchProcess:  # ended between the list and the look
            continue
    return [
        RoleMemory(role, len(rows), *(sum(column) for column in zip(*rows, strict=True)))
        for role, rows in sorted(found.items())
    ]


def sample_cpu_seconds() -> dict[str, float]:
    """Processor time so far by role; of processes that live."""
    driver = psutil.Process()
    seconds: dict[str, float] = defaultdict(float)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            role = "driver" if process == driver else _find_role(process)
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # ended between the list and the look
            continue
        seconds[role] += times.user + times.system
    return seconds


def _find_role(process: psutil.Process) -> str:
    words = " ".join(process.cmdline()) or process.name()
    return next((role for part, role in _ROLES if part in words), "Ray's other processes")


def _measure(process: psutil.Process) -> tuple[float, float, float]:
    memory = process.memory_full_info()
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process.pid) from None
    anonymous = next(
        (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")), "0"
    )
    return memory.rss / MIB, memory.uss / MIB, int(anonymous) / 1024
