"""Starting or joining Ray, on loopback and quietly unless told otherwise."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray._private import ray_constants
from ray.data import DataContext

from lssl_ray.cluster.placement import require_nodes
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError

NOISY_LOGGERS = ("ray", "ray.data", "ray.train")
SPARE_BYTES = 2**30  # for whatever else asks Ray for memory


def start_ray(config: RunConfig) -> None:
    """Start a Ray of our own on this machine, or join the one that runs this job.

    Logical cores and memory of our own Ray are what the run asks for, even above the machine's: on
    a laptop workers and decoders share them instead of waiting for each other for ever.

    Raises:
        ClusterError: Ray can't be started or found, or has no node with the wanted labels.
    """
    cluster = config.cluster
    num_validators = min(1, config.evaluation.every_checkpoints)
    num_cores = cluster.num_workers * cluster.cpus_per_worker + cluster.num_decoders
    connect_ray(
        address=cluster.address,
        num_cpus=num_cores + num_validators + 1,
        memory_bytes=cluster.num_decoders * cluster.decode_memory_mib * 2**20 + SPARE_BYTES,
        remedy=f"cluster.address={cluster.address}; without Ray, --local runs all in one process",
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    require_nodes(
        {
            "cluster.decode_labels": cluster.decode_labels,
            "cluster.train_labels": cluster.train_labels,
        }
    )


def connect_ray(
    *, address: str, num_cpus: int, memory_bytes: int | None = None, remedy: str
) -> None:
    """Join the Ray of RAY_ADDRESS (`auto`), or start one that listens on loopback only (`local`).

    Args:
        address: `auto` or `local`.
        num_cpus: Logical cores of a Ray of our own; at least the machine's.
        memory_bytes: Memory of a Ray of our own that tasks may ask for; None for Ray's guess.
        remedy: For the error.

    Raises:
        ClusterError: Ray can't be started or found.
    """
    # Sent to nobody unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "auto":
            # A Ray of our own listens nowhere else, and its trials join it here.
            is_near = os.environ.get("RAY_ADDRESS", "").startswith("127.0.0.1")
            with _on_loopback() if is_near else nullcontext():
                ray.init(address="auto", **quiet)
            return
        with _on_loopback():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, num_cpus),
                _memory=memory_bytes,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"Ray could not be started or joined: {error} ({remedy}).") from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep `ray.init` from turning 127.0.0.1 into the machine's own address.

    On Linux it does, and every server of a local Ray can then be reached from outside; on macOS
    and Windows this constant keeps it from doing so. A test looks at the sockets.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def stop_ray() -> None:
    """Leave Ray, and end it when we started it."""
    ray.shutdown()
