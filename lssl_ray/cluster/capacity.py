"""How many trials fit on a cluster at once, so that none ever waits holding half of what it needs.

Counted on whole nodes: a worker's cores and GPU must be on one node, and on one with its labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError

MIB = 2**20
MOST_TRIALS = 1000  # nobody runs more at once
LESS = (
    "or lower cluster.num_workers, cluster.cpus_per_worker, cluster.num_decoders or "
    "cluster.decode_memory_mib"
)


@dataclass(frozen=True)
class Need:
    """What one process of a trial asks of one node.

    Attributes:
        name: For a person.
        resources: Ray's resource to amount.
        labels: Node labels that it needs.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeRoom:
    """What one node has.

    Attributes:
        resources: Ray's resource to amount.
        labels: The node's labels.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str]


def list_needs(config: RunConfig) -> list[Need]:
    """What a trial holds at its fullest: training, decoding, and evaluation beside it."""
    cluster = config.cluster
    gpu = {"GPU": 1.0} if cluster.use_gpu else {}
    worker = Need("worker", {**gpu, "CPU": float(cluster.cpus_per_worker)}, cluster.train_labels)
    memory = float(cluster.decode_memory_mib * MIB)
    decoder = Need("decoder", {"CPU": 1.0, "memory": memory}, cluster.decode_labels)
    share = {"GPU": config.evaluation.gpu_share} if config.evaluation.gpu_share else {}
    # Ray Data's small tasks when training does not run, the validator while it does.
    beside = Need("evaluation", {**share, "CPU": 1.0})
    return [worker] * cluster.most_workers + [decoder] * cluster.num_decoders + [beside]


def list_first_needs(config: RunConfig) -> list[Need]:
    """What a run holds at once at the least: fewest workers, and evaluation only if beside them."""
    needs = list_needs(config)
    workers = [need for need in needs if need.name == "worker"][: config.cluster.fewest_workers]
    others = ["decoder", "evaluation"] if config.evaluation.every_checkpoints else ["decoder"]
    return workers + [need for need in needs if need.name in others]


def count_cores(needs: Sequence[Need]) -> int:
    """Logical cores of one trial."""
    return int(sum(need.resources.get("CPU", 0.0) for need in needs))


def list_rooms(nodes: Sequence[Mapping[str, Any]]) -> list[NodeRoom]:
    """The living nodes, from what `ray.nodes()` says."""
    return [
        NodeRoom(resources=node["Resources"], labels=node["Labels"])
        for node in nodes
        if node["Alive"]
    ]


def count_fitting(needs: Sequence[Need], rooms: Sequence[NodeRoom], *, most: int) -> int:
    """How many whole trials the nodes hold at once.

    Args:
        needs: Of one trial.
        rooms: The nodes, as if nothing ran there.
        most: Count no further.
    """
    free = [dict(room.resources) for room in rooms]
    # Those with a GPU first: a decoder could stand in their way, they can't in a decoder's.
    ordered = sorted(needs, key=lambda need: -need.resources.get("GPU", 0.0))
    for count in range(most):
        for need in ordered:
            if not place_need(need, rooms, free):
                return count
    return most


def choose_concurrency(config: RunConfig, rooms: Sequence[NodeRoom], *, wanted: int | None) -> int:
    """How many trials run at once: what fits, or fewer when so many are wanted.

    Args:
        config: What all trials share.
        rooms: The cluster's nodes.
        wanted: As the user said; None for as many as fit.

    Raises:
        ClusterError: Not even one fits, or not as many as wanted.
    """
    most = MOST_TRIALS if wanted is None else wanted
    fitting = count_fitting(list_needs(config), rooms, most=most)
    if fitting >= max(1, wanted or 1):
        return fitting
    asked = "one trial does" if fitting == 0 else f"{wanted} trials at once do"
    way_out = (
        f"start more or larger nodes, {LESS}"
        if fitting == 0
        else f"give --max-concurrent {fitting} or fewer, or start more nodes"
    )
    raise ClusterError(
        f"{asked} not fit on this cluster ({describe_rooms(rooms)}). {describe_trial(config)}; "
        f"{way_out}."
    )


def describe_rooms(rooms: Sequence[NodeRoom]) -> str:
    """The nodes, for an error."""
    return ", ".join(_describe(room) for room in rooms) or "no node"


def describe_trial(config: RunConfig) -> str:
    """What a trial needs, for an error."""
    cluster = config.cluster
    labels = [
        f"{process} on nodes with {dict(wanted)}"
        for process, wanted in (
            ("workers", cluster.train_labels),
            ("decoders", cluster.decode_labels),
        )
        if wanted
    ]
    where = f" ({', '.join(labels)})" if labels else ""
    return (
        f"A trial needs {cluster.most_workers} workers of {cluster.cpus_per_worker} cores"
        f"{' and a GPU' if cluster.use_gpu else ''}, {cluster.num_decoders} decoders of a core and "
        f"{cluster.decode_memory_mib} MiB, and a core for evaluation: "
        f"{count_cores(list_needs(config))} cores in all{where}"
    )


def place_need(need: Need, rooms: Sequence[NodeRoom], free: Sequence[dict[str, float]]) -> bool:
    """Take what is needed from the first node that has it."""
    for room, left in zip(rooms, free, strict=True):
        if not need.labels.items() <= room.labels.items():
            continue
        if all(left.get(name, 0.0) >= amount for name, amount in need.resources.items()):
            for name, amount in need.resources.items():
                left[name] -= amount
            return True
    return False


def _describe(room: NodeRoom) -> str:
    resources = room.resources
    gpus = f", {resources['GPU']:.0f} GPUs" if resources.get("GPU") else ""
    memory = resources.get("memory", 0.0) / MIB
    return f"{resources.get('CPU', 0.0):.0f} cores{gpus} and {memory:.0f} MiB"
