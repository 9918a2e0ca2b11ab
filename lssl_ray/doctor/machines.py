"""Judging what machines say of themselves: releases, limits, memory, room for temporary files.

Each rule looks at all machines and makes one finding that names those that break it.
"""

from collections.abc import Mapping

from lssl_ray.doctor.facts import RAY_OPEN_FILES, NodeFacts
from lssl_ray.doctor.findings import Finding, count_of

# Ray itself warns below this (2.60, `ray.init`), and recommends twice as much.
FEW_OPEN_FILES = 4096
# Ray spills nothing more to a disk that is fuller (RAY_local_fs_capacity_threshold).
FULL_SHARE = 0.95
LITTLE_TEMP_MIB = 1024.0
# Other releases of these can't work together; of the rest, results may differ.
_DECISIVE = ("python", "ray")


def judge_versions(driver: NodeFacts, nodes: Mapping[str, NodeFacts]) -> Finding:
    """Whether all nodes have the releases of the driver.

    Args:
        driver: Where the command runs.
        nodes: Name to what it says.
    """
    here = driver.versions
    told = ", ".join(f"{name} {version}" for name, version in here.items())
    differences = {
        (package, name, one.versions.get(package, "unknown"))
        for name, one in nodes.items()
        for package in here
        if _shorten(package, one.versions.get(package, "unknown"))
        != _shorten(package, here[package])
    }
    if not differences:
        same = f"; the same on {count_of(len(nodes), 'node')}" if nodes else ""
        return Finding("versions", "ok", told + same)
    listed = "; ".join(
        f"{name} has {package} {version}" for package, name, version in sorted(differences)
    )
    is_decisive = any(package in _DECISIVE for package, _, _ in differences)
    return Finding(
        "versions",
        "problem" if is_decisive else "warning",
        f"{listed}; here: {told}",
        "give all nodes one environment (pip install -c constraints.txt, or one image)",
    )


def judge_code(driver: NodeFacts, nodes: Mapping[str, NodeFacts]) -> Finding:
    """Whether all nodes run the driver's state of this package.

    Args:
        driver: Where the command runs.
        nodes: Name to what it says.
    """
    others = [name for name, one in nodes.items() if one.code_digest != driver.code_digest]
    if others:
        return Finding(
            "code",
            "warning",
            f"another state of lssl_ray than here on {', '.join(others)}",
            "install the same commit everywhere, or let a job bring its own: ray job submit "
            "--working-dir",
        )
    return Finding("code", "ok", f"lssl_ray is the same on {count_of(len(nodes), 'node')}")


def judge_open_files(machines: Mapping[str, NodeFacts]) -> Finding:
    """Whether Ray's processes may open enough files and connections.

    Args:
        machines: Name to what it says; at least one.
    """
    few = {name: one.open_files for name, one in machines.items()}
    least = min(few.values())
    if least >= FEW_OPEN_FILES:
        plus = " or more" if least == RAY_OPEN_FILES else ""
        return Finding("open files", "ok", f"{least}{plus} per process")
    listed = ", ".join(f"{name}: {count}" for name, count in few.items() if count < FEW_OPEN_FILES)
    return Finding(
        "open files",
        "warning",
        f"{listed}; Ray's connections may fail below {FEW_OPEN_FILES}",
        f"raise the hard limit before Ray starts: ulimit -n {RAY_OPEN_FILES} "
        "(/etc/security/limits.conf, or the container's --ulimit nofile)",
    )


def judge_temp(machines: Mapping[str, NodeFacts]) -> Finding:
    """Whether there is room for Ray's sessions, logs and spilled blocks.

    Args:
        machines: Name to what it says; at least one.
    """
    full = {name: one for name, one in machines.items() if one.temp_used_share > FULL_SHARE}
    little = {name: one for name, one in machines.items() if one.temp_free_mib < LITTLE_TEMP_MIB}
    listed = "; ".join(
        f"{name}: {one.temp_free_mib / 1024:.1f} GiB free, {100 * one.temp_used_share:.0f} % used"
        for name, one in machines.items()
        if name in full or name in little
    )
    remedy = "free some space, or put Ray elsewhere (RAY_TMPDIR, ray start --temp-dir)"
    if little:
        return Finding("temporary files", "problem", listed, remedy)
    if full:
        above = f"Ray spills nothing to a disk that is more than {100 * FULL_SHARE:.0f} % full"
        return Finding("temporary files", "warning", f"{listed}; {above}", remedy)
    least = min(one.temp_free_mib for one in machines.values()) / 1024
    return Finding("temporary files", "ok", f"{least:.1f} GiB free or more")


def judge_shared_memory(
    machines: Mapping[str, NodeFacts], *, store_mib: Mapping[str, float]
) -> Finding:
    """Whether Ray's object store fits into /dev/shm.

    Args:
        machines: Name to what it says.
        store_mib: Name to the size of its object store, MiB.
    """
    small = [
        f"{name}: store of {store_mib[name]:.0f} MiB, /dev/shm of {one.shm_mib or 0.0:.0f} MiB"
        for name, one in machines.items()
        if name in store_mib and (one.shm_mib is None or one.shm_mib < store_mib[name])
    ]
    if small:
        return Finding(
            "shared memory",
            "warning",
            f"{'; '.join(small)}: what does not fit is kept on the disk, slowly",
            "enlarge it (docker run --shm-size, an emptyDir of medium Memory), or start Ray with "
            "--object-store-memory",
        )
    sizes = [one.shm_mib for one in machines.values() if one.shm_mib is not None]
    return Finding("shared memory", "ok", f"/dev/shm of {min(sizes, default=0.0):.0f} MiB or more")


def judge_cores(machine: NodeFacts, *, num_wanted: int) -> Finding:
    """Whether one machine has a core for every process that computes.

    Args:
        machine: That does all of it.
        num_wanted: Cores of workers and decoders.
    """
    found = f"{num_wanted} wanted by workers and decoders, {machine.num_cores} there"
    if num_wanted > machine.num_cores:
        return Finding(
            "cores",
            "warning",
            f"{found}: they share, and slow each other down",
            "lower cluster.num_decoders, cluster.num_workers or cluster.cpus_per_worker",
        )
    return Finding("cores", "ok", found)


def judge_memory(machine: NodeFacts, *, decoders_mib: float, workers_mib: float) -> Finding:
    """Whether one machine has the memory that a run sets aside, activations not counted.

    Args:
        machine: That does all of it.
        decoders_mib: The most that decoders may take.
        workers_mib: Weights, gradients and optimiser of all workers, where they are in main memory.
    """
    wanted = decoders_mib + workers_mib
    found = (
        f"up to {decoders_mib:.0f} MiB for decoders, {workers_mib:.0f} MiB for weights and "
        f"optimiser; {machine.available_mib:.0f} of {machine.memory_mib:.0f} MiB available"
    )
    remedy = "lower cluster.num_decoders, cluster.decode_memory_mib or cluster.num_workers"
    if workers_mib > machine.memory_mib:
        return Finding("memory", "problem", found, remedy)
    if wanted > machine.available_mib:
        return Finding("memory", "warning", found, f"end what else runs, or {remedy}")
    return Finding("memory", "ok", found)


def _shorten(package: str, version: str) -> str:
    """Python's patch releases work together."""
    return version.rpartition(".")[0] if package == "python" else version
