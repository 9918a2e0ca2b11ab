"""Starting or joining Ray, on loopback and quietly unless told otherwise."""

import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants
from ray.data import DataContext
from ray.exceptions import RayError

from lssl_ray.cluster.placement import require_nodes
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError

SPARE_BYTES = 2**30  # for whatever else asks Ray for memory
# Ray keeps a history of ended tasks, 3 to 4 KB per step of a worker, of 100,000 of them unless told
# otherwise: hundreds of MB that nobody reads where there is no dashboard.
TASKS_REMEMBERED = 1000
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
OWN_TOKEN = "lssl-ray-"  # how a token of ours begins

# Not below `ray`, whose level hides warnings, nor ours, which a person sees.
_words = logging.getLogger("raylet")


def start_ray(config: RunConfig) -> None:
    """Start a Ray of our own on this machine, or join the one that runs this job.

    Logical cores and memory of our own Ray are what the run asks for, even above the machine's: on
    a laptop workers and decoders share them instead of waiting for each other for ever.

    Raises:
        ClusterError: Ray can't be started or found, or has no node with the wanted labels.
    """
    cluster = config.cluster
    num_validators = min(1, config.evaluation.every_checkpoints)
    num_cores = cluster.most_workers * cluster.cpus_per_worker + cluster.num_decoders
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

    One that is started asks everybody for a token that only this process and those below it have.

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
    ray._private.worker.print_worker_logs = _log_words
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "auto":
            # A Ray of our own listens nowhere else, and its trials join it here.
            is_near = os.environ.get("RAY_ADDRESS", "").startswith("127.0.0.1")
            with _on_loopback() if is_near else nullcontext():
                ray.init(address="auto", **quiet)
            return
        _choose_token()
        with _on_loopback():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, num_cpus),
                _memory=memory_bytes,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _system_config={"task_events_max_num_task_in_gcs": TASKS_REMEMBERED},
                **quiet,
            )
    except Exception as error:
        # Of a node that is slow to start Ray (2.60) raises Exception itself, and nothing narrower.
        expected = (ConnectionError, RuntimeError, ValueError, OSError, RayError)
        if type(error) is not Exception and not isinstance(error, expected):
            raise
        # Of who has no token, or a wrong one, Ray says only that it could not connect.
        token = (
            " Does it run, and does this shell have its token (export RAY_AUTH_MODE=token; "
            "~/.ray/auth_token, or RAY_AUTH_TOKEN_PATH)?"
        )
        raise ClusterError(
            f"Ray could not be started or joined: {error} ({remedy})."
            f"{token if address == 'auto' else ''}"
        ) from error


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


def _log_words(data: Mapping[str, Any], print_file: Any, ignore_prefix: bool = False) -> None:
    """Log what Ray tells a driver, such as a lost node with a hundred lines of that node's state.

    Ray prints it, coloured, among our own lines; `log_to_driver=False` does not stop that.
    """
    for line in data.get("lines", []):
        _words.warning("%s", line)


def _choose_token() -> None:
    """Give the Ray that is about to start a secret of its own, unless the user has named one.

    Ray's own choice is a file in the home folder that it leaves readable for every account, and
    that outlives the cluster. An environment is readable for its own account only (/proc), and is
    inherited by all of Ray's processes: those of a sweep's trials join by it.
    """
    if os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE) or MODE in os.environ:
        return
    os.environ |= {MODE: "token", TOKEN: f"{OWN_TOKEN}{secrets.token_hex(32)}"}
    _reread_token()


def _forget_token() -> None:
    """Another Ray that this process joins later has another secret, or none."""
    if os.environ.get(TOKEN, "").startswith(OWN_TOKEN):
        del os.environ[TOKEN], os.environ[MODE]
        _reread_token()


def _reread_token() -> None:
    """Ray's native part keeps what it has read of the environment."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def stop_ray() -> None:
    """Leave Ray, and end it when we started it."""
    ray.shutdown()
    _forget_token()
