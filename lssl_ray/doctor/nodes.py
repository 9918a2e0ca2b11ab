"""Judging a cluster: do its nodes answer, are they what a run asks for, who may reach it.

Plain facts of nodes go in; who gets them is `cluster/doctor.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lssl_ray.doctor.facts import NodeFacts
from lssl_ray.doctor.findings import Finding, count_of

# A drain's notice comes 30 to 120 s ahead, by the clock; rows and MLflow carry times.
FEW_SECONDS, MANY_SECONDS = 2.0, 15.0


@dataclass(frozen=True)
class AskedNode:
    """A living node, and what came back from it.

    Attributes:
        name: For a person: address, and the start of Ray's id.
        node_id: Ray's.
        labels: Ray node labels.
        resources: Ray's resource to amount.
        facts: What it says; None without an answer.
        failure: Why there is no answer; None with one.
        sent: Unix seconds here when it was asked.
        received: Unix seconds here when it had answered.
        is_draining: Whether its cloud takes it away.
    """

    name: str
    node_id: str
    labels: Mapping[str, str]
    resources: Mapping[str, float]
    facts: NodeFacts | None
    failure: str | None
    sent: float
    received: float
    is_draining: bool = False

    @property
    def clock_ahead(self) -> float:
        """Seconds that its clock is ahead at least (negative: behind)."""
        if self.facts is None:
            return 0.0
        if self.facts.answered > self.received:
            return self.facts.answered - self.received
        return min(0.0, self.facts.started - self.sent)

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all of these labels, and a core or a GPU to work with."""
        can_work = bool(self.resources.get("CPU") or self.resources.get("GPU"))
        return can_work and labels.items() <= self.labels.items()


@dataclass(frozen=True)
class Access:
    """Who may reach a cluster.

    Attributes:
        dashboard: Host and port that it listens on, as Ray says; None without a dashboard.
        is_token_asked: Whether its job server refuses who has none; None when it can't be asked.
        is_token_on: Whether this process comes with a token.
    """

    dashboard: str | None
    is_token_asked: bool | None
    is_token_on: bool


def judge_answers(nodes: Sequence[AskedNode]) -> Finding:
    """Whether every living node ran a small task of ours."""
    silent = [f"{node.name}: {node.failure}" for node in nodes if node.failure is not None]
    if silent:
        return Finding(
            "nodes",
            "problem",
            f"{len(silent)} of {len(nodes)} nodes gave no answer: {'; '.join(silent)}",
            "look at that node (ray status, its logs in /tmp/ray/session_latest/logs); lssl_ray "
            "and its packages must be installed there",
        )
    draining = [node.name for node in nodes if node.is_draining]
    if draining:
        return Finding(
            "nodes",
            "warning",
            f"{count_of(len(nodes), 'node')} answered; being taken away: {', '.join(draining)}",
            "nothing new is placed there; wait for others, or go on with fewer",
        )
    listed = ", ".join(f"{node.name} ({_describe_room(node)})" for node in nodes)
    return Finding("nodes", "ok", f"{len(nodes)} answered: {listed}")


def judge_clocks(nodes: Sequence[AskedNode]) -> Finding:
    """Whether the nodes' clocks agree with this machine's."""
    off = {node.name: node.clock_ahead for node in nodes if abs(node.clock_ahead) > FEW_SECONDS}
    if not off:
        return Finding("clocks", "ok", f"no node is known to be more than {FEW_SECONDS:.0f} s off")
    listed = "; ".join(f"{name} is {seconds:+.1f} s off" for name, seconds in off.items())
    is_far = max(abs(seconds) for seconds in off.values()) > MANY_SECONDS
    return Finding(
        "clocks",
        "problem" if is_far else "warning",
        f"{listed} (at least)",
        "synchronise clocks (chrony, systemd-timesyncd): notices of preemption and the times of "
        "rows go by them",
    )


def judge_labels(
    wanted: Mapping[str, Mapping[str, str]], nodes: Sequence[AskedNode], *, can_grow: bool
) -> Finding:
    """Whether decoders and workers find a node with their labels.

    Args:
        wanted: The configuration's key to its labels; none fit every node.
        nodes: The living ones.
        can_grow: Whether an autoscaler may start nodes.
    """
    there = {
        setting: [node.name for node in nodes if node.fits(labels)]
        for setting, labels in wanted.items()
    }
    missing = [f"{name}={dict(wanted[name])}" for name, found in there.items() if not found]
    if not missing:
        listed = "; ".join(
            f"{setting}: {count_of(len(found), 'node')}" for setting, found in there.items()
        )
        return Finding("labels", "ok", listed)
    known = {
        f"{key}={value}"
        for node in nodes
        for key, value in node.labels.items()
        if "ray.io/" not in key
    }
    found = (
        f"no living node with cores has {', '.join(missing)}; labels there: "
        f"{', '.join(sorted(known)) or 'none'}"
    )
    if can_grow:
        return Finding(
            "labels",
            "warning",
            f"{found}; an autoscaler is there, and may start some",
            "a run waits for them up to 15 minutes, and is refused when no node type has them: "
            "compare the labels with the cluster's YAML",
        )
    return Finding(
        "labels",
        "problem",
        found,
        "start nodes with them (ray start --labels key=value), or leave the setting out",
    )


