"""What a machine says of itself: releases, cores, memory, limits, files, in a second or less.

The same function runs in the command's own process and, through Ray, on every node. It imports
nothing heavy, so that it answers also where torch can't be imported. Not here: judging.
"""

import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lssl_ray
from lssl_ray.doctor.folders import FolderFacts, try_folder
from lssl_ray.doctor.gpus import GpuFacts, ask_gpus

PACKAGES = ("ray", "torch", "lssl_ray", "decord", "av", "open_clip_torch", "numpy")
NOT_INSTALLED = "not installed"
# Ray raises the soft limit of open files to the hard one, up to here (2.60, `ray.init`).
RAY_OPEN_FILES = 65536
MIB = 2**20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Question:
    """What a node is asked beside what it always tells.

    Attributes:
        gpus: Whether torch is asked for GPUs, in a process of its own that takes seconds.
        folders: What they are for, to folders that a run writes to.
        files: What they are for, to files that are to be the same everywhere.
    """

    gpus: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeFacts:
    """What a machine is and has.

    Attributes:
        versions: Package, or `python`, to its release.
        code_digest: SHA-256 of this package's modules.
        num_cores: That this process may use.
        memory_mib: Of the machine, or of the container it is in.
        available_mib: Of that, not in use.
        shm_mib: Size of /dev/shm; None where there is none.
        open_files: The most that Ray's processes may have open.
        temp_free_mib: Free in the folder for temporary files.
        temp_used_share: Used share of its disk.
        started: Unix seconds when the question came.
        answered: Unix seconds when it was answered.
        gpus: None when nobody asked.
        folders: As asked.
        digests: SHA-256 of the files asked for; None for one that can't be read.
    """

    versions: Mapping[str, str]
    code_digest: str
    num_cores: int
    memory_mib: float
    available_mib: float
    shm_mib: float | None
    open_files: int
    temp_free_mib: float
    temp_used_share: float
    started: float
    answered: float
    gpus: GpuFacts | None = None
    folders: Mapping[str, FolderFacts] = field(default_factory=dict)
    digests: Mapping[str, str | None] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """For a node whose release may differ from the reader's."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "NodeFacts":
        """Back from `to_plain`.

        Raises:
            TypeError: Another release wrote it.
        """
        gpus = plain["gpus"]
        return cls(
            **{
                **plain,
                "gpus": None if gpus is None else GpuFacts(**gpus),
                "folders": {name: FolderFacts(**facts) for name, facts in plain["folders"].items()},
            }
        )


def collect_facts(question: Question, *, in_ray: bool = False) -> NodeFacts:
    """What this machine says of itself; nothing that is missing is an error.

    Args:
        question: What is asked beside what it always tells.
        in_ray: Whether a task of Ray asks, as on a node.
    """
    started = time.time()
    temp = shutil.disk_usage(find_temp_folder())
    memory, available = read_memory()
    return NodeFacts(
        versions=find_versions(),
        code_digest=digest_code(),
        num_cores=len(os.sched_getaffinity(0)),
        memory_mib=memory / MIB,
        available_mib=available / MIB,
        shm_mib=_find_shm_mib(),
        open_files=min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], RAY_OPEN_FILES),
        temp_free_mib=temp.free / MIB,
        temp_used_share=1.0 - temp.free / max(1, temp.free + temp.used),
        started=started,
        gpus=ask_gpus(in_ray=in_ray) if question.gpus else None,
        folders={name: try_folder(Path(path)) for name, path in question.folders.items()},
        digests={name: digest_file(Path(path)) for name, path in question.files.items()},
        answered=time.time(),
    )


def collect_plain_facts(question: Question) -> dict[str, Any]:
    """The same for whoever may have another release of this package: what runs on a node."""
    return collect_facts(question, in_ray=True).to_plain()


def find_versions() -> dict[str, str]:
    """Releases of Python and of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = NOT_INSTALLED
    # A job brings a copy of its own, which is imported and not installed.
    versions["lssl_ray"] = lssl_ray.__version__
    return versions


def digest_code() -> str:
    """SHA-256 over this package's modules: the same release may be another state of it."""
    folder = Path(lssl_ray.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def digest_file(path: Path) -> str | None:
    """SHA-256 of a file; None when it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def read_memory() -> tuple[int, int]:
    """Bytes in all and bytes available, of the container where there is a limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    total, available = fields["MemTotal"], fields["MemAvailable"]
    limit = _read_number(Path("/sys/fs/cgroup/memory.max"))
    if limit is not None and limit < total:
        used = _read_number(Path("/sys/fs/cgroup/memory.current")) or 0
        return limit, min(available, limit - used)
    return total, available


def find_temp_folder() -> str:
    """Where Ray puts its sessions, logs and spilled blocks unless it is told otherwise."""
    return os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()


def _find_shm_mib() -> float | None:
    shm = Path("/dev/shm")
    return shutil.disk_usage(shm).total / MIB if shm.is_dir() else None


def _read_number(path: Path) -> int | None:
    """What a control file says; None where there is none or it says `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
