"""Where a run is to be: nodes, cores, GPUs and the network between them."""

from dataclasses import dataclass

from lssl_ray.errors import ConfigError
from lssl_ray.planning.figures import Figure, assume

DEFAULT_NETWORK_GBIT = 10.0
BYTES_PER_GBIT = 1e9 / 8
# Between processes of one node, bytes/s: gloo through loopback, and PCIe 4 x16 without NVLink.
LOOPBACK_BYTES_PER_SECOND = 1e9
PCIE_BYTES_PER_SECOND = 2e10


@dataclass(frozen=True)
class ClusterShape:
    """A cluster's training nodes and the nodes that only decode.

    Attributes:
        train_nodes: Nodes with training workers, >= 1.
        workers_per_node: Training workers of one such node, >= 1.
        on_gpu: One GPU per worker.
        cpus_per_worker: Cores of a worker.
        decode_nodes: Nodes that only decode; 0 when decoders share the training nodes.
        num_decoders: Decoders over all nodes.
        cores_per_node: Of either kind of node.
        network: Bytes per second of a node's network, each way; None for one machine alone.
    """

    train_nodes: int
    workers_per_node: int
    on_gpu: bool
    cpus_per_worker: int
    decode_nodes: int
    num_decoders: int
    cores_per_node: int
    network: Figure | None

    @property
    def num_workers(self) -> int:
        """Training workers over all nodes."""
        return self.train_nodes * self.workers_per_node

    @property
    def remote_share(self) -> float:
        """Share of the decoded clips that come to a worker from another node."""
        return 1.0 if self.decode_nodes else 1.0 - 1.0 / self.train_nodes

    def describe(self) -> str:
        """One line for a person."""
        kind = "with a GPU each" if self.on_gpu else f"of {self.cpus_per_worker} cores each"
        if self.network is None:
            return (
                f"one machine of {self.cores_per_node} cores: {self.num_workers} workers {kind}, "
                f"{self.num_decoders} decoders"
            )
        where = f"{self.decode_nodes} nodes of their own" if self.decode_nodes else "those nodes"
        return (
            f"{self.train_nodes} training nodes of {self.cores_per_node} cores with "
            f"{self.workers_per_node} workers {kind}; {self.num_decoders} decoders on {where}"
        )


def build_machine_shape(
    *, num_workers: int, on_gpu: bool, cpus_per_worker: int, num_decoders: int, num_cores: int
) -> ClusterShape:
    """This machine, with the recipe's own workers and decoders."""
    return ClusterShape(
        train_nodes=1,
        workers_per_node=num_workers,
        on_gpu=on_gpu,
        cpus_per_worker=cpus_per_worker,
        decode_nodes=0,
        num_decoders=num_decoders,
        cores_per_node=num_cores,
        network=None,
    )


def build_cluster_shape(
    *,
    train_nodes: int,
    gpus_per_node: int,
    decode_nodes: int,
    cores_per_node: int,
    cpus_per_worker: int,
    network_gbit: float | None,
) -> ClusterShape:
    """A cluster of equal nodes, every core of which works.

    Args:
        train_nodes: Nodes with training workers.
        gpus_per_node: Of those; 0 for one worker per node on its cores.
        decode_nodes: Nodes that only decode, a decoder per core; 0 puts decoders on the training
            nodes, a decoder per core that workers leave.
        cores_per_node: Of either kind of node.
        cpus_per_worker: Cores of a worker.
        network_gbit: Of a node, each way; None assumes `DEFAULT_NETWORK_GBIT`.

    Raises:
        ConfigError: Workers don't fit on a node, or leave no core to decode on.
    """
    workers = max(1, gpus_per_node)
    spare = cores_per_node - workers * cpus_per_worker
    if spare < 0 or (decode_nodes == 0 and spare == 0):
        raise ConfigError(
            f"--cores-per-node {cores_per_node} with {workers} workers of cluster.cpus_per_worker="
            f"{cpus_per_worker} leaves {spare} cores to decode on; give more cores per node, fewer "
            "--gpus-per-node, or --decode-nodes that only decode."
        )
    if network_gbit is None:
        network = assume(
            DEFAULT_NETWORK_GBIT * BYTES_PER_GBIT,
            f"{DEFAULT_NETWORK_GBIT:g} Gbit/s per node, each way; set --network-gbit",
        )
    else:
        network = assume(network_gbit * BYTES_PER_GBIT, f"--network-gbit {network_gbit:g}")
    return ClusterShape(
        train_nodes=train_nodes,
        workers_per_node=workers,
        on_gpu=gpus_per_node > 0,
        cpus_per_worker=cpus_per_worker,
        decode_nodes=decode_nodes,
        num_decoders=decode_nodes * cores_per_node if decode_nodes else train_nodes * spare,
        cores_per_node=cores_per_node,
        network=network,
    )