def judge_room(*, num_fitting: int, described: str, can_grow: bool) -> Finding:
    """Whether workers, decoders and evaluation have their cores, GPUs and memory at once.

    Args:
        num_fitting: Whole runs that the idle cluster holds, counted up to one.
        described: What a run needs, for a person.
        can_grow: Whether an autoscaler may start nodes.
    """
    if num_fitting:
        return Finding("room", "ok", f"{described} fit at once")
    found = f"{described} don't fit at once on the nodes that are there"
    remedy = (
        "start more or larger nodes, or lower cluster.num_workers, cluster.cpus_per_worker, "
        "cluster.num_decoders or cluster.decode_memory_mib"
    )
    if can_grow:
        return Finding(
            "room",
            "warning",
            f"{found}; an autoscaler is there, and may start more",
            f"see that its maximum is enough, or {remedy}",
        )
    return Finding("room", "problem", found, remedy)


def judge_store(nodes: Sequence[AskedNode], *, wanted_mib: float) -> Finding:
    """Whether decoded blocks that wait have room in the nodes' object stores.

    Args:
        nodes: The living ones.
        wanted_mib: The most that a run leaves there.
    """
    size = sum(node.resources.get("object_store_memory", 0.0) for node in nodes) / 2**20
    found = (
        f"{size:.0f} MiB on {count_of(len(nodes), 'node')}; a run leaves up to {wanted_mib:.0f} "
        "MiB there"
    )
    if size < wanted_mib:
        return Finding(
            "object store",
            "warning",
            f"{found}: the rest is spilled to the disk",
            "start Ray with more (--object-store-memory), or lower cluster.num_decoders or "
            "optim.clips_per_step",
        )
    return Finding("object store", "ok", found)


def judge_seen(unshared: Sequence[str]) -> Finding:
    """Whether nodes see what this process sees under the same paths.

    Args:
        unshared: Setting, path and node, for a person.
    """
    if unshared:
        return Finding(
            "shared files",
            "problem",
            "; ".join(unshared),
            "put them on storage that all nodes mount under the same path, keep the run by URI "
            "(--set run.storage=s3://bucket/runs), or keep such nodes out with "
            "cluster.train_labels and cluster.decode_labels",
        )
    return Finding("shared files", "ok", "every node sees what this machine sees")


def judge_files(
    digests: Mapping[str, str | None], nodes: Mapping[str, Mapping[str, str | None]]
) -> Finding:
    """Whether the weights on the nodes that train are the driver's.

    Args:
        digests: Path to SHA-256 here.
        nodes: Name to the same of a node; None for a file that can't be read.
    """
    wrong = [
        f"{name}: {path} {'can not be read' if there.get(path) is None else 'is another file'}"
        for name, there in nodes.items()
        for path in digests
        if there.get(path) != digests[path]
    ]
    if wrong:
        return Finding(
            "weights on nodes",
            "problem",
            "; ".join(wrong),
            "copy the file to the same place on every node, or to storage that all of them mount",
        )
    return Finding("weights on nodes", "ok", f"the same on {count_of(len(nodes), 'training node')}")


def judge_token(access: Access) -> Finding:
    """Whether Ray asks for a token."""
    if access.is_token_asked or (access.is_token_asked is None and access.is_token_on):
        return Finding("token", "ok", "Ray asks for one")
    return Finding(
        "token",
        "warning",
        "Ray asks for none: whoever reaches its ports runs code as you",
        "export RAY_AUTH_MODE=token before Ray starts, on every node (docs/security.md)",
    )


def judge_dashboard(access: Access) -> Finding:
    """Whether others than accounts of its machine reach the dashboard."""
    address = access.dashboard
    if not address:
        return Finding("dashboard", "ok", "none is started")
    host = address.split("://")[-1].rsplit(":", 1)[0]
    if host in ("localhost", "[::1]", "::1") or host.startswith("127."):
        return Finding("dashboard", "ok", f"{address}: on loopback")
    return Finding(
        "dashboard",
        "warning",
        f"{address} is not loopback: its job server starts whatever it is told",
        "ray start --dashboard-host=127.0.0.1, and reach it through SSH (docs/security.md)",
    )


def _describe_room(node: AskedNode) -> str:
    parts = [f"{node.resources.get('CPU', 0.0):.0f} cores"]
    if node.resources.get("GPU"):
        parts.append(f"{node.resources['GPU']:.0f} GPUs")
    parts += [f"{key}={value}" for key, value in node.labels.items() if "ray.io/" not in key]
    return ", ".join(parts)
