"""Starting or joining Ray, on loopback and quietly unless told otherwise."""

import logging
import os

import ray
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
    # Sent to nobody unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if config.cluster.address == "auto":
            ray.init(address="auto", **quiet)
        else:
            cluster = config.cluster
            workers = cluster.num_workers * cluster.cpus_per_worker
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, workers + cluster.num_decoders + 1),
                _memory=cluster.num_decoders * cluster.decode_memory_mib * 2**20 + SPARE_BYTES,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"Ray could not be started or joined (cluster.address={config.cluster.address}): "
            f"{error}. Without Ray, --local runs everything in one process."
        ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    require_nodes("cluster.decode_labels", config.cluster.decode_labels)
    require_nodes("cluster.train_labels", config.cluster.train_labels)


def stop_ray() -> None:
    """Leave Ray, and end it when we started it."""
    ray.shutdown()
