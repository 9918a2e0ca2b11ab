"""Draining a Ray node that its cloud takes away: no new work there, and Ray Train is told.

    python -m lssl_ray.cluster.preemption watch --cloud aws     # beside `ray start`, on spot nodes
    python -m lssl_ray.cluster.preemption drain --seconds 90    # now: a pod's preStop hook

The drain call is the one behind Ray's hidden `ray drain-node`, which its documentation names for
machines that nobody manages. What a notice is, is `preemption`'s.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import ray
import typer
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError

from lssl_ray.errors import ClusterError
from lssl_ray.preemption import POLL_SECONDS, Notice, build_source, watch_notices

RPC_SECONDS = 10
# The least that is told to Ray: a deadline of the past would end the drain before it began.
LEAST_SECONDS = 1.0

logger = logging.getLogger(__name__)
app = typer.Typer(help="Drain a node before its cloud takes it.", no_args_is_help=True)


@app.command()
def watch(
    cloud: Annotated[Literal["aws", "gcp"], typer.Option(help="Whose notices.")],
) -> None:
    """Wait for the cloud's notice, then drain this node."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _telling_errors():
        watch_notices(
            build_source(cloud), drain_this_node, poll_seconds=POLL_SECONDS[cloud], stop=stop
        )


@app.command()
def drain(
    seconds: Annotated[float, typer.Option(min=1, help="Seconds until this node is killed.")],
    reason: Annotated[str, typer.Option(help="For Ray's log.")] = "told to stop",
) -> None:
    """Drain this node now."""
    with _telling_errors():
        drain_this_node(Notice(reason, time.time() + seconds))


def drain_this_node(notice: Notice) -> None:
    """Drain the node of this machine, on the Ray of RAY_ADDRESS or of this machine.

    Raises:
        ClusterError: There is no Ray, or it refuses.
    """
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise ClusterError(
            f"No Ray to drain: {error} Start Ray on this machine first (ray start), with the same "
            "RAY_AUTH_MODE and token as the cluster."
        ) from error
    try:
        drain_node(ray.get_runtime_context().get_node_id(), notice)
    finally:
        ray.shutdown()


def drain_node(node_id: str, notice: Notice) -> None:
    """Tell the connected Ray that a node goes.

    Args:
        node_id: Ray's, hexadecimal.
        notice: Why and when.

    Raises:
        ClusterError: Ray refuses, does not answer, or has no such living node.
    """
    # Ray accepts the drain of a node that it does not know, and drains none.
    living = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if node_id not in living:
        raise ClusterError(
            f"Node {node_id} is none of the {len(living)} living nodes; give the NodeID that "
            "`ray list nodes` shows, in full."
        )
    deadline = max(notice.deadline, time.time() + LEAST_SECONDS)
    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    try:
        accepted, refusal = client.drain_node(
            node_id,
            autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            notice.reason,
            int(deadline * 1000),
            timeout=RPC_SECONDS,
        )
    except (ray.exceptions.RpcError, ValueError) as error:
        raise ClusterError(f"Ray did not take the drain of node {node_id}: {error}") from error
    if not accepted:
        raise ClusterError(f"Ray refuses to drain node {node_id}: {refusal}")
    logger.warning("Node %s drains: %s", node_id, notice.reason)


@contextmanager
def _telling_errors() -> Iterator[None]:
    """Log to stderr with the time, and end with 1 and the reason on a refusal."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    try:
        yield
    except ClusterError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
